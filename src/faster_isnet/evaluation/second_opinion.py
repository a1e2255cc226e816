"""Explain an image by Grad-CAM and integrated gradients beside LRP; both are captum's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32
from faster_isnet.evaluation.localisation import relevance_mass_accuracy
from faster_isnet.evaluation.opinions import (
    GRAD_CAM,
    INTEGRATED_GRADIENTS,
    LRP,
    DrawnOpinion,
    check_methods,
)
from faster_isnet.explaining.targets import log_odds
from faster_isnet.methods.layer_grids import possible_places
from faster_isnet.methods.stages import NoLayerFoundError, find_stages
from faster_isnet.plotting.heatmaps import heatmap_figure, png

STEPS = 50
"""Images between black and the image that integrated gradients take; captum's default."""
_AT_ONCE = 10  # of these: for the memory
_NO_GRADIENTS = "the network has no gradients"
_NO_LRP = "it cannot explain the network"
_NO_MODULES = "the layers of a TorchScript program cannot be looked into"
_NO_LAYER = "no layer is known that has several places and that all of the image goes through"
_Explained = Callable[[Tensor], Tensor]


def check_second_opinion(methods: Sequence[str]) -> None:
    """Check that methods are known and can be used, before a network is run.

    Raises
    ------
    ValueError
        If one is unknown, or named twice.
    ImportError
        If there is one, and captum is not installed.
    """
    check_methods(methods)
    if methods:
        _captum()


def second_opinion(
    network: nn.Module,
    image: Tensor,
    methods: Sequence[str],
    *,
    heatmap: Tensor | None,
    mask: Tensor | None = None,
    picture: Tensor | None = None,
    task: str = "multiclass",
) -> list[DrawnOpinion]:
    """Explain the prediction of an image by other methods, too.

    All explain the same: the log-odds of the predicted class against all others, or of several
    labels the logit of the highest. The class stays that of the image while integrated gradients go
    there from black.

    Parameters
    ----------
    network
        From images ``[B, C, H, W]`` to logits, in evaluation mode.
    image
        ``[C, H, W]``, on the network's device. Black is 0: what is done to pixels before they are
        classified is part of the network.
    methods
        Some of :data:`~faster_isnet.evaluation.opinions.OTHER_METHODS`; none asks nothing.
    heatmap
        LRP's ``[C, H, W]``; ``None`` if there is none.
    mask
        The foreground, ``[1, H, W]`` in {0, 1}; ``None`` if it is not known.
    picture
        What to draw beneath the heatmaps, ``[1|3, H, W]`` in [0, 1]; ``None`` for the image.
    task
        ``"multiclass"`` or ``"multilabel"``.

    Returns
    -------
    list
        LRP's opinion, without a picture, and one of each method; empty if there are no methods. An
        opinion that cannot be had says why.

    Raises
    ------
    ImportError
        If captum is not installed.
    ValueError
        If a method is unknown, or named twice.

    Examples
    --------
    >>> from faster_isnet.models import build_backbone
    >>> network, image = build_backbone("convnet", 2).eval(), torch.rand(3, 32, 32)
    >>> found = second_opinion(network, image, ["grad-cam"], heatmap=None)
    >>> [(each.method, each.layer, each.why_not) for each in found]
    [('lrp', None, 'it cannot explain the network'), ('grad-cam', 'block5', None)]
    """
    check_second_opinion(methods)
    if not methods:
        return []
    with torch.inference_mode(False), torch.enable_grad():
        pixels = image.detach()[None].clone().requires_grad_()
        found = {LRP: _Found(heatmap, why_not=None if heatmap is not None else _NO_LRP)}
        found |= {method: _explain(method, network, pixels, task) for method in methods}
    beneath = image.detach().cpu() if picture is None else picture
    return [
        DrawnOpinion(
            method=method,
            background_share=_background_share(each.heatmap, mask),
            layer=each.layer,
            why_not=each.why_not,
            png=None
            if each.heatmap is None or method == LRP
            else png(heatmap_figure(beneath, each.heatmap, mask), dpi=100),
        )
        for method, each in found.items()
    ]


@dataclass(frozen=True, eq=False)
class _Found:
    """A heatmap ``[1|C, H, W]`` and the layer that it is of, or why there is none."""

    heatmap: Tensor | None = None
    layer: str | None = None
    why_not: str | None = None


