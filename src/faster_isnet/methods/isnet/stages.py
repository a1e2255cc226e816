"""Find the stages and blocks of any network, by running it on one image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from faster_isnet.common.checks import check_logits
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.methods.isnet.autograd_paths import AutogradPaths
from faster_isnet.methods.isnet.layer_grids import Places, possible_places

_SMALLER = math.sqrt(0.5)
"""From this ratio of sides on, a tensor is of another stage: an unpadded convolution makes none."""
_LAYERS = 4
"""How many layers are supervised at constant resolution: as many as in the papers' ResNet."""


@dataclass(frozen=True)
class _Output:
    """What a module returned.

    Attributes
    ----------
    name
        Of the module.
    edge
        Where the tensor is in the graph.
    places
        Where its values lie in the image.
    began, ended
        How many modules had returned when this one began, and when it ended.
    """

    name: str
    edge: GradientEdge
    places: Places
    began: int
    ended: int

    @property
    def side(self) -> float:
        """The geometric mean of the grid's sides."""
        return float(math.prod(self.places.grid) ** (1 / len(self.places.grid)))


@dataclass(frozen=True)
class _Layer:
    """A hidden layer that all goes through on the way from the image to the logits.

    Attributes
    ----------
    name
        Of the module.
    stage
        The number of its resolution, from 0 for the largest.
    stage_before
        That of the layer before the module; −1 if there is none.
    composite
        Whether it is made of other modules.
    block
        Whether something in it runs beside something else, as in a residual block.
    """

    name: str
    stage: int
    stage_before: int
    composite: bool
    block: bool

    def is_in(self, other: _Layer) -> bool:
        """Whether the module is part of another."""
        return self.name.startswith(f"{other.name}.")


