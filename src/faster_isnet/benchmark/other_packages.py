"""Explain one class by LRP-ε with other packages.

They are installed by ``pip install 'faster-isnet[bench]'``, LXT by ``pip install --no-deps lxt``;
only the benchmark needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from faster_isnet.benchmark.lxt_transformer import LxtTransformer

EPSILON = 1e-2


def zennit(model: nn.Module, images: Tensor, target: int) -> Callable[[], Tensor]:
    """Return zennit's LRP-ε; its rules are registered once, before the measurement.

    Batch norms are merged where zennit supports it: in sequences, VGGs and ResNets. Elsewhere they
    pass relevance by their gradient, as attention does.
    """
    composites, rules, types = (_import(f"zennit.{m}") for m in ("composites", "rules", "types"))
    attributor = _import("zennit.attribution").Gradient(model)
    by_layer = [
        (nn.MultiheadAttention, None),  # which zennit takes for an activation, and fails
        *composites.layer_map_base(),
        (types.Convolution, rules.Epsilon(EPSILON)),
        (types.Linear, rules.Epsilon(EPSILON)),
    ]
    composite = composites.LayerMapComposite(by_layer, canonizers=_canonizers(model))
    with torch.no_grad():
        one_hot = torch.zeros_like(model(images))
    one_hot[:, target] = 1
    composite.register(model)

    def run() -> Tensor:
        _, heatmap = attributor(images, one_hot)
        return heatmap  # type: ignore[no-any-return]

    return run


def _canonizers(model: nn.Module) -> list[Any]:
    if isinstance(model, torchvision.models.ResNet):
        return [_import("zennit.torchvision").ResNetCanonizer()]
    if isinstance(model, torchvision.models.VGG | nn.Sequential):
        return [_import("zennit.canonizers").SequentialMergeBatchNorm()]
    return []


def captum(model: nn.Module, images: Tensor, target: int) -> Callable[[], Tensor]:
    """Return captum's LRP with its default rules: LRP-ε with captum's ε."""
    lrp = _import("captum.attr").LRP(model)
    return lambda: lrp.attribute(images, target=target)


def autolrp(model: nn.Module, images: Tensor, target: int) -> Callable[[], Tensor]:
    """Return autoLRP with its default rules: LRP-ε at convolutions and linear layers."""
    package = _import("autolrp")

    def run() -> Tensor:
        wrapped = package.tensor(images)
        model(wrapped)[:, target].sum().lrp()
        return wrapped.relevance  # type: ignore[no-any-return]

    return run


def lxt(model: nn.Module, images: Tensor, target: int) -> Callable[[], Tensor]:
    """Return LXT's AttnLRP, by the functions of the paper's implementation."""
    transformer = LxtTransformer(model)
    return lambda: transformer.explain(images, target)


def lxt_efficient(model: nn.Module, images: Tensor, target: int) -> Callable[[], Tensor]:
    """Return LXT's rules for torchvision's transformers, CP-LRP in attention, as gradient × input.

    LXT replaces methods of torch's own classes; they are put back after each explanation. It needs
    transformers, in a version before 5.
    """
    classes: list[Any] = [nn.GELU, nn.LayerNorm, nn.MultiheadAttention]
    with _methods_of(classes):
        _import("lxt.efficient").monkey_patch(torchvision.models.vision_transformer)
        replaced = [cls.forward for cls in classes]

    def run() -> Tensor:
        pixels = images.clone().requires_grad_()
        with _methods_of(classes):
            for cls, forward in zip(classes, replaced, strict=True):
                cls.forward = forward
            logits = model(pixels)[:, target]
        (gradient,) = torch.autograd.grad(logits.sum(), pixels)
        return gradient * images

    return run


@contextmanager
def _methods_of(classes: list[Any]) -> Iterator[None]:
    """Put the classes' forward methods back at the end of the block."""
    before = [cls.forward for cls in classes]
    try:
        yield
    finally:
        for cls, forward in zip(classes, before, strict=True):
            cls.forward = forward


def _import(name: str) -> Any:
    """Import a module of an optional package, untyped."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'faster-isnet[bench]'"
        ) from error


OTHER_PACKAGES: dict[str, Callable[[nn.Module, Tensor, int], Callable[[], Tensor]]] = {
    "zennit": zennit,
    "captum": captum,
    "autolrp": autolrp,
}
"""The packages by name."""

FOR_TRANSFORMERS = {"lxt": lxt, "lxt, efficient": lxt_efficient}
"""Those that know torchvision's vision transformers only."""
