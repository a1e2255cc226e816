"""Predict masks of images, and write them with a table of their shapes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from faster_isnet.common.checks import check_range
from faster_isnet.common.files import write_atomically
from faster_isnet.common.spreadsheets import safe_csv
from faster_isnet.data.images import read_image
from faster_isnet.data.masks import MASK_TABLE
from faster_isnet.segmentation.hints import Hint
from faster_isnet.segmentation.segmenter import HintedSegmenter, Segmenter
from faster_isnet.segmentation.shapes import Shape, ShapeRanges, stability

TOLERANCE = 0.1
STABLE = 0.8
NO_HINT = "no box, mask or point says where the object is"
NOTHING = "nothing was found where the object is said to be"
COLUMNS = ("image", "mask", "area", "components", "stability", "plausible", "reason")
_NO_MASK = {
    "mask": "",
    "area": float("nan"),
    "components": 0,
    "stability": float("nan"),
    "plausible": False,
}


def predict_masks(
    segmenter: Segmenter | HintedSegmenter,
    images: Sequence[Path],
    out: str | Path,
    components: int | None = None,
    *,
    hints: Mapping[Path, Hint] | None = None,
    root: str | Path | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    skip_unreadable: bool = False,
) -> pd.DataFrame:
    """Predict and write a mask for each image, and a table that marks implausible masks.

    ``root/a/b.jpg`` gets the mask ``out/a/b.png``, of 8 bits, 255 inside and 0 outside, in
    the image's size; :func:`~faster_isnet.data.add_mask_folder` reads such folders. The table is
    ``out/masks.csv``. If an image fails, earlier masks are kept, and the table lists them.

    Parameters
    ----------
    segmenter
        See :func:`~faster_isnet.segmentation.load_segmenter`,
        :func:`~faster_isnet.segmentation.pretrained_segmenter` and
        :func:`~faster_isnet.segmentation.hinted_segmenter`.
    images
        The images' files.
    out
        The folder for masks and table; created if missing.
    components
        Number of connected components to keep, ≥ 1; by default as in the segmenter's settings.
    hints
        Where the objects of the images are, for a segmenter that needs it
        (:func:`~faster_isnet.segmentation.read_hints`). Images without one, and those in which
        nothing is found, get no mask, and the table says why.
    root
        The folder of the images, whose subfolders are repeated in ``out``. By default the deepest
        that contains all images.
    tolerance
        How far a plausible mask may exceed the ranges that are expected (those of the training
        masks, if the segmenter was trained here), ≥ 0: its area by this share of the range's end,
        its centre by this share of the image's side. The number of components must be in its range.
    overwrite
        Replace existing masks, which may be drawn by hand.
    skip_unreadable
        Mark unreadable images in the table and continue.

    Returns
    -------
    pandas.DataFrame
        A row for each image: ``image`` (its path), ``mask`` (its path from ``out``, empty if
        there is none), ``area`` (its share of the image), ``components``, ``stability`` (how
        little the mask depends on the threshold of its probabilities: intersection over union of
        those at 0.3 and 0.7), ``plausible``, and the ``reason`` if it is not. Masks below a
        stability of 0.8 are implausible, too.

    Raises
    ------
    FileExistsError
        If a mask exists already and ``overwrite`` is off; nothing is written then.
    ValueError
        If there are no images, two would get the same mask, one is outside of ``root``, a mask
        would replace an image, a number is out of range, or hints are not what the segmenter needs
        (nothing is written then); if a hint is not within its image; if an
        image cannot be read and ``skip_unreadable`` is off.
    ImportError
        If one is DICOM and pydicom is not installed.
    """
    if components is not None:
        check_range("components", components, 1)
    check_range("tolerance", tolerance, 0)
    out = Path(out)
    images = [Path(image) for image in images]
    names = _mask_names(images, None if root is None else Path(root))
    chosen = _by_image(segmenter, images, hints)
    _check_output_paths({image: names[image] for image in chosen}, out, overwrite)
    rows: list[dict[str, object]] = []
    try:
        for path, name in tqdm(names.items(), unit="image", disable=None):
            if path not in chosen:
                rows.append({"image": str(path), **_NO_MASK, "reason": NO_HINT})
                continue
            try:
                image = read_image(path)
            except (OSError, ValueError) as error:
                if not skip_unreadable:
                    raise ValueError(
                        f"{str(path)!r} cannot be segmented: {error}; or go on without it: "
                        "--skip-unreadable"
                    ) from error
                rows.append({"image": str(path), **_NO_MASK, "reason": str(error)})
                continue
            found = chosen[path].probabilities(image)
            mask = chosen[path].mask_of(found, components)
            if hints is not None and not mask.any():
                (out / name).unlink(missing_ok=True)  # overwrite is on
                rows.append({"image": str(path), **_NO_MASK, "reason": NOTHING})
                continue
            write_atomically(out / name, png(mask))
            rows.append(mask_row(str(path), name, mask, found, chosen[path].expected, tolerance))
    finally:  # list the masks that were written, also after an error
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        if rows:
            write_atomically(out / MASK_TABLE, safe_csv(table))
    return table


def _by_image(
    segmenter: Segmenter | HintedSegmenter,
    images: Sequence[Path],
    hints: Mapping[Path, Hint] | None,
) -> dict[Path, Segmenter]:
    """Return what segments each image, of those that have a hint if one is needed."""
    if isinstance(segmenter, Segmenter):
        if hints is not None:
            raise ValueError(
                "this segmenter finds objects by itself, and reads no hints; leave them out"
            )
        return dict.fromkeys(images, segmenter)
    if hints is None or not any(image in hints for image in images):
        raise ValueError(
            f"of none of the {len(images)} images it is said where the object is; name boxes, "
            "masks or points of them"
        )
    return {image: segmenter.at(hints[image]) for image in images if image in hints}


def mask_row(
    image: str,
    name: Path,
    mask: Tensor,
    probabilities: Tensor,
    expected: ShapeRanges,
    tolerance: float = TOLERANCE,
) -> dict[str, object]:
    """Return the row of a mask in the table, see :func:`predict_masks`."""
    shape = Shape.of(mask)
    steady = stability(probabilities)
    reasons = [expected.why_implausible(shape, tolerance)]
    if shape.components and steady < STABLE:
        reasons.append(f"unsure: stability {steady:.2f}, expected at least {STABLE}")
    reason = "; ".join(filter(None, reasons))
    return {
        "image": image,
        "mask": name.as_posix(),
        "area": shape.area,
        "components": shape.components,
        "stability": steady,
        "plausible": not reason,
        "reason": reason,
    }


def _mask_names(images: Sequence[Path], root: Path | None) -> dict[Path, Path]:
    """Return the path of each image's mask, relative to the folder of masks."""
    if not images:
        raise ValueError("there are no images to segment; name at least one")
    absolute = [Path(os.path.abspath(image)) for image in images]  # noqa: PTH100 (links stay)
    if root is None:
        folder = Path(os.path.commonpath([image.parent for image in absolute]))
    else:
        folder = Path(os.path.abspath(root))  # noqa: PTH100
    names: dict[Path, Path] = {}
    by_name: dict[Path, Path] = {}
    for image, full in zip(images, absolute, strict=True):
        if not full.is_relative_to(folder):
            raise ValueError(
                f"{str(image)!r} is not in {str(root)!r}; give a root that holds all images"
            )
        name = full.relative_to(folder).with_suffix(".png")
        if name in by_name:
            raise ValueError(
                f"{str(by_name[name])!r} and {str(image)!r} would get the same mask, "
                f"{name.as_posix()!r}; name each once, or rename one"
            )
        names[image] = by_name[name] = name
        by_name[name] = image
    return names


def _check_output_paths(names: dict[Path, Path], out: Path, overwrite: bool) -> None:
    images = {image.resolve(): image for image in names}
    for name in names.values():
        if (image := images.get((out / name).resolve())) is not None:
            raise ValueError(
                f"the masks would replace images, such as {str(image)!r}; write them to another "
                "folder than the images'"
            )
    existing = [out / name for name in names.values() if (out / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{len(existing)} masks exist already, such as {str(existing[0])!r}; write to another "
            "folder, leave their images out, or replace them: --overwrite"
        )


def png(mask: Tensor) -> bytes:
    """Return a mask ``[1, H, W]`` in {0, 1} as a PNG file of 0 and 255."""
    buffer = BytesIO()
    Image.fromarray((mask[0].numpy() * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
