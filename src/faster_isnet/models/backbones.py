"""Build backbones by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torchvision
from torch import nn

from faster_isnet.common.checks import check_channels, check_choice
from faster_isnet.common.recipes import record
from faster_isnet.common.resizing import CENTER, Resizing
from faster_isnet.models.ag_sononet import AGSononet
from faster_isnet.models.densenet import DEPTHS, new_densenet
from faster_isnet.models.heads import check_head, fit_head
from faster_isnet.models.input_channels import (
    fold_transform_input,
    read_grey_imagenet,
    sum_input_channels,
)
from faster_isnet.models.small_vit import SmallViT
from faster_isnet.models.timm_models import PREFIX, check_timm_name, is_timm_name, new_timm_model

CONVNET = "convnet"
CONVNET_BLOCKS = tuple(f"block{number}" for number in range(1, 6))
# Heads that return auxiliary logits in training mode.
_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


def backbone_names() -> list[str]:
    """List the names that :func:`build_backbone` accepts, without those of timm."""
    return list(_BUILDERS)


def check_backbone(name: str) -> str:
    """Check that :func:`build_backbone` accepts ``name``, and return it.

    Raises
    ------
    ImportError
        If it is a network of timm (``"timm:…"``), and timm is not installed.
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
    if isinstance(name, str) and name not in _BUILDERS and is_timm_name(name):
        raise ValueError(f"unknown backbone {name!r}; it is a network of timm: {PREFIX}{name}")
    return check_choice("backbone", name, backbone_names())


def build_backbone(
    name: str,
    classes: int,
    pretrained: bool = False,
    dropout: float = 0.0,
    last_pool: bool = True,
    channels: int = 3,
) -> nn.Module:
    """Build a network from images ``[B, channels, H, W]`` to logits ``[B, classes]``.

    Parameters
    ----------
    name
        One of

        - ``"convnet"``, a small network for small images (:func:`convnet`);
        - ``"ag-sononet"``, a VGG with attention gates that is trained without masks
          (:class:`~faster_isnet.models.ag_sononet.AGSononet`, AG-Sononet-16), and half as wide
          ``"ag-sononet-8"``;
        - ``"small-vit-patch4"`` and ``"small-vit-patch8"``, vision transformers for images of
          about 32 and 64 pixels (:class:`~faster_isnet.models.small_vit.SmallViT`); torchvision's
          ``"vit_b_16"`` takes images of 224 x 224 pixels alone;
        - ``"densenet121"``, ``161``, ``169``, ``201``, ``264``: the papers' DenseNets, with an
          additional ReLU in each transition
          (:func:`~faster_isnet.models.densenet.densenet`);
        - the name of another of torchvision's classification models, unchanged, but without
          the auxiliary heads of GoogLeNet and Inception, whose pretrained first layer takes
          images normalised as those of the others
          (:func:`~faster_isnet.models.input_channels.fold_transform_input`);
        - ``"timm:"`` and the name of a network of timm, if timm is installed
          (``pip install 'faster-isnet[timm]'``), with or without the name of its weights:
          ``"timm:resnet18"``, ``"timm:resnet18.a1_in1k"``.
    classes
        Number of logits, ≥ 2.
    pretrained
        Start from torchvision's or timm's default ImageNet weights, which they download on first
        use, with a new classifier head; otherwise from random weights. Weights of torchvision
        need images normalised with ImageNet's statistics, (x − mean)/std with mean (0.485, 0.456,
        0.406) and std (0.229, 0.224, 0.225) for x in [0, 1]; for timm see ``model.pretrained_cfg``.
        Set the bounds of the z^B rule to the range of the normalised pixels.
    dropout
        Dropout probability before the head, in [0, 1); for its effect on state dict keys see
        :func:`~faster_isnet.models.replace_classifier`.
    last_pool
        Whether a VGG keeps its last max pool. Without it the last feature maps, and so the
        resolution of heatmaps, are twice as large; no parameter changes.
    channels
        Of the images, 3 or 1. For 1 the weights of the first convolution are summed over their
        input channels, so that a grey image has the logits that the image repeated in three
        channels would have. Pretrained ones of torchvision then need one mean and standard
        deviation, those of the three channels averaged, and ImageNet's are folded into them, see
        :func:`~faster_isnet.models.input_channels.read_grey_imagenet`. timm sums pretrained weights
        itself, and draws others for one channel.

    Raises
    ------
    ImportError
        If the network is from timm, and timm is not installed.
    TypeError
        If ``classes`` or ``channels`` is not an integer, or ``dropout`` not a number.
    ValueError
        If the name is unknown, a number is out of range, there are no pretrained weights, or
        ``last_pool`` is off for a network other than VGG.

    Examples
    --------
    >>> build_backbone("resnet18", classes=3).fc
    Linear(in_features=512, out_features=3, bias=True)
    >>> build_backbone("convnet", classes=3, dropout=0.5).classifier
    Sequential(
      (0): Dropout(p=0.5, inplace=False)
      (1): Linear(in_features=64, out_features=3, bias=True)
    )
    >>> build_backbone("resnet18", classes=3, channels=1).conv1.in_channels
    1
    """
    check_backbone(name)
    check_head(classes, dropout)
    check_channels(channels)
    if not last_pool and not name.startswith("vgg"):
        raise ValueError(
            f"last_pool=False is for torchvision's VGG (vgg11 to vgg19_bn), got backbone {name!r}"
        )
    is_timm = name not in _BUILDERS
    build = partial(new_timm_model, name, channels=channels) if is_timm else _BUILDERS[name]
    model = build(classes, pretrained)
    if not last_pool:
        features: Any = model.features
        del features[-1]
    model = fit_head(model, classes, pretrained, dropout)
    if channels == 1 and not is_timm:
        (read_grey_imagenet if pretrained else sum_input_channels)(model)
    # Built again it gets its weights from a file, and downloads none.
    described = {"name": name, "classes": classes, "dropout": dropout}
    return record(model, build_backbone, **described, last_pool=last_pool, channels=channels)


