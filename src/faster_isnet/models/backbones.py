"""Backbones by name."""

from __future__ import annotations

import torchvision
from torch import nn

from faster_isnet.checks import check_choice

CONVNET = "convnet"
# In training these return auxiliary logits beside the logits, unless they are told not to.
_WITH_AUXILIARY = ("googlenet", "inception_v3")


def backbone_names() -> list[str]:
    """Return the names that :func:`build_backbone` knows."""
    return [CONVNET, *torchvision.models.list_models(module=torchvision.models)]


def build_backbone(name: str, classes: int) -> nn.Module:
    """Return a new network with random weights, from images ``[B, 3, H, W]`` to logits.

    Parameters
    ----------
    name
        ``"convnet"``, a small network for small images (:func:`convnet`), or the name of one of
        torchvision's classification models.
    classes
        How many logits it has, ≥ 2.

    Raises
    ------
    ValueError
        If the name is unknown, or there are fewer than two classes.

    Examples
    --------
    >>> build_backbone("resnet18", classes=3).fc
    Linear(in_features=512, out_features=3, bias=True)
    """
    check_choice("backbone", name, backbone_names())
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    if name == CONVNET:
        return convnet(classes)
    options = {"aux_logits": False, "init_weights": True} if name in _WITH_AUXILIARY else {}
    return torchvision.models.get_model(  # type: ignore[no-any-return]
        name, weights=None, num_classes=classes, **options
    )


def convnet(classes: int, channels: tuple[int, ...] = (16, 32, 64, 64, 64)) -> nn.Sequential:
    """Return five convolutions with batch norm and ReLU, three max pools and a linear layer.

    Parameters
    ----------
    classes
        How many logits it has.
    channels
        The channels of the convolutions; a max pool halves the image behind each of the first
        three.
    """
    layers: list[nn.Module] = []
    previous = 3
    for index, width in enumerate(channels):
        layers += [
            nn.Conv2d(previous, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        if index < 3:
            layers.append(nn.MaxPool2d(2))
        previous = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(previous, classes)
    )
