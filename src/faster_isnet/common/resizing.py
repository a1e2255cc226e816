"""Bring images, and masks with them, to the size that a network reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from faster_isnet.common.checks import check_choice, check_range

CENTER, SQUASH = "center", "squash"
CROP_MODES = (CENTER, SQUASH)
INTERPOLATIONS = ("bilinear", "bicubic")
_ROUNDING = 1e-6  # so that 224 / (224 / 232) is 232


@dataclass(frozen=True)
class Resizing:
    """Say how an image of any size becomes one of a network's size.

    The names are timm's. By default both sides are resized, and nothing is cut off.

    Attributes
    ----------
    crop_mode
        ``"center"``: the shorter side becomes the network's, divided by ``crop_pct``, the aspect
        ratio is kept, and the middle is cut out. ``"squash"``: both sides do, whatever the aspect
        ratio.
    crop_pct
        The part of the resized image's sides that is cut out, in (0, 1].
    interpolation
        ``"bilinear"`` or ``"bicubic"``, both with antialiasing.

    Raises
    ------
    ValueError
        If a name is unknown, or the share is out of range.

    Examples
    --------
    >>> import torch
    >>> resizing = Resizing("center", crop_pct=0.875, interpolation="bicubic")
    >>> resizing.image(torch.rand(3, 300, 400), (224, 224)).shape
    torch.Size([3, 224, 224])
    >>> print(resizing.words((224, 224)))
    resized to a shorter side of 256 pixels (bicubic), of which the middle 224 x 224 are kept
    """

    crop_mode: str = SQUASH
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the names and the share."""
        check_choice("crop_mode", self.crop_mode, CROP_MODES)
        check_range("crop_pct", self.crop_pct, 0, 1, open_low=True)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def image(self, image: Tensor, size: Sequence[int]) -> Tensor:
        """Resize an image ``[C, H, W]`` in [0, 1] to ``size`` (H, W).

        Values may exceed [0, 1]: by a rounding error, or, if bicubic, at edges.
        """
        return self._resized(image, size, InterpolationMode(self.interpolation))

    def mask(self, mask: Tensor, size: Sequence[int]) -> Tensor:
        """Resize a mask ``[1, H, W]`` as its image, each pixel to the nearest of its values."""
        return self._resized(mask, size, InterpolationMode.NEAREST_EXACT)

    def words(self, size: Sequence[int]) -> str:
        """Say what is done for a network of a ``size`` (H, W)."""
        height, width = size
        rows, columns = self._whole(size)
        if self.crop_mode == CENTER:
            to = f"a shorter side of {rows}" if rows == columns else f"at least {rows} x {columns}"
            said = f"resized to {to} pixels ({self.interpolation})"
        else:
            how = f"{self.interpolation}; the aspect ratio is not kept"
            said = f"resized to {rows} x {columns} pixels ({how})"
            if (rows, columns) == (height, width):
                return said
        return f"{said}, of which the middle {height} x {width} are kept"

    def _whole(self, size: Sequence[int]) -> list[int]:
        """Return the sides of what ``size`` is cut out of; with ``"center"`` the least ones."""
        return [math.floor(side / self.crop_pct + _ROUNDING) for side in size]

    def _resized(
        self, pixels: Tensor, size: Sequence[int], interpolation: InterpolationMode
    ) -> Tensor:
        sides = self._sides(pixels.shape[1:], size)
        if interpolation == InterpolationMode.BICUBIC:
            # Columns first, and cut off at 0 and 1 before the rows, as Pillow does.
            first = [pixels.shape[1], sides[1]]
            pixels = v2.functional.resize(pixels, first, interpolation, antialias=True).clamp(0, 1)
        resized = v2.functional.resize(pixels, sides, interpolation, antialias=True)
        cropped: Tensor = v2.functional.center_crop(resized, list(size))
        return cropped

    def _sides(self, given: Sequence[int], size: Sequence[int]) -> list[int]:
        """Return what the sides of an image become before the middle is cut out."""
        whole = self._whole(size)
        if self.crop_mode == SQUASH:
            return whole
        if whole[0] == whole[1]:  # rounded as torchvision does, else as timm does
            return [int(whole[0] * side / min(given)) for side in given]
        ratio = min(old / new for old, new in zip(given, whole, strict=True))
        return [round(side / ratio) for side in given]


STRETCHED = Resizing()
"""The aspect ratio is not kept, and nothing is cut off."""
