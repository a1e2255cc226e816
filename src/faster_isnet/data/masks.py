"""Create binary masks, 1 in the foreground, from files, boxes or COCO segmentations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from faster_isnet.data.coco_segments import segment_mask
from faster_isnet.data.dicom import Pixels
from faster_isnet.data.images import read_stored_pixels

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels, from the image's top left corner."""
BESIDE_MASKS = MASK_TABLE, REVIEW_PAGE = "masks.csv", "review.html"
"""What ``faster-isnet segment`` writes into a folder of masks."""
_MOST_LISTED = 8


@dataclass(frozen=True)
class Foreground:
    """Choose which pixel values of a mask are foreground.

    Parameters
    ----------
    values
        These values are foreground, all others background. ``None`` for the default: 0 is
        background, and the one other value foreground.
    threshold
        Values above it are foreground; of colours, the largest channel counts.

    Raises
    ------
    ValueError
        If both are given, or ``values`` are empty.

    Examples
    --------
    >>> labels = np.array([[0, 1, 2, 3]], dtype=np.uint8)
    >>> Foreground(values=(1, 3)).mask(labels, "labels.png")
    tensor([[[0., 1., 0., 1.]]])
    """

    values: tuple[float, ...] | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Check that at most one is given."""
        if self.values is not None and self.threshold is not None:
            raise ValueError(
                f"mask_foreground is {list(self.values)} and mask_threshold {self.threshold:g}; "
                "give one of them"
            )
        if self.values is not None and not self.values:
            raise ValueError("mask_foreground is empty; name a value of the foreground, such as 1")

    @classmethod
    def of(
        cls, mask_foreground: Sequence[float] | None, mask_threshold: float | None
    ) -> Foreground:
        """Create it from options as users write them."""
        values = None if mask_foreground is None else tuple(mask_foreground)
        return cls(values, mask_threshold)

    def mask(self, pixels: Pixels, where: str) -> Tensor:
        """Convert pixels ``[H, W]`` or ``[H, W, C]`` to a mask.

        Parameters
        ----------
        pixels
            Values as the file has them.
        where
            Name of the mask for error messages.

        Returns
        -------
        Tensor
            ``[1, H, W]`` float32 in {0, 1}.

        Raises
        ------
        ValueError
            If a value is no real number, negative or not finite; ``values`` are given for a mask in
            colour; or neither is given and there are several values, or colours, besides 0.
        """
        if pixels.dtype.kind not in "buif":
            raise ValueError(f"{where!r} holds {pixels.dtype}; write it as 8 bit integers")
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError(f"{where!r} holds NaN or infinite values; write 0 in the background")
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
        if self.threshold is not None:
            grey = pixels.max(2) if pixels.ndim == 3 else pixels
            foreground = grey > self.threshold
        elif self.values is not None:
            foreground = self._listed(pixels, where, self.values)
        else:
            foreground = _other_than_zero(pixels, where)
        return torch.from_numpy(foreground.astype(np.float32))[None]

    @staticmethod
    def _listed(pixels: Pixels, where: str, values: tuple[float, ...]) -> Pixels:
        if pixels.ndim == 3:
            raise ValueError(
                f"{where!r} is in colour, but mask_foreground {list(values)} names "
                "values of one channel; save it in grey or with a palette"
            )
        return np.isin(pixels, values)


def _other_than_zero(pixels: Pixels, where: str) -> Pixels:
    """Return what is not 0, if that is one value or colour."""
    if pixels.ndim == 3:
        colours = np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)
        foreground: Pixels = np.asarray(pixels.any(2))
        found = [tuple(colour.tolist()) for colour in colours]
        several = sum(map(any, found)) > 1
        cure = (
            "name the indices of the foreground, if it has a palette (mask_foreground: [1, 3]), or "
            "the number that the largest channel is above (mask_threshold: 127)"
        )
    else:
        values = np.unique(pixels)
        foreground = np.asarray(pixels != 0)
        found = values.tolist()
        several = bool(np.count_nonzero(values) > 1 or (values < 0).any())
        cure = (
            f"name those of the foreground (mask_foreground: [{found[-1]}]), or a number that they "
            f"are above (mask_threshold: {found[-1] / 2:g})"
        )
    if several:
        shown = ", ".join(map(str, found[:_MOST_LISTED]))
        more = f", … {found[-1]} ({len(found)} in all)" if len(found) > _MOST_LISTED else ""
        raise ValueError(
            f"{where!r} holds the values {shown}{more}, where a mask has 0 and one other; {cure}"
        )
    return foreground


EITHER_OF_TWO = Foreground()
"""0 is background and the one other value foreground."""


def read_mask(path: str | Path, foreground: Foreground = EITHER_OF_TWO) -> Tensor:
    """Read a mask from an image file.

    By default 0 is background and the one other value, whatever it is, foreground; in files in
    colour (with a palette, too) black is background and the one other colour foreground.

    Parameters
    ----------
    path
        A file in a format that :func:`~faster_isnet.data.images.read_image` supports. DICOM's
        values are taken as they are stored, without window or rescaling.
    foreground
        Which values are foreground, for label maps and masks with intermediate values (JPEG, or
        resized with interpolation). Of a file with a palette, ``values`` are the palette's indices.

    Returns
    -------
    Tensor
        ``[1, H, W]`` float32 in {0, 1}.

    Raises
    ------
    FileNotFoundError, ImportError
        As :func:`~faster_isnet.data.images.read_image` does.
    ValueError
        If the file cannot be read, or has other values, see :meth:`Foreground.mask`; the message
        lists them.
    """
    pixels = read_stored_pixels(path, palette_indices=foreground.values is not None)
    return foreground.mask(pixels, str(path))


@dataclass(frozen=True)
class MaskFile:
    """Describe a mask by its file and its values of the foreground.

    Attributes
    ----------
    path
        The file.
    foreground
        See :func:`read_mask`.
    """

    path: Path
    foreground: Foreground

    def __str__(self) -> str:
        """Return the path."""
        return str(self.path)

    def read_mask(self, size: tuple[int, int]) -> Tensor:
        """Read the mask, see :func:`read_mask`; ``size`` is ignored."""
        return read_mask(self.path, self.foreground)


@dataclass(frozen=True)
class Boxes:
    """Describe a mask by bounding boxes; the pixels inside of any are foreground.

    Attributes
    ----------
    boxes
        Left, top, width and height of each, in pixels from the image's top left corner.
    """

    boxes: tuple[Box, ...]

    def read_mask(self, size: tuple[int, int]) -> Tensor:
        """Create the mask ``[1, H, W]`` of an image of ``size`` (H, W).

        A pixel is inside if its centre is; boxes are cropped to the image.

        Raises
        ------
        ValueError
            If a box has no pixel in the image.
        """
        mask = torch.zeros(1, *size)
        for left, top, width, height in self.boxes:
            rows, columns = _centres_within(top, height), _centres_within(left, width)
            if not mask[0, rows, columns].numel():
                raise ValueError(
                    f"the box x {left:g}, y {top:g}, width {width:g}, height {height:g} has no "
                    f"pixel in an image of {size[1]} x {size[0]} (width x height); boxes are in "
                    "pixels from the top left corner"
                )
            mask[0, rows, columns] = 1
        return mask


def _centres_within(start: float, length: float) -> slice:
    first, end = (max(0, math.ceil(edge - 0.5)) for edge in (start, start + length))
    return slice(first, end)


@dataclass(frozen=True)
class Segments:
    """Describe a mask by segmentations in COCO's format; the union is foreground.

    Attributes
    ----------
    segments
        The ``"segmentation"`` of each: polygons (lists of x, y, x, y, …), or run lengths as
        ``{"size": …, "counts": …}``, compressed or not.
    size
        (H, W) of the annotated image.
    """

    segments: tuple[Sequence[Sequence[float]] | Mapping[str, Any], ...]
    size: tuple[int, int]

    def __str__(self) -> str:
        """Return a short name, without the coordinates."""
        return f"{len(self.segments)} COCO segments"

    def read_mask(self, size: tuple[int, int]) -> Tensor:
        """Create the mask ``[1, H, W]`` at the size of the annotated image, whatever ``size``.

        Raises
        ------
        ValueError
            If a segment is not as COCO writes them, or of another size.
        """
        mask = np.zeros(self.size, dtype=bool)
        for segment in self.segments:
            mask |= segment_mask(segment, self.size)
        return torch.from_numpy(mask.astype(np.float32))[None]


def grow(mask: Tensor, margin: float) -> Tensor:
    """Dilate a mask by a Euclidean distance.

    Parameters
    ----------
    mask
        ``[1, H, W]`` in {0, 1}.
    margin
        The distance in pixels, between centres of pixels, ≥ 0.

    Returns
    -------
    Tensor
        ``[1, H, W]`` in {0, 1}; a mask without foreground is unchanged.

    Examples
    --------
    >>> grow(torch.tensor([[[0.0, 0.0, 0.0, 1.0]]]), 2)
    tensor([[[0., 1., 1., 1.]]])
    """
    if margin == 0 or not bool((mask == 1).any()):
        return mask
    distance = distance_transform_edt((mask != 1).numpy())
    return torch.from_numpy(distance <= margin).to(mask)


def shrink(mask: Tensor, margin: float) -> Tensor:
    """Erode a mask by a Euclidean distance; what lies outside of the image is no background.

    Parameters
    ----------
    mask
        ``[1, H, W]`` in {0, 1}.
    margin
        The distance in pixels, between centres of pixels, ≥ 0.

    Returns
    -------
    Tensor
        ``[1, H, W]`` in {0, 1}. If nothing of the foreground would be left, its pixels that are
        farthest from the background are. A mask without foreground or background is unchanged.

    Examples
    --------
    >>> mask = torch.tensor([[[0.0, 1.0, 1.0, 1.0, 0.0]]])
    >>> shrink(mask, 1), shrink(mask, 9)
    (tensor([[[0., 0., 1., 0., 0.]]]), tensor([[[0., 0., 1., 0., 0.]]]))
    """
    foreground = (mask == 1).numpy()
    if margin == 0 or not foreground.any() or foreground.all():
        return mask
    distance = distance_transform_edt(foreground)
    most = distance.max()
    kept = distance > margin if most > margin else distance == most
    return torch.from_numpy(kept).to(mask)


def with_margin(mask: Tensor, margin: float) -> Tensor:
    """Dilate a mask by a distance in pixels, or erode it by one that is negative.

    Examples
    --------
    >>> mask = torch.tensor([[[0.0, 1.0, 1.0, 1.0, 0.0]]])
    >>> with_margin(mask, 1), with_margin(mask, -1)
    (tensor([[[1., 1., 1., 1., 1.]]]), tensor([[[0., 0., 1., 0., 0.]]]))
    """
    return grow(mask, margin) if margin >= 0 else shrink(mask, -margin)
