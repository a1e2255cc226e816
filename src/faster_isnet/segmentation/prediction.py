"""Masks for images that have none, and a table of what they look like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from faster_isnet.common.checks import check_range
from faster_isnet.common.files import write_atomically
from faster_isnet.data.images import read_image
from faster_isnet.segmentation.segmenter import Segmenter
from faster_isnet.segmentation.shapes import Shape

TABLE = "masks.csv"
COLUMNS = ("image", "mask", "area", "components", "plausible", "reason")
_UNREADABLE = {"mask": "", "area": float("nan"), "components": 0, "plausible": False}


def predict_masks(
    segmenter: Segmenter,
    images: Sequence[Path],
    out: str | Path,
    components: int | None = None,
    *,
    root: str | Path | None = None,
    tolerance: float = 0.1,
    overwrite: bool = False,
    skip_unreadable: bool = False,
) -> pd.DataFrame:
    """Write a mask for each image, and a table that names the implausible ones.

    ``root/a/b.jpg`` gets the mask ``out/a/b.png``, of 8 bits, 255 inside and 0 outside, of the
    image's own size: a folder as :func:`~faster_isnet.data.add_mask_folder` reads it. The table
    is ``out/masks.csv``. If an image fails, the masks before it stay, and the table lists them.

    Parameters
    ----------
    segmenter
        See :func:`~faster_isnet.segmentation.load_segmenter`.
    images
        The images' files.
    out
        The folder for masks and table; made if need be.
    components
        How many connected components are kept, ≥ 1; by default as the segmenter was judged with.
    root
        The folder of the images, whose subfolders ``out`` repeats. By default the deepest that
        holds all of them.
    tolerance
        How far a mask may leave the ranges seen in training before it is called implausible:
        its area by this share of the range's end, its centre by this share of the image's side.
        The number of components must lie in its range.
    overwrite
        Replace masks that are there already, which may be drawn by hand.
    skip_unreadable
        Name unreadable images in the table and go on.

    Returns
    -------
    pandas.DataFrame
        A row for each image: ``image`` (its path), ``mask`` (its path from ``out``, empty if
        there is none), ``area`` (its share of the image), ``components``, ``plausible``, and the
        ``reason`` if it is not.

    Raises
    ------
    FileExistsError
        If a mask is there already and ``overwrite`` is off; nothing has been written then.
    ValueError
        If there are no images, two would get the same mask, one lies outside of ``root``, a mask
        would replace an image, or a number is out of range (nothing has been written then); if an
        image cannot be read and ``skip_unreadable`` is off.
    ImportError
        If one is DICOM and pydicom is not installed.
    """
    if components is not None:
        check_range("components", components, 1)
    check_range("tolerance", tolerance, 0)
    out = Path(out)
    names = _mask_names([Path(image) for image in images], None if root is None else Path(root))
    _check_targets(names, out, overwrite)
    rows: list[dict[str, object]] = []
    try:
        for path, name in names.items():
            try:
                image = read_image(path)
            except (OSError, ValueError) as error:
                if not skip_unreadable:
                    raise ValueError(
                        f"{str(path)!r} cannot be segmented: {error}; or go on without it: "
                        "--skip-unreadable"
                    ) from error
                rows.append({"image": str(path), **_UNREADABLE, "reason": str(error)})
                continue
            mask = segmenter.mask(image, components)
            write_atomically(out / name, _png(mask))
            shape = Shape.of(mask)
            reason = segmenter.seen.objection(shape, tolerance)
            rows.append(
                {
                    "image": str(path),
                    "mask": name.as_posix(),
                    "area": shape.area,
                    "components": shape.components,
                    "plausible": not reason,
                    "reason": reason,
                }
            )
    finally:  # what is written has its row, whatever happens later
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        if rows:
            write_atomically(out / TABLE, table.to_csv(index=False).encode())
    return table


def _mask_names(images: Sequence[Path], root: Path | None) -> dict[Path, Path]:
    """Return where the mask of each image goes, from the folder of masks."""
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


def _check_targets(names: dict[Path, Path], out: Path, overwrite: bool) -> None:
    images = {image.resolve(): image for image in names}
    for name in names.values():
        if (image := images.get((out / name).resolve())) is not None:
            raise ValueError(
                f"the masks would replace images, such as {str(image)!r}; write them to another "
                "folder than the images'"
            )
    there = [out / name for name in names.values() if (out / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{len(there)} masks are there already, such as {str(there[0])!r}; write to another "
            "folder, leave their images out, or replace them: --overwrite"
        )


def _png(mask: Tensor) -> bytes:
    buffer = BytesIO()
    Image.fromarray((mask[0].numpy() * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
