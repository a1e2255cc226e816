"""Explain one class by LRP-ε with other packages.

They are installed by ``pip install 'faster-isnet[bench]'``; only the benchmark needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

EPSILON = 1e-2


def zennit(model: nn.Module, images: Tensor, target: int) -> Callable[[], Tensor]:
    """Return zennit's LRP-ε; its rules are registered once, before the measurement.

    Batch norms are merged where zennit supports it: in sequences, VGGs and ResNets. Elsewhere they
    pass relevance by their gradient.
    """
    composites, rules, types = (_import(f"zennit.{m}") for m in ("composites", "rules", "types"))
    attributor = _import("zennit.attribution").Gradient(model)
    by_layer = [
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
