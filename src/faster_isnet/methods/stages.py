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

from faster_isnet.common.checks import check_logits, refusal
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.methods.autograd_paths import AutogradPaths
from faster_isnet.methods.layer_grids import Places, possible_places

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
        Where its values lie in the image; ``None`` if there is but one place, or none is known.
    began, ended
        How many modules had returned when this one began, and when it ended.
    """

    name: str
    edge: GradientEdge
    places: Places | None
    began: int
    ended: int


@dataclass(frozen=True)
class _Layer:
    """A module that all goes through on the way from the image to the logits.

    Attributes
    ----------
    name
        Of the module.
    stage
        The number of its resolution, from 0 for the largest; ``None`` if it has no places that the
        logits depend on, so that it cannot be supervised.
    stage_before
        That of what ran before the module.
    composite
        Whether it is made of other modules.
    block
        Whether something in it runs beside something else, as in a residual block.
    """

    name: str
    stage: int | None
    stage_before: int | None
    composite: bool
    block: bool

    def is_in(self, other: _Layer) -> bool:
        """Whether the module is part of another."""
        return self.name.startswith(f"{other.name}.")


class NoLayerFoundError(ValueError):
    """Says that a network has no hidden layer, or no block, of the kind that is looked for."""


def find_stages(model: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """Name the last layer of each stage, or every n-th block of a network of one resolution.

    All that goes from the image to the logits goes through each of these layers, so no relevance
    passes by them. A stage is what has one resolution. Networks with residual (or otherwise
    branching) blocks have a stem before them, which is no stage, as the papers supervise ResNets;
    the last layer before the pooling is of one whatever it is.
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
    TypeError, ValueError
        If the model does not take images of this shape or returns no logits.
    NoLayerFoundError
        If there is no such layer.

    Examples
    --------
    >>> from torchvision.models import mobilenet_v2
    >>> find_stages(mobilenet_v2(), (3, 64, 64))
    ['features.1', 'features.3', 'features.6', 'features.13', 'features.18']
    """
    layers = _layers(model, image_shape)
    placed = [layer for layer in layers if layer.stage is not None]
    stages = {layer.stage for layer in _blocks_and_siblings(model, layers) or placed}
    ends = [end for end in _stage_ends(layers) if end.stage in stages | {placed[-1].stage}]
    # Without blocks, the modules of which the network is made.
    units = _blocks(placed) or [layer for layer in _unopened(layers) if layer.composite]
    if len(ends) == 1 and len(units) > 1:
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
    NoLayerFoundError
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


def module_name(model: nn.Module, name: str) -> str:
    """Return the name of a module, which may be given without that of what it is wrapped in.

    Examples
    --------
    >>> module_name(nn.Sequential(nn.Sequential(nn.ReLU())), "0.0")
    '0.0'
    >>> module_name(nn.ModuleDict({"network": nn.ModuleDict({"layer4": nn.ReLU()})}), "layer4")
    'network.layer4'
    """
    names = [known for known, _ in model.named_modules()]
    if name in names:
        return name
    found = [known for known in names if known.endswith(f".{name}")]
    return found[0] if len(found) == 1 else name  # what is wrong is said where layers are checked


def _blocks(layers: Sequence[_Layer]) -> list[_Layer]:
    """Return the innermost modules that branch."""
    blocks = [layer for layer in layers if layer.block]
    return [b for b in blocks if not any(inner.is_in(b) for inner in blocks)]


def _blocks_and_siblings(model: nn.Module, layers: Sequence[_Layer]) -> list[_Layer]:
    """Return blocks, and what stands in their place in a list: one that has a stride, a stage."""
    layers = [layer for layer in layers if layer.stage is not None]
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
    ends = {layer.stage: layer for layer in items}
    ends |= {layer.stage: layer for layer in items if layer.composite}
    return [layer for layer in items if layer in ends.values()]


def _unopened(layers: Sequence[_Layer]) -> list[_Layer]:
    """Return the outermost layers that do not have the end of another stage in them."""
    placed = [layer for layer in layers if layer.stage is not None]
    some_block = any(layer.block for layer in placed)

    def ends_in(layer: _Layer, outer: _Layer) -> bool:
        if not layer.is_in(outer) or layer.stage == outer.stage:
            return False
        return layer.block if some_block else layer.stage != outer.stage_before

    closed = [outer for outer in layers if not any(ends_in(layer, outer) for layer in placed)]
    return [
        layer
        for layer in closed
        if layer.stage is not None and not any(layer.is_in(outer) for outer in closed)
    ]


def _layers(model: nn.Module, image_shape: Sequence[int]) -> list[_Layer]:
    """Return the modules that everything goes through, in the order in which they end."""
    with torch.inference_mode(False), torch.enable_grad(), isolate_rng(), eval_mode(model):
        image, logits, outputs = _run(model, image_shape)
        paths = AutogradPaths(image, logits)
        through = [output for output in outputs if paths.all_through(output.edge)]
        grids = {o.ended: o.places.grid for o in _that_matter(logits, through) if o.places}
    pixels = math.prod(image.shape[2:])
    sides = {at: math.prod(g) ** (1 / len(g)) for at, g in grids.items() if math.prod(g) < pixels}
    if not sides:
        raise _none_found(model, image_shape, "hidden layer")
    stages = dict(zip(sides, _stage_numbers(list(sides.values())), strict=True))
    layers = []
    for output in through:
        inside = [other for other in outputs if other.name.startswith(f"{output.name}.")]
        before = [stage for ended, stage in stages.items() if ended <= output.began]
        layers.append(
            _Layer(
                output.name,
                stages.get(output.ended),
                before[-1] if before else None,
                composite=bool(inside),
                block=any(other.places and paths.some_beside(other.edge) for other in inside),
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
            if isinstance(output, Tensor) and output.grad_fn is not None:
                places = _places(output, image_shape[1:], model, name)
                edge = get_gradient_edge(output)
                outputs.append(_Output(name, edge, places, began[name], runs.total()))

        return hook

    image = _noise(model, image_shape)
    # What a model changes in place while it runs are these copies.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_pre_hook(enter(name)))
                hooks.enter_context(module.register_forward_hook(leave(name)))
        try:
            logits = torch.func.functional_call(model, buffers, (image.clone(),))
        except (RuntimeError, ValueError) as error:
            said = refusal(error, model, image)
            if said is error:
                raise
            raise said from error
    check_logits(logits, 1)
    return image, logits, [output for output in outputs if runs[output.name] == 1]


def _noise(model: nn.Module, image_shape: Sequence[int]) -> Tensor:
    """Return a batch of one image of values in [0, 1], that requires gradients."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    noise = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0))
    return noise.to(like.device, like.dtype).requires_grad_()


