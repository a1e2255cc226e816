"""Check segmentations in COCO's format before they reach C code, and convert them to masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from pycocotools import mask as coco

from faster_isnet.data.dicom import Pixels

_CURE = "see https://cocodataset.org/#format-data"
_MOST_PIXELS = 2**28
_SMALLEST_POLYGON = 6  # numbers: three corners
_FIRST_CHARACTER, _BITS, _MOST_BITS = 48, 5, 30  # of compressed run lengths


def check_size(size: tuple[Any, Any]) -> tuple[int, int]:
    """Return H and W as integers; raise ``ValueError`` if they are not those of an image."""
    are_whole = all(_is_number(side) and side % 1 == 0 for side in size)
    if not are_whole or min(size) < 1 or size[0] * size[1] > _MOST_PIXELS:
        raise ValueError(
            f"height and width are {size[0]!r} and {size[1]!r}; they must be whole numbers above "
            f"0, with at most {_MOST_PIXELS} pixels"
        )
    return int(size[0]), int(size[1])


def polygon_of_box(box: Any) -> list[list[float]]:
    """Return a box (left, top, width, height) as a polygon.

    Raises
    ------
    ValueError
        If it is not four numbers, the latter two above 0.
    """
    numbers = isinstance(box, Sequence) and all(map(_is_number, box))
    if not numbers or len(box) != 4 or not min(box[2:]) > 0:
        raise ValueError(
            f"its bbox is {str(box)[:80]}; give left, top, width and height in pixels, the latter "
            "two above 0"
        )
    left, top, width, height = box
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def check_segment(segment: Any, size: tuple[int, int]) -> None:
    """Check a segmentation of an image of ``size`` (H, W).

    Raises
    ------
    ValueError
        If it is neither polygons of three corners or more, in pixels and less than the image's
        size away from it, nor run lengths of as many pixels as the image has.
    """
    check_size(size)
    if isinstance(segment, Mapping):
        _run_lengths(segment, size)
    elif isinstance(segment, list | tuple) and segment:
        for polygon in segment:
            _check_polygon(polygon, size)
    else:
        raise _unlike(segment)


def segment_mask(segment: Any, size: tuple[int, int]) -> Pixels:
    """Return the mask of a segmentation, ``[H, W]`` boolean; checked by :func:`check_segment`."""
    check_segment(segment, size)
    if isinstance(segment, Mapping):
        counts = _run_lengths(segment, size)
        values = np.arange(len(counts)) % 2 == 1  # the background goes first
        return np.repeat(values, counts).reshape(size[::-1]).T  # column by column
    runs = coco.frPyObjects([list(map(float, polygon)) for polygon in segment], *size)
    return np.asarray(coco.decode(coco.merge(runs)), dtype=bool)


def _check_polygon(polygon: Any, size: tuple[int, int]) -> None:
    if not isinstance(polygon, list | tuple) or not all(map(_is_number, polygon)):
        raise _unlike(polygon)
    if len(polygon) % 2 or len(polygon) < _SMALLEST_POLYGON:
        raise ValueError(
            f"not a polygon or run lengths as COCO writes them: {len(polygon)} numbers, where a "
            f"polygon has x and y of three corners at least; {_CURE}"
        )
    height, width = size
    for side, values in ((width, polygon[::2]), (height, polygon[1::2])):
        outside = [value for value in values if not -side <= value <= 2 * side]
        if outside:
            raise ValueError(
                f"a corner at {str(outside[0])[:20]} is far outside of an image of {width} x "
                f"{height} (width x height); coordinates are in pixels from the top left corner"
            )
    if max(size) > 1 and max(polygon) <= 1:
        raise ValueError(
            f"all corners are within [0, 1] of an image of {width} x {height} (width x height); "
            "multiply relative coordinates by its size"
        )


def _run_lengths(segment: Mapping[str, Any], size: tuple[int, int]) -> list[int]:
    counts, of_size = segment.get("counts"), segment.get("size")
    if isinstance(counts, str | bytes):
        counts = _decompressed(counts)
    is_list = isinstance(counts, list | tuple)
    if not is_list or not all(type(n) is int and n >= 0 for n in counts or ()):
        raise _unlike(segment)
    if not isinstance(of_size, list | tuple) or tuple(of_size) != tuple(size):
        raise ValueError(
            f"its run lengths are of the size {str(of_size)[:40]}, but the image has {list(size)} "
            "(height, width); write them anew"
        )
    counts = list(counts or ())
    if sum(counts) != size[0] * size[1]:
        raise ValueError(
            f"its run lengths are of {sum(counts)} pixels, but the image has {size[0] * size[1]}; "
            "write them anew"
        )
    return counts


def _decompressed(text: str | bytes) -> list[int]:
    """Decompress run lengths, as ``rleFrString`` of COCO's maskApi.c does."""
    codes = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    number = shift = 0
    for code in codes:
        bits = code - _FIRST_CHARACTER
        if not 0 <= bits < 2 ** (_BITS + 1) or shift > _MOST_BITS:
            raise _unlike(text)
        number |= (bits & 0x1F) << shift
        shift += _BITS
        if bits & 0x20:  # more to come
            continue
        if bits & 0x10:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise _unlike(text)
    return counts


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _unlike(segment: object) -> ValueError:
    return ValueError(
        f"not a polygon or run lengths as COCO writes them: {str(segment)[:80]}; {_CURE}"
    )
