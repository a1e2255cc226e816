"""Draw the masks that some images of a data set lack, with a segmenter of the masks of others."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor

from faster_isnet.common.files import write_atomically
from faster_isnet.common.spreadsheets import original_cell, safe_csv
from faster_isnet.data.duplicates import pixel_hash
from faster_isnet.data.masks import MASK_TABLE
from faster_isnet.data.samples import Sample, relative_name
from faster_isnet.segmentation.fitting import fit_segmenter_to_samples
from faster_isnet.segmentation.prediction import COLUMNS, mask_row, png
from faster_isnet.segmentation.settings import SegmenterSettings
from faster_isnet.segmentation.shapes import main_components
from faster_isnet.segmentation.trained_segmenter import DESCRIPTION, load_segmenter

log = logging.getLogger(__name__)

SEGMENTER, CONTENT = "segmenter", "content.txt"
_TYPES = {"image": str, "mask": str, "reason": str}


class Images(Protocol):
    """A data set of ``(image, label, mask, …)``, with a sample for each item."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples, whose names differ."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Return image ``[C, H, W]`` in [0, 1], label, mask ``[1, H, W]``, and what else it has."""


@dataclass(frozen=True)
class DrawnMasks:
    """Hold masks that a segmenter has drawn.

    Attributes
    ----------
    files
        Those with foreground, by the name of the image relative to the data's folder.
    empty
        Names of images in which no foreground was found.
    implausible
        Why a mask is unlike all that the segmenter was trained on, by the name of the image.
    dice
        Of the segmenter, the mean over the held-out images.
    held_out
        How many images those are.
    content
        What they were drawn for: :func:`content_hash` of the images.
    """

    files: Mapping[str, Path]
    empty: Sequence[str]
    implausible: Mapping[str, str]
    dice: float
    held_out: int
    content: str


def draw_missing_masks(
    datasets: Iterable[Images],
    unmasked: Collection[str],
    folder: Path | None,
    out: Path,
    settings: SegmenterSettings,
) -> None:
    """Train a segmenter on the images that have masks, and draw those of the others.

    Writes the segmenter into ``out/segmenter``, the masks as PNG files of the size of the images,
    the hash of what they are drawn for into ``out/content.txt``, and last the table
    ``out/masks.csv``, as :func:`~faster_isnet.segmentation.predict_masks` does;
    :func:`read_drawn_masks` reads them. What was drawn there before is removed first.

    Parameters
    ----------
    datasets
        All images, without augmentation.
    unmasked
        Names of the samples that have no mask.
    folder
        What names of images are relative to in the table; ``None`` for whole names.
    out
        The folder to write to.
    settings
        Of the segmenter. Its masks have as many components as those it is trained on, at most;
        ``settings.components`` is not used.

    Raises
    ------
    ValueError, FloatingPointError, ImportError
        As :func:`~faster_isnet.segmentation.fit_segmenter` does.
    """
    datasets = list(datasets)
    remove_drawn_masks(out)
    places = {s.name: (each, i) for each in datasets for i, s in enumerate(each.samples)}
    samples = [dataset.samples[index] for dataset, index in places.values()]

    def read(sample: Sample) -> tuple[Tensor, Tensor]:
        dataset, index = places[sample.name]
        image, _, mask = dataset[index][:3]
        return image, (mask == 1).to(image)

    masked = [sample for sample in samples if sample.name not in unmasked]
    components = max((main_components(read(sample)[1]) for sample in masked), default=0)
    settings = replace(settings, components=max(1, components))
    fit_segmenter_to_samples(masked, read, out / SEGMENTER, settings)
    segmenter = load_segmenter(out / SEGMENTER)
    segmenter.network.to("cuda" if torch.cuda.is_available() else "cpu")
    to_draw = [sample for sample in samples if sample.name in unmasked]
    log.info("Drawing %d masks", len(to_draw))
    names = [relative_name(sample, folder) for sample in to_draw]
    rows = []
    for sample, name, path in zip(to_draw, names, _mask_paths(names), strict=True):
        height, width = sample.read_image().shape[1:]
        found = segmenter.probabilities(read(sample)[0], (height, width))
        mask = segmenter.mask_of(found)
        write_atomically(out / path, png(mask))
        rows.append(mask_row(name, path, mask, found, segmenter.expected))
    write_atomically(out / CONTENT, content_hash(datasets, folder).encode())
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    write_atomically(out / MASK_TABLE, safe_csv(table))  # last: it says that all are there


def read_drawn_masks(out: Path) -> DrawnMasks:
    """Read what :func:`draw_missing_masks` wrote into a folder.

    Raises
    ------
    FileNotFoundError
        If it has no table, since not all masks have been drawn, or no segmenter.
    """
    segmenter = json.loads((out / SEGMENTER / DESCRIPTION).read_text(encoding="utf-8"))
    rows = [
        (original_cell(row.image), original_cell(row.mask), row)
        for row in _read_table(out).itertuples()
    ]
    return DrawnMasks(
        {image: out / mask for image, mask, row in rows if row.components},
        [image for image, _, row in rows if not row.components],
        {image: row.reason for image, _, row in rows if row.components and not row.plausible},
        float(segmenter["dice"]),
        len(segmenter["held_out"]),
        (out / CONTENT).read_text(encoding="utf-8"),
    )


def content_hash(datasets: Iterable[Images], folder: Path | None) -> str:
    """Compute a hash of the names, images and masks of data sets, whatever their order.

    Parameters
    ----------
    datasets
        All images, without augmentation.
    folder
        What names are relative to; ``None`` for whole names.
    """
    hashes = {}
    for dataset in datasets:
        for index, sample in enumerate(dataset.samples):
            image, _, mask = dataset[index][:3]
            hashes[relative_name(sample, folder)] = [pixel_hash(image), pixel_hash(mask)]
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def remove_drawn_masks(out: Path) -> None:
    """Remove what :func:`draw_missing_masks` wrote into a folder, and nothing else."""
    if (out / MASK_TABLE).is_file():
        for mask in _read_table(out)["mask"]:
            (out / original_cell(mask)).unlink(missing_ok=True)
        (out / MASK_TABLE).unlink()
        (out / CONTENT).unlink(missing_ok=True)
        shutil.rmtree(out / SEGMENTER, ignore_errors=True)


def _read_table(out: Path) -> pd.DataFrame:
    text = (out / MASK_TABLE).read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text), dtype=_TYPES, keep_default_na=False)


def _mask_paths(names: Sequence[str]) -> list[Path]:
    """Return a different path for the mask of each image: the image's, if it can be."""
    paths: dict[PurePosixPath, None] = {}
    for number, name in enumerate(names):
        path = PurePosixPath(name).with_suffix(".png")
        outside = path.is_absolute() or ".." in path.parts
        paths[PurePosixPath(f"{number:06d}.png") if outside or path in paths else path] = None
    return [Path(path) for path in paths]