def _explain(method: str, network: nn.Module, pixels: Tensor, task: str) -> _Found:
    if not _has_gradients(network, pixels):
        return _Found(why_not=_NO_GRADIENTS)
    try:
        found, layer = _METHODS[method](_explained(network, pixels, task), network, pixels)
    except NoLayerFoundError as error:
        return _Found(why_not=str(error))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # captum asserts, too
        return _Found(why_not=f"{type(error).__name__}: {str(error).strip()}")
    heatmap = at_least_float32(found.detach())[0].cpu()
    if not bool(heatmap.isfinite().all()):
        return _Found(layer=layer, why_not="its attributions are not finite")
    return _Found(heatmap, layer)


def _explained(network: nn.Module, pixels: Tensor, task: str) -> _Explained:
    """Return what is explained of images: a scalar ``[B]`` of the class that ``pixels`` have."""
    with torch.no_grad():
        predicted = int(_logits(network, pixels).argmax())

    def quantity(images: Tensor) -> Tensor:
        logits = _logits(network, images)
        index = torch.full((len(logits), 1), predicted, device=logits.device)
        scalars = log_odds(logits, index) if task == "multiclass" else logits.gather(1, index)
        return scalars.squeeze(1)

    return quantity


def _grad_cam(explained: _Explained, network: nn.Module, pixels: Tensor) -> tuple[Tensor, str]:
    """Return Grad-CAM ``[1, 1, H, W]`` of the last layer that all goes through, and its name."""
    layer, size = _last_layer(network, pixels.shape[1:]), tuple(pixels.shape[2:])
    with _maps_of(network, layer, size) as maps:
        found = _captum().LayerGradCam(explained, maps).attribute(pixels, relu_attributions=True)
    enlarged = _captum().LayerAttribution.interpolate(found, size, interpolate_mode="bilinear")
    return enlarged, layer


def _last_layer(network: nn.Module, image_shape: Sequence[int]) -> str:
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise NoLayerFoundError(_NO_MODULES)
    try:
        return find_stages(network, image_shape)[-1]
    except NoLayerFoundError as error:
        raise NoLayerFoundError(_NO_LAYER) from error


def _integrated_gradients(
    explained: _Explained, network: nn.Module, pixels: Tensor
) -> tuple[Tensor, None]:
    """Return integrated gradients from black, summed over channels, ``[1, 1, H, W]``."""
    found = _captum().IntegratedGradients(explained)
    black = torch.zeros_like(pixels)
    attributions = found.attribute(pixels, black, n_steps=STEPS, internal_batch_size=_AT_ONCE)
    return attributions.sum(1, keepdim=True), None


_METHODS: dict[str, Callable[[_Explained, nn.Module, Tensor], tuple[Tensor, str | None]]] = {
    GRAD_CAM: _grad_cam,
    INTEGRATED_GRADIENTS: _integrated_gradients,
}


@contextmanager
def _maps_of(network: nn.Module, layer: str, size: tuple[int, ...]) -> Iterator[nn.Module]:
    """Yield a module that returns the layer's output as maps, which are all that captum takes."""
    maps = nn.Identity()

    def through_maps(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        (places,) = possible_places(output.shape[1:], size, network, layer)
        values = output.unsqueeze(1)
        placed = maps(places.place(values).squeeze(1))
        return places.put_back(placed.unsqueeze(1), values).squeeze(1)

    hook = network.get_submodule(layer).register_forward_hook(through_maps)
    try:
        yield maps
    finally:
        hook.remove()


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    """Return logits ``[B, C]`` in the form that LRP explains, C ≥ 2 of a single one, too."""
    return class_logits(at_least_float32(network(images)))


def _has_gradients(network: nn.Module, pixels: Tensor) -> bool:
    try:
        return _logits(network, pixels).requires_grad
    except (RuntimeError, ValueError):  # NumPy, and so onnxruntime, takes no tensor with gradients
        return False


def _background_share(heatmap: Tensor | None, mask: Tensor | None) -> float | None:
    """Return the part of the positive attributions that lies in the background, if any."""
    if heatmap is None or mask is None or not bool((heatmap.sum(0) > 0).any()):
        return None
    inside = relevance_mass_accuracy(heatmap[None], mask[None])
    return float((1 - inside).clamp(0, 1))


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise ImportError(
            "a second opinion needs captum: pip install 'faster-isnet[captum]'"
        ) from error
    return attr
