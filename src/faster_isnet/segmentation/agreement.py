"""Compare masks of the same images: by hand and by a segmenter, or by two people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt

from faster_isnet.data.folders import list_images
from faster_isnet.data.masks import BESIDE_MASKS, EITHER_OF_TWO, Foreground, read_mask

_MOST_OF = 95  # percentile of distances; the farthest pixel alone may be a speck


def compare_masks(
    masks: str | Path, others: str | Path, foreground: Foreground = EITHER_OF_TWO
) -> pd.DataFrame:
    """Measure how far two folders of masks agree, for each image that has a mask in both.

    Parameters
    ----------
    masks, others
        The folders. ``masks/a/b.png`` and ``others/a/b.tif`` belong together.
    foreground
        Which values are foreground, see :func:`~faster_isnet.data.read_mask`.

    Returns
    -------
    pandas.DataFrame
        A row for each image, the least agreeing first: ``mask`` and ``other`` (paths), ``dice``
        and ``iou`` (in [0, 1]; 1 if both are empty), ``hausdorff`` and ``hausdorff_95`` (the
        largest distance in pixels from one's outline to the other's, and that of 95 % of the
        outlines' pixels, the larger of both directions; 0 if both are empty, NaN if one is),
        ``area`` and ``other_area`` (shares of the image).

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    ValueError
        If no image has a mask in both, two files of one folder have one name, a file cannot be
        read, or two masks differ in size.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> with TemporaryDirectory() as folder:
    ...     for name, box in (("drawn", (0, 0, 4, 4)), ("masks", (0, 0, 4, 2))):
    ...         path = Path(folder, name)
    ...         path.mkdir()
    ...         mask = Image.new("L", (8, 8))
    ...         mask.paste(255, box)
    ...         mask.save(path / "cat.png")
    ...     compare_masks(f"{folder}/drawn", f"{folder}/masks")[["iou", "hausdorff"]]
       iou  hausdorff
    0  0.5        2.0
    """
    one, other = _by_name(Path(masks)), _by_name(Path(others))
    pairs = [(one[name], other[name]) for name in one if name in other]
    if not pairs:
        raise ValueError(
            f"no mask in {str(masks)!r} has one of its name in {str(others)!r}; name two folders "
            "of masks of the same images"
        )
    rows = [
        {"mask": str(path), "other": str(other_path), **_agreement(path, other_path, foreground)}
        for path, other_path in pairs
    ]
    return pd.DataFrame(rows).sort_values("iou", kind="stable", ignore_index=True)


def _by_name(folder: Path) -> dict[Path, Path]:
    """Return the files of masks by their paths from the folder, without the suffix."""
    found: dict[Path, Path] = {}
    for path in list_images(folder, beside=BESIDE_MASKS):
        name = path.relative_to(folder).with_suffix("")
        if name in found:
            raise ValueError(
                f"{str(found[name])!r} and {str(path)!r} would be masks of one image; remove one"
            )
        found[name] = path
    return found


def _agreement(path: Path, other_path: Path, foreground: Foreground) -> dict[str, float]:
    one, other = (read_mask(each, foreground)[0].numpy() == 1 for each in (path, other_path))
    if one.shape != other.shape:
        raise ValueError(
            f"{str(path)!r} has {one.shape[0]} rows of {one.shape[1]} pixels, but "
            f"{str(other_path)!r} {other.shape[0]} of {other.shape[1]}; they are not of one image"
        )
    union, both = int((one | other).sum()), int((one & other).sum())
    distances = _distances(one, other)
    return {
        "dice": 2 * both / (union + both) if union else 1.0,
        "iou": both / union if union else 1.0,
        "hausdorff": max(float(each.max()) for each in distances),
        f"hausdorff_{_MOST_OF}": max(float(np.percentile(each, _MOST_OF)) for each in distances),
        "area": float(one.mean()),
        "other_area": float(other.mean()),
    }


def _distances(
    one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]
) -> list[npt.NDArray[np.float64]]:
    """Return distances from each pixel of one outline to the nearest of the other, both ways."""
    if not (one.any() and other.any()):
        return [np.array([0.0 if one.any() == other.any() else np.nan])]
    outlines = [mask & ~binary_erosion(mask) for mask in (one, other)]
    return [distance_transform_edt(~there)[here] for here, there in (outlines, reversed(outlines))]
