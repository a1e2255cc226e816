"""Read the images of ``faster-isnet audit``, and draw masks of those that have none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from jsonargparse import Namespace

from faster_isnet.common.files import write_atomically
from faster_isnet.common.spreadsheets import original_cell
from faster_isnet.data import (
    Findings,
    Foreground,
    Sample,
    add_mask_folder,
    check_samples,
    from_table,
    list_images,
)
from faster_isnet.data.masks import MASK_TABLE, REVIEW_PAGE
from faster_isnet.data.sources import choose_foreground
from faster_isnet.evaluation.audit import Counts, Masks
from faster_isnet.reporting import write_mask_review
from faster_isnet.segmentation import predict_masks, pretrained_segmenter

PICTURES = "pictures"
_MASKS = "masks"
_DRAWN_FROM = "drawn-from.json"


@dataclass(frozen=True)
class AuditedImages:
    """Hold the images of an audit.

    Attributes
    ----------
    findings
        What was found when they were read.
    judged
        Those that have a mask.
    masks
        Where masks are from.
    """

    findings: Findings
    judged: list[Sample]
    masks: Masks

    @property
    def counts(self) -> Counts:
        """Numbers of images."""
        usable = self.findings.samples
        unreadable = len(self.findings.unusable)
        return Counts(len(usable) + unreadable, len(usable) - len(self.judged), unreadable)


def audited_images(options: Namespace) -> AuditedImages:
    """Read which images there are, draw masks that are missing, and check all of them."""
    samples = _samples(options)
    if options.masks is not None:
        root = options.images if options.images.is_dir() else options.images.parent
        samples = add_mask_folder(samples, root, options.masks)
    samples = choose_foreground(
        samples, Foreground.of(options.mask_foreground, options.mask_threshold)
    )
    source, implausible = _mask_source(samples, options), None
    if options["with"] is not None:
        samples, implausible = _drawn(samples, options)
    elif options.masks is not None:
        implausible = _implausible(options.masks / MASK_TABLE)
    samples = [replace(sample, label=0, split="test") for sample in samples]
    findings = check_samples(samples, (), options.skip_unreadable, allow_duplicates=True)
    judged = findings.with_foreground(findings.samples)
    if len(judged) < 2:
        raise ValueError(
            f"{len(judged)} of {len(findings.samples)} images have a mask, but an audit needs two; "
            "name masks (--masks, or a column of the table), or have them drawn: --with salient"
        )
    return AuditedImages(findings, judged, Masks(source, implausible))


def _samples(options: Namespace) -> list[Sample]:
    """Return the images that are given; of a folder without masks and pictures that lie in it."""
    if options.images.is_file():
        samples, _ = from_table(options.images, label=None)
        return samples
    others = [options.out / _MASKS, options.out / PICTURES, options.masks]
    folders = [each.resolve() for each in others if each is not None]
    return [
        Sample(path)
        for path in list_images(options.images)
        if not any(
            path.resolve().is_relative_to(folder)
            for folder in folders
            if folder != options.images.resolve()
        )
    ]


def _mask_source(samples: Sequence[Sample], options: Namespace) -> str:
    given = ""
    if any(sample.mask is not None for sample in samples):
        given = "those of the table" if options.masks is None else f"the folder {options.masks}"
    if options["with"] is None:
        return given or "none"
    drawn = f"drawn by {options['with']!r}"
    return f"{given}, and where they lack one {drawn}" if given else drawn


def _drawn(samples: Sequence[Sample], options: Namespace) -> tuple[list[Sample], int]:
    """Draw masks of images that have none; those of an earlier audit are used again."""
    lacking = [sample.image for sample in samples if sample.mask is None]
    files = [image for image in lacking if isinstance(image, Path)]
    if not files:
        return list(samples), 0
    folder, table = options.out / _MASKS, _draw(files, options)
    if not (folder / REVIEW_PAGE).is_file():
        write_mask_review(table, folder)
    print(f"Look at the masks that were drawn: {(folder / REVIEW_PAGE).resolve()}")
    masks = {
        original_cell(str(image)): folder / original_cell(str(mask))
        for image, mask in zip(table["image"], table["mask"], strict=True)
        if mask
    }
    drawn = [replace(s, mask=s.mask or masks.get(s.name)) for s in samples]
    is_drawn = table["mask"] != ""
    return drawn, int((is_drawn & ~table["plausible"].astype(bool)).sum())


def _draw(files: Sequence[Path], options: Namespace) -> pd.DataFrame:
    """Write masks, or take those of an earlier audit of the same files by the same network."""
    folder = options.out / _MASKS
    record = folder / _DRAWN_FROM
    stamps = [[str(file), stamp(file)] for file in files]
    weights = _stamps(options.mask_weights)
    drawn_from = json.dumps([options["with"], weights, stamps]).encode()
    if record.is_file() and record.read_bytes() == drawn_from:
        return pd.read_csv(folder / MASK_TABLE, keep_default_na=False)
    record.unlink(missing_ok=True)  # until all masks are those of this audit
    try:
        segmenter = pretrained_segmenter(
            options["with"], None, options.mask_weights, options.download
        )
    except (FileNotFoundError, ValueError) as error:  # whose --weights are the classifier's here
        raise type(error)(str(error).replace("--weights", "--mask_weights")) from error
    table = predict_masks(
        segmenter, files, folder, overwrite=True, skip_unreadable=options.skip_unreadable
    )
    (folder / REVIEW_PAGE).unlink(missing_ok=True)  # of masks that were there before
    write_atomically(record, drawn_from)
    return table


def _implausible(table: Path) -> int | None:
    """Count the masks that the table of ``faster-isnet segment`` calls implausible."""
    if not table.is_file():
        return None
    found = pd.read_csv(table)
    return int((~found["plausible"].astype(bool)).sum()) if "plausible" in found else None


def stamp(file: object) -> list[int]:
    """Return size and time of a file; nothing if there is none."""
    path = Path(str(file))
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []


def _stamps(path: Path | None) -> list[list[int]]:
    """Return sizes and times of a file, or of all files in a folder."""
    if path is None:
        return []
    return [stamp(file) for file in sorted(path.rglob("*"))] if path.is_dir() else [stamp(path)]
