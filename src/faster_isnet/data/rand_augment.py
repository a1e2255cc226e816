"""RandAugment of an image and its masks together."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from faster_isnet.common.checks import check_range

STRONGEST = 30
"""Largest magnitude."""
_TRANSLATION = 150 / 331  # of the image's size: AutoAugment's 150 pixels of 331


class _Operation(NamedTuple):
    """One of the changes that are drawn from.

    Attributes
    ----------
    name
        torchvision's.
    most
        What a magnitude of 30 is: radians, shares of the size, degrees, changes of a factor.
    has_sign
        Whether it is reversed in half of the draws.
    moves
        Whether pixels change their place, and those of masks with them.
    """

    name: str
    most: float = 0.0
    has_sign: bool = False
    moves: bool = False


_OPERATIONS = (  # in torchvision's order, so that the same seed draws the same
    _Operation("Identity"),
    _Operation("ShearX", 0.3, has_sign=True, moves=True),
    _Operation("ShearY", 0.3, has_sign=True, moves=True),
    _Operation("TranslateX", _TRANSLATION, has_sign=True, moves=True),
    _Operation("TranslateY", _TRANSLATION, has_sign=True, moves=True),
    _Operation("Rotate", 30.0, has_sign=True, moves=True),
    _Operation("Brightness", 0.9, has_sign=True),
    _Operation("Color", 0.9, has_sign=True),
    _Operation("Contrast", 0.9, has_sign=True),
    _Operation("Sharpness", 0.9, has_sign=True),
    _Operation("Posterize", 4.0),  # bits that are left out
    _Operation("Solarize", 1.0),
    _Operation("AutoContrast"),
    _Operation("Equalize"),
)


class RandAugment:
    """Apply some changes, drawn with equal probability from 14, to an image and to its masks.

    Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space",
    2019. The changes and their strengths are those of ``torchvision.transforms.v2.RandAugment``,
    and of the same seed come the same images; that class refuses masks, so that an image would be
    moved away from its mask. Here a change that moves pixels (shear, translation, rotation) moves
    those of masks alike; what comes in from outside is black, and background. Colours are those of
    the image alone.

    Images stay floats in [0, 1], and keep more than 256 levels but for ``Equalize``, which has
    torchvision's 256. Images with one channel have no colours to change: ``Color`` leaves them.

    Parameters
    ----------
    operations
        How many changes, one after the other; ≥ 0.
    magnitude
        Their strength, in [0, 30]; the paper tunes it, mostly between 5 and 15.

    Examples
    --------
    >>> image = tv_tensors.Image(torch.rand(1, 8, 8))
    >>> image, mask = RandAugment(2, 9)(image, tv_tensors.Mask(torch.ones(1, 8, 8)))
    >>> image.shape, mask.unique().tolist() in ([1.0], [0.0, 1.0])
    (torch.Size([1, 8, 8]), True)
    """

    def __init__(self, operations: int, magnitude: float) -> None:
        self.operations = int(check_range("operations", operations, 0))
        self.magnitude = check_range("magnitude", magnitude, 0, STRONGEST)

    def __call__(self, *inputs: Tensor) -> Any:
        """Return an image ``[C, H, W]``, C being 1 or 3, in [0, 1], and masks, changed alike.

        Parameters
        ----------
        *inputs
            A ``tv_tensors.Image``, and any number of ``tv_tensors.Mask``.

        Returns
        -------
        Tensor or tuple of Tensor
            What was given: one, or several.
        """
        for _ in range(self.operations):
            operation = _OPERATIONS[int(torch.randint(len(_OPERATIONS), ()))]
            change = operation.most * self.magnitude / STRONGEST
            if operation.has_sign and torch.rand(()) <= 0.5:
                change = -change
            inputs = tuple(
                each
                if isinstance(each, tv_tensors.Mask) and not operation.moves
                else _changed(each, operation.name, change)
                for each in inputs
            )
        return inputs if len(inputs) > 1 else inputs[0]


def _changed(values: Tensor, name: str, change: float) -> Any:
    """Return an image after one change, or a mask after one that moves pixels."""
    height, width = values.shape[-2:]
    match name:
        case "ShearX":
            return _sheared(values, [math.degrees(math.atan(change)), 0.0])
        case "ShearY":
            return _sheared(values, [0.0, math.degrees(math.atan(change))])
        case "TranslateX":
            return _affine(values, translate=[int(change * width), 0])
        case "TranslateY":
            return _affine(values, translate=[0, int(change * height)])
        case "Rotate":
            return F.rotate(values, change, interpolation=InterpolationMode.BILINEAR)
        case "Brightness":
            return F.adjust_brightness(values, 1 + change)
        case "Color":
            return F.adjust_saturation(values, 1 + change)
        case "Contrast":
            return F.adjust_contrast(values, 1 + change)
        case "Sharpness":
            return F.adjust_sharpness(values, 1 + change)
        case "Posterize":
            return F.posterize(values, 8 - round(change))
        case "Solarize":
            return F.solarize(values, 1 - change)
        case "AutoContrast":
            return F.autocontrast(values)
        case "Equalize":
            return F.equalize(values)
    return values


def _sheared(values: Tensor, shear: list[float]) -> Any:
    return _affine(values, shear=shear, center=[0.0, 0.0])  # the corner stays, as in PIL


def _affine(values: Tensor, **changes: Any) -> Any:
    """Return an image, interpolated, or a mask, of its nearest pixels; 0 from outside."""
    still: dict[str, Any] = {"translate": [0, 0], "shear": [0.0, 0.0]}
    options = still | changes
    return F.affine(values, 0.0, scale=1.0, interpolation=InterpolationMode.BILINEAR, **options)
