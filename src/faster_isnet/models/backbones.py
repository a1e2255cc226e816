"""Backbones by name."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import nn

from faster_isnet.checks import check_choice

CONVNET = "convnet"
CONVNET_BLOCKS = tuple(f"block{number}" for number in range(1, 6))
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


def convnet(classes: int, channels: Sequence[int] = (16, 32, 64, 64, 64)) -> nn.Sequential:
    """Return a small network: blocks of a 3 x 3 convolution, batch norm, ReLU, and a linear layer.

    Parameters
    ----------
    classes
        How many logits it has.
    channels
        The channels of each block; a max pool halves the image in the first three. The blocks are
        named ``block1``, ``block2``, … (:data:`CONVNET_BLOCKS` for the default).
    """
    model = nn.Sequential()
    previous = 3
    for number, width in enumerate(channels, start=1):
        block = nn.Sequential(
            nn.Conv2d(previous, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        if number <= 3:
            block.append(nn.MaxPool2d(2))
        model.add_module(f"block{number}", block)
        previous = width
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("classifier", nn.Linear(previous, classes))
    return model