def find_stages(model: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """Name the last layer of each stage, or every n-th block of a network of one resolution.

    All that goes from the image to the logits goes through each of these layers, so no relevance
    passes by them. A stage is what has one resolution. Networks with residual (or otherwise
    branching) blocks have a stem before them, which is no stage, as the papers supervise ResNets.
    At constant resolution about four blocks are named, as many as a ResNet has stages, at equal
    distances and with the last one.

    Layers whose places the logits do not depend on are left out, such as the last block of a
    transformer that reads its class token alone.

    Parameters
    ----------
    model
        From images ``[B, C_in, ...]`` to logits. It is run in evaluation mode on one image of
        noise, on the device of its parameters, and is left as it was, as are all random states.
    image_shape
        ``(C_in, H, W)``.

    Raises
    ------
    ValueError
        If there is no such layer.

    Examples
    --------
    >>> from torchvision.models import mobilenet_v2
    >>> find_stages(mobilenet_v2(), (3, 64, 64))
    ['features.1', 'features.3', 'features.6', 'features.13', 'features.18']
    """
    layers = _layers(model, image_shape)
    stages = {layer.stage for layer in _blocks_and_siblings(model, layers) or layers}
    ends = [layer for layer in _stage_ends(layers) if layer.stage in stages]
    # Without blocks, the modules of which the network is made.
    units = _blocks(layers) or [layer for layer in _unopened(layers) if layer.composite]
    if len(stages) == 1 and len(units) > 1:
        distance = math.ceil(len(units) / _LAYERS)
        ends = units[::-1][::distance][::-1]
    return [layer.name for layer in ends]


def find_blocks(model: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """Name every residual or otherwise branching block, and what stands in one list with them.

    Parameters
    ----------
    model, image_shape
        See :func:`find_stages`.

    Raises
    ------
    ValueError
        If there is no such block.

    Examples
    --------
    >>> from torchvision.models import vit_b_16
    >>> len(find_blocks(vit_b_16(image_size=32), (3, 32, 32)))  # the last reads the class token
    11
    """
    found = _blocks_and_siblings(model, _layers(model, image_shape))
    if not found:
        raise _none_found(model, image_shape, "block of several branches")
    return [layer.name for layer in found]


def _blocks(layers: Sequence[_Layer]) -> list[_Layer]:
    """Return the innermost modules that branch."""
    blocks = [layer for layer in layers if layer.block]
    return [b for b in blocks if not any(inner.is_in(b) for inner in blocks)]


def _blocks_and_siblings(model: nn.Module, layers: Sequence[_Layer]) -> list[_Layer]:
    """Return blocks, and what stands in their place in a list: one that has a stride, a stage."""
    blocks = _blocks(layers)
    lists = set()
    for block in blocks:
        parent = block.name
        while parent:
            parent = parent.rpartition(".")[0]
            if isinstance(model.get_submodule(parent), nn.Sequential | nn.ModuleList):
                lists.add(parent)

    def is_sibling(layer: _Layer) -> bool:
        in_list = layer.name.rpartition(".")[0] in lists
        return in_list and layer.composite and not any(block.is_in(layer) for block in blocks)

    return [layer for layer in layers if layer in blocks or is_sibling(layer)]


def _stage_ends(layers: Sequence[_Layer]) -> list[_Layer]:
    """Return the last layer of each stage, one made of several modules where there is one."""
    items = _unopened(layers)
    ends = {}
    for chosen in (items, [layer for layer in items if layer.composite]):
        ends.update({layer.stage: layer for layer in chosen})
    return [ends[stage] for stage in sorted(ends)]


def _unopened(layers: Sequence[_Layer]) -> list[_Layer]:
    """Return the outermost layers that do not have the end of another stage in them."""
    some_block = any(layer.block for layer in layers)

    def ends_in(layer: _Layer, outer: _Layer) -> bool:
        if not layer.is_in(outer) or layer.stage == outer.stage:
            return False
        return layer.block if some_block else layer.stage != outer.stage_before

    closed = [outer for outer in layers if not any(ends_in(layer, outer) for layer in layers)]
    return [layer for layer in closed if not any(layer.is_in(outer) for outer in closed)]


def _layers(model: nn.Module, image_shape: Sequence[int]) -> list[_Layer]:
    """Return the layers that everything goes through, in the order in which they end."""
    image, logits, outputs = _run(model, image_shape)
    paths = AutogradPaths(image, logits)
    through = [output for output in outputs if paths.all_through(output.edge)]
    through = [o for o in through if math.prod(o.places.grid) < math.prod(image.shape[2:])]
    through = _that_matter(logits, through)
    if not through:
        raise _none_found(model, image_shape, "hidden layer")
    stages = _stage_numbers([output.side for output in through])
    layers = []
    for output, stage in zip(through, stages, strict=True):
        inside = [other for other in outputs if other.name.startswith(f"{output.name}.")]
        before = sum(other.ended <= output.began for other in through)
        layers.append(
            _Layer(
                output.name,
                stage,
                stages[before - 1] if before else -1,
                composite=bool(inside),
                block=any(paths.some_beside(other.edge) for other in inside),
            )
        )
    return layers


def _stage_numbers(sides: Sequence[float]) -> list[int]:
    """Give sizes numbers, from the largest on; those that hardly differ have the same.

    Examples
    --------
    >>> _stage_numbers([149, 147, 73, 71, 35])
    [0, 0, 1, 1, 2]
    """
    numbers: dict[float, int] = {}
    largest, number = math.inf, -1
    for side in sorted(set(sides), reverse=True):
        if side <= _SMALLER * largest:
            largest, number = side, number + 1
        numbers[side] = number
    return [numbers[side] for side in sides]


def _run(model: nn.Module, image_shape: Sequence[int]) -> tuple[Tensor, Tensor, list[_Output]]:
    """Run one image; return it, its logits, and what modules returned that ran once."""
    runs, began = Counter[str](), dict[str, int]()
    outputs: list[_Output] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            began[name] = runs.total()

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            runs[name] += 1
            places = _places(output, image_shape[1:], model, name)
            if places is not None:
                edge = get_gradient_edge(output)
                outputs.append(_Output(name, edge, places, began[name], runs.total()))

        return hook

    with torch.inference_mode(False), torch.enable_grad(), isolate_rng(), eval_mode(model):
        image = _noise(model, image_shape)
        # What a model changes in place while it runs are these copies.
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                if name:
                    hooks.enter_context(module.register_forward_pre_hook(enter(name)))
                    hooks.enter_context(module.register_forward_hook(leave(name)))
            logits = torch.func.functional_call(model, buffers, (image.clone(),))
    check_logits(logits, 1)
    return image, logits, [output for output in outputs if runs[output.name] == 1]


def _noise(model: nn.Module, image_shape: Sequence[int]) -> Tensor:
    """Return a batch of one image of values in [0, 1], that requires gradients."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    noise = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0))
    return noise.to(like.device, like.dtype).requires_grad_()


def _places(output: Any, size: Sequence[int], model: nn.Module, layer: str) -> Places | None:
    """Return where the values of an output lie, if that is known and there are several places."""
    if not isinstance(output, Tensor) or output.grad_fn is None or len(output) != 1:
        return None
    found = possible_places(output.shape[1:], size, model, layer)
    if len(found) != 1 or math.prod(found[0].grid) <= 1:
        return None
    small = all(places <= side for places, side in zip(found[0].grid, size, strict=True))
    return found[0] if small else None


def _that_matter(logits: Tensor, outputs: Sequence[_Output]) -> list[_Output]:
    """Return the outputs whose places the logits depend on.

    A gradient of NaN reaches all of them, also through weights that are still zero.
    """
    with torch.autograd.set_detect_anomaly(False):
        gradients = torch.autograd.grad(
            logits,
            [output.edge for output in outputs],
            torch.full_like(logits, math.nan),
        )
    return [
        output
        for output, gradient in zip(outputs, gradients, strict=True)
        if bool(output.places.place(gradient.unsqueeze(1)).isnan().any())
    ]


def _none_found(model: nn.Module, image_shape: Sequence[int], kind: str) -> ValueError:
    return ValueError(
        f"no {kind} of {type(model).__name__} is known that all of an image {list(image_shape)} "
        "goes through, smaller than the image and of more than one place; give a list of module "
        "names as deep_supervision, or a larger image"
    )