def _places(output: Tensor, size: Sequence[int], model: nn.Module, layer: str) -> Places | None:
    """Return where the values of an output lie, if that is known and there are several places."""
    found = possible_places(output.shape[1:], size, model, layer) if len(output) == 1 else []
    if len(found) != 1 or math.prod(found[0].grid) <= 1:
        return None
    (places,) = found
    if places.kind == "tokens" and not any(True for _ in model.get_submodule(layer).parameters()):
        return None  # such as of a flattened map, [C, h·w]
    small = all(number <= side for number, side in zip(places.grid, size, strict=True))
    return places if small else None


def _that_matter(logits: Tensor, outputs: Sequence[_Output]) -> list[_Output]:
    """Return the outputs whose places the logits depend on.

    A gradient of NaN reaches all of them, also through weights that are still zero.
    """
    placed = [output for output in outputs if output.places]
    if not placed:
        return []
    edges = [output.edge for output in placed]
    with torch.autograd.set_detect_anomaly(False):
        gradients = torch.autograd.grad(logits, edges, torch.full_like(logits, math.nan))
    return [
        output
        for output, gradient in zip(placed, gradients, strict=True)
        if output.places and bool(output.places.place(gradient.unsqueeze(1)).isnan().any())
    ]


def _none_found(model: nn.Module, image_shape: Sequence[int], kind: str) -> NoLayerFoundError:
    return NoLayerFoundError(
        f"no {kind} of {type(model).__name__} is known that all of an image {list(image_shape)} "
        "goes through, smaller than the image and of more than one place; give the "
        "method names of modules, or a larger image"
    )
