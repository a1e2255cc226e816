"""Create binary masks, 1 in the foreground, from files, boxes or COCO segmentations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from faster_isnet.data.images import Pixels, read_pixels

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels, from the image's top left corner."""


def read_mask(path: str | Path) -> Tensor:
    """Read a mask from an image file.

    Foreground are values above half of the range of the file's type (above 127 for 8 bits), or
    above 0 if the file has only zeros and ones. In colour files, one channel suffices.

    Parameters
    ----------
    path
        A file in a format that :func:`~faster_isnet.data.images.read_image` supports.

    Returns
    -------
    Tensor
        ``[1, H, W]`` float32 in {0, 1}.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As :func:`~faster_isnet.data.images.read_image` does.
    """
    return binary_tensor(read_pixels(path))


def binary_tensor(pixels: Pixels) -> Tensor:
    """Convert pixels ``[H, W]`` or ``[H, W, C]`` to a mask, by the rule of :func:`read_mask`."""
    grey = pixels.max(2) if pixels.ndim == 3 else pixels
    is_integer = grey.dtype.kind in "iu"
    if is_integer and grey.max() > 1:
        foreground = grey > np.iinfo(grey.dtype).max // 2
    else:
        foreground = grey > (0 if is_integer else 0.5)
    return torch.from_numpy(foreground.astype(np.float32))[None]


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
            If a segment cannot be read.
        """
        runs = [run for segment in self.segments for run in self._runs(segment)]
        mask = coco.decode(coco.merge(runs))
        return torch.from_numpy(mask.astype(np.float32))[None]

    def _runs(self, segment: Any) -> list[Any]:
        try:
            if isinstance(segment, Mapping) and not isinstance(segment["counts"], list):
                return [segment]
            runs = coco.frPyObjects(segment, *self.size)
        except Exception as error:  # of any type, from C code
            raise ValueError(
                f"not a polygon or run lengths as COCO writes them: {str(segment)[:80]} ({error}); "
                "see https://cocodataset.org/#format-data"
            ) from error
        return runs if isinstance(runs, list) else [runs]


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
