"""Backbones by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torchvision
from torch import nn

from faster_isnet.common.checks import check_choice
from faster_isnet.common.recipes import record
from faster_isnet.models.densenet import DEPTHS, new_densenet
from faster_isnet.models.heads import check_head, fit_head
from faster_isnet.models.timm_models import PREFIX, check_timm_name, new_timm_model

CONVNET = "convnet"
CONVNET_BLOCKS = tuple(f"block{number}" for number in range(1, 6))
# Heads that in training give auxiliary logits beside the logits.
_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


def backbone_names() -> list[str]:
    """Return the names that :func:`build_backbone` knows, without those of timm."""
    return list(_BUILDERS)


def check_backbone(name: str) -> str:
    """Return ``name`` if :func:`build_backbone` knows it.

    Raises
    ------
    ImportError
        If it is a network of timm's (``"timm:…"``), and timm is not installed.
    TypeError
        If it is not a string.
    ValueError
        If it is unknown.

    Examples
    --------
    >>> check_backbone("densenet264")
    'densenet264'
    """
    if isinstance(name, str) and name.startswith(PREFIX):
        check_timm_name(name)
        return name
    return check_choice("backbone", name, backbone_names())


def build_backbone(
    name: str,
    classes: int,
    pretrained: bool = False,
    dropout: float = 0.0,
    last_pool: bool = True,
) -> nn.Module:
    """Return a new network, from images ``[B, 3, H, W]`` to logits ``[B, classes]``.

    Parameters
    ----------
    name
        One of

        - ``"convnet"``, a small network for small images (:func:`convnet`);
        - ``"densenet121"``, ``161``, ``169``, ``201``, ``264``: the papers' DenseNets, which have
          a ReLU more in each transition than torchvision's
          (:func:`~faster_isnet.models.densenet.densenet`);
        - the name of another of torchvision's classification models, as torchvision makes it, but
          without the auxiliary heads of GoogLeNet and Inception;
        - ``"timm:"`` and the name of one of timm's, where timm is installed
          (``pip install 'faster-isnet[timm]'``), with or without the name of its weights:
          ``"timm:resnet18"``, ``"timm:resnet18.a1_in1k"``.
    classes
        How many logits it has, ≥ 2.
    pretrained
        Start from torchvision's or timm's default ImageNet weights, which they download on first
        use, with a new classifier head; otherwise from random weights. The weights of torchvision
        want images normalised as ImageNet's, (x − mean)/std with mean (0.485, 0.456, 0.406) and
        std (0.229, 0.224, 0.225) for x in [0, 1]; those of timm state what they want in
        ``model.pretrained_cfg``. Tell the z^B rule the range that the pixels have after that.
    dropout
        Which part of the head's inputs is dropped in training, in [0, 1); see
        :func:`~faster_isnet.models.replace_classifier` for what this does to its keys.
    last_pool
        Whether a VGG keeps its last max pool. Without it the last feature maps are twice as large,
        and so is what heatmaps can resolve; no parameter changes.

    Raises
    ------
    ImportError
        If the network is one of timm's, and timm is not installed.
    TypeError
        If ``classes`` is no integer, or ``dropout`` no number.
    ValueError
        If the name is unknown, a number is out of range, there are no pretrained weights, or a
        network that is no VGG shall lose its last pool.

    Examples
    --------
    >>> build_backbone("resnet18", classes=3).fc
    Linear(in_features=512, out_features=3, bias=True)
    >>> build_backbone("convnet", classes=3, dropout=0.5).classifier
    Sequential(
      (0): Dropout(p=0.5, inplace=False)
      (1): Linear(in_features=64, out_features=3, bias=True)
    )
    """
    check_backbone(name)
    check_head(classes, dropout)
    if not last_pool and not name.startswith("vgg"):
        raise ValueError(
            f"last_pool=False is for torchvision's VGG (vgg11 to vgg19_bn), got backbone {name!r}"
        )
    build = _BUILDERS[name] if name in _BUILDERS else partial(new_timm_model, name)
    model = build(classes, pretrained)
    if not last_pool:
        features: Any = model.features
        del features[-1]
    model = fit_head(model, classes, pretrained, dropout)
    # Built again it gets its weights from a file, and downloads none.
    return record(
        model, build_backbone, name=name, classes=classes, dropout=dropout, last_pool=last_pool
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


def _new_convnet(classes: int, pretrained: bool) -> nn.Module:
    if pretrained:
        raise ValueError(f"there are no pretrained weights for {CONVNET}; use pretrained=False")
    return convnet(classes)


def _new_torchvision(name: str, classes: int, pretrained: bool) -> nn.Module:
    """Return a network of torchvision's; with pretrained weights it has ImageNet's classes."""
    auxiliary = _AUXILIARY.get(name, ())
    if not pretrained:
        options = {"aux_logits": False, "init_weights": True} if auxiliary else {}
        return torchvision.models.get_model(  # type: ignore[no-any-return]
            name, weights=None, num_classes=classes, **options
        )
    model = torchvision.models.get_model(name, weights="DEFAULT")
    for head in auxiliary:  # with weights, torchvision does not let them be left out
        setattr(model, head, None)
        model.aux_logits = False
    return model  # type: ignore[no-any-return]


# Each makes a network from the number of its classes, and whether it has pretrained weights: then
# it has the classes that these were trained on.
_BUILDERS: dict[str, Callable[[int, bool], nn.Module]] = {
    CONVNET: _new_convnet,
    **{
        name: partial(_new_torchvision, name)
        for name in torchvision.models.list_models(module=torchvision.models)
    },
    **{f"densenet{depth}": partial(new_densenet, depth) for depth in DEPTHS},
}