def published_network(name: str, channels: int = 3) -> nn.Module:
    """Build a network with the weights and the head that others have trained, to use it as it is.

    Parameters
    ----------
    name
        Of torchvision or timm, see :func:`build_backbone`. Their default weights are downloaded on
        first use.
    channels
        Of the images, see :func:`build_backbone`.

    Raises
    ------
    ImportError, TypeError, ValueError
        As :func:`build_backbone` does.
    """
    check_backbone(name)
    check_channels(channels)
    if name not in _BUILDERS:
        return new_timm_model(name, 0, True, channels)
    model = _BUILDERS[name](0, True)  # it has the classes of its weights
    if channels == 1:
        read_grey_imagenet(model)
    return model


@dataclass(frozen=True)
class PublishedImages:
    """Describe the images that published weights expect.

    Attributes
    ----------
    mean, std
        Of each channel, of pixels in [0, 1].
    shape
        ``(C, H, W)``.
    resizing
        How they come to that size.
    """

    mean: list[float]
    std: list[float]
    shape: tuple[int, int, int]
    resizing: Resizing


def published_images(name: str) -> PublishedImages | None:
    """Return what torchvision's default weights expect; ``None`` for other networks.

    Examples
    --------
    >>> published_images("efficientnet_v2_l").mean, published_images("convnet")
    ([0.5, 0.5, 0.5], None)
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    expected = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    (side,), (resized,) = expected.crop_size, expected.resize_size
    resizing = Resizing(CENTER, side / resized, expected.interpolation.value)
    return PublishedImages(list(expected.mean), list(expected.std), (3, side, side), resizing)


def convnet(classes: int, channels: Sequence[int] = (16, 32, 64, 64, 64)) -> nn.Sequential:
    """Build a small network: blocks of 3 x 3 convolution, batch norm, ReLU; a linear layer.

    Parameters
    ----------
    classes
        Number of logits.
    channels
        Output channels of each block; the first three end with a max pool of stride 2. Names are
        ``block1``, ``block2``, … (:data:`CONVNET_BLOCKS` for the default).
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


def _new_own(name: str, classes: int, pretrained: bool) -> nn.Module:
    if pretrained:
        raise ValueError(f"there are no pretrained weights for {name}; use pretrained=False")
    return _OWN[name](classes)


def _new_torchvision(name: str, classes: int, pretrained: bool) -> nn.Module:
    """Build a network of torchvision; with pretrained weights it has ImageNet's classes."""
    auxiliary = _AUXILIARY.get(name, ())
    if not pretrained:
        options = {"aux_logits": False, "init_weights": True} if auxiliary else {}
        return torchvision.models.get_model(  # type: ignore[no-any-return]
            name, weights=None, num_classes=classes, **options
        )
    model = torchvision.models.get_model(name, weights="DEFAULT")
    for head in auxiliary:  # torchvision always adds them to pretrained networks
        setattr(model, head, None)
        model.aux_logits = False
    if auxiliary:
        fold_transform_input(model)
    return model  # type: ignore[no-any-return]


_OWN: dict[str, Callable[[int], nn.Module]] = {
    CONVNET: convnet,
    "ag-sononet": AGSononet,
    "ag-sononet-8": partial(AGSononet, width=8),
    "small-vit-patch4": partial(SmallViT, patch=4),
    "small-vit-patch8": partial(SmallViT, patch=8),
}
# Functions of the number of classes and of whether to load pretrained weights. A pretrained
# network has the classes of the weights; fit_head replaces its head.
_BUILDERS: dict[str, Callable[[int, bool], nn.Module]] = {
    **{name: partial(_new_own, name) for name in _OWN},
    **{
        name: partial(_new_torchvision, name)
        for name in torchvision.models.list_models(module=torchvision.models)
    },
    **{f"densenet{depth}": partial(new_densenet, depth) for depth in DEPTHS},
}
