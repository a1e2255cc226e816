"""Read where objects are: tables of boxes, points or masks, and folders of masks."""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from faster_isnet.data import Foreground, Sample, add_mask_folder, from_table
from faster_isnet.data.masks import EITHER_OF_TWO
from faster_isnet.data.sample_tables import read_cells
from faster_isnet.data.sources import choose_foreground
from faster_isnet.segmentation.hints import Hint, ObjectBox, ObjectPoint

log = logging.getLogger(__name__)

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
POINT_COLUMNS = ("x", "y", "label")
_T = TypeVar("_T")


def read_hints(
    images: Sequence[Path],
    boxes: str | Path | None = None,
    points: str | Path | None = None,
    root: str | Path | None = None,
    foreground: Foreground = EITHER_OF_TWO,
) -> dict[Path, Hint]:
    """Read where the objects of images are.

    Parameters
    ----------
    images
        The images' files.
    boxes
        A table (CSV or Parquet) with the columns ``image``, ``x0``, ``y0``, ``x1``, ``y1``, in
        pixels from the top left corner of the image as it is shown, a row for each object; or a
        table with ``image`` and ``mask``; or a folder of masks named as the images are.
    points
        A table with ``image``, ``x``, ``y``, and ``label``, 1 in the foreground and 0 not.
    root
        The folder of the images, whose subfolders the folder of masks repeats. By default the
        deepest that contains all images.
    foreground
        Which values of masks are foreground.

    Returns
    -------
    dict
        Of those images that have a box, a mask or a point. Paths in tables start from the table's
        folder; rows of images that are not among ``images`` are passed over with a warning.

    Raises
    ------
    FileNotFoundError
        If a table, the folder or an image of a table is not there.
    ValueError
        If neither is given, a column is missing, or a cell is not what it must be; the message
        names the row. If ``foreground`` is said where there are no masks.
    """
    if boxes is None and points is None:
        raise ValueError(
            "where are the objects? Name a table of boxes or a folder of masks (--boxes), or a "
            "table of points (--points)"
        )
    by_file = {_absolute(image): image for image in images}
    samples: dict[Path, Sample] = {}
    found: dict[Path, list[ObjectBox]] = {}
    if boxes is not None and Path(boxes).is_dir():
        samples = _masks_of_folder(by_file, Path(boxes), root)
    elif boxes is not None and _has_masks(Path(boxes)):
        samples = _masks_of_table(by_file, Path(boxes))
    elif boxes is not None:
        found = _read_rows(Path(boxes), by_file, BOX_COLUMNS, _box)
    if foreground != EITHER_OF_TWO and (boxes is None or found):
        raise ValueError(
            "mask_foreground and mask_threshold are of masks, and --boxes names none; leave them "
            "out"
        )
    marked = {} if points is None else _read_rows(Path(points), by_file, POINT_COLUMNS, _point)
    chosen = dict(zip(samples, choose_foreground(samples.values(), foreground), strict=True))
    return {
        image: Hint(tuple(found.get(image, ())), tuple(marked.get(image, ())), chosen.get(image))
        for image in images
        if image in chosen or image in found or image in marked
    }


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (links stay)


def _masks_of_folder(
    by_file: Mapping[Path, Path], folder: Path, root: str | Path | None
) -> dict[Path, Sample]:
    if root is None:
        root = os.path.commonpath([file.parent for file in by_file])
    samples = add_mask_folder([Sample(file) for file in by_file], _absolute(root), folder)
    return {
        image: sample
        for image, sample in zip(by_file.values(), samples, strict=True)
        if sample.mask is not None
    }


def _has_masks(table: Path) -> bool:
    columns = read_cells(table).columns
    return "mask" in columns and not any(name in columns for name in BOX_COLUMNS)


def _masks_of_table(by_file: Mapping[Path, Path], table: Path) -> dict[Path, Sample]:
    samples, _ = from_table(table, label=None)
    images = [
        _image_of(sample.name, by_file, f"row {number} of {str(table)!r}")
        for number, sample in enumerate(samples, 1)
    ]
    _warn_of_others(images, table)
    return {
        image: sample
        for image, sample in zip(images, samples, strict=True)
        if image is not None and sample.mask is not None
    }


def _read_rows(
    path: Path,
    by_file: Mapping[Path, Path],
    columns: Sequence[str],
    read: Callable[[list[str], str], _T],
) -> dict[Path, list[_T]]:
    """Read each row's cells in some columns, by the image."""
    table = read_cells(path)
    for column in ("image", *columns):
        if column not in table:
            raise ValueError(
                f"{str(path)!r} has no column {column!r}, it has {', '.join(map(repr, table))}; "
                f"it needs image,{','.join(columns)}"
            )
    found: dict[Path | None, list[_T]] = defaultdict(list)
    images = []
    for number, cells in enumerate(table.to_dict("records"), 1):
        where = f"row {number} of {str(path)!r}"
        images.append(_image_of(path.parent / cells["image"], by_file, where))
        found[images[-1]].append(read([cells[column].strip() for column in columns], where))
    _warn_of_others(images, path)
    return {image: values for image, values in found.items() if image is not None}


def _image_of(path: str | Path, by_file: Mapping[Path, Path], where: str) -> Path | None:
    """Return which of the images a path is; ``None`` if it is another one that exists."""
    file = _absolute(path)
    if file not in by_file and not file.is_file():
        raise FileNotFoundError(
            f"{where} names the image {str(file)!r}, which does not exist; correct it (paths start "
            "from the table's folder), or delete the row"
        )
    return by_file.get(file)


def _warn_of_others(images: Sequence[Path | None], table: Path) -> None:
    if others := images.count(None):
        log.warning("%d rows of %s are of images that are not segmented now", others, table)


def _numbers(cells: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return [math.nan]


def _box(cells: list[str], where: str) -> ObjectBox:
    numbers = _numbers(cells)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"{where} has the box {cells}; give x0, y0, x1 and y1 in pixels, or delete the row"
        )
    x0, y0, x1, y1 = numbers
    if x1 <= x0 or y1 <= y0:
        raise ValueError(
            f"{where} has the box {cells}, whose right or bottom edge is not beyond its left or "
            "top one; give x0, y0, x1, y1 (not width and height)"
        )
    return ObjectBox(x0, y0, x1, y1, where)


def _point(cells: list[str], where: str) -> ObjectPoint:
    numbers = _numbers(cells)
    if not all(map(math.isfinite, numbers)) or numbers[2] not in (0, 1):
        raise ValueError(
            f"{where} has the point {cells}; give x and y in pixels, and the label 1 in the "
            "foreground or 0 in the background"
        )
    x, y, is_foreground = numbers
    return ObjectPoint(x, y, int(is_foreground), where)
