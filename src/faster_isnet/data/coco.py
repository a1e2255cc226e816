"""Read masks from COCO JSON files: polygons, run lengths and boxes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from faster_isnet.common.checks import check_choice
from faster_isnet.data.masks import Segments
from faster_isnet.data.samples import Sample


def from_coco(
    path: str | Path, samples: Iterable[Sample], categories: Sequence[str] = ()
) -> list[Sample]:
    """Add masks from a COCO file: the union of all annotations of an image.

    An image belongs to a sample whose path ends with the image's ``file_name``. For an
    annotation without a segmentation, its box is filled.

    Parameters
    ----------
    path
        The JSON file, in the format of https://cocodataset.org/#format-data.
    samples
        Samples that have a mask keep it; samples without annotations get none.
    categories
        Names of the categories that are foreground. By default all.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not in COCO's format, a category is unknown, or its images match no sample, or one
        matches several.
    """
    path = Path(path)
    masks = _read_masks(path, categories)
    owners: dict[PurePath, Sample] = {}
    found = []
    for sample in samples:
        name = next((end for end in _ends_of_path(sample) if end in masks), None)
        if name is None:
            found.append(sample)
            continue
        if owners.setdefault(name, sample) != sample:
            raise ValueError(
                f"{str(path)!r} names an image {str(name)!r}, which both {owners[name].name!r} and "
                f"{sample.name!r} may be; give it a path with enough folders as its file_name"
            )
        found.append(sample if sample.mask is not None else replace(sample, mask=masks[name]))
    if not owners:
        raise ValueError(
            f"no sample's path ends with the name of an annotated image of {str(path)!r}, such as "
            f"{str(next(iter(masks)))!r}; correct their file_name"
        )
    return found


def _ends_of_path(sample: Sample) -> list[PurePath]:
    """Return all suffixes of the path of a sample's image, the longest first."""
    parts = sample.image.parts if isinstance(sample.image, Path) else ()
    return [PurePath(*parts[start:]) for start in range(len(parts))]


def _read_masks(path: Path, categories: Sequence[str]) -> dict[PurePath, Segments]:
    """Read the mask of each image that has annotations, by its ``file_name``."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; correct its name")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {each["name"]: each["id"] for each in content.get("categories", [])}
        sizes = {
            each["id"]: (int(each["height"]), int(each["width"])) for each in content["images"]
        }
        names = {each["id"]: PurePath(each["file_name"]) for each in content["images"]}
        annotations = [
            (each["image_id"], each.get("category_id"), _segment(each))
            for each in content["annotations"]
        ]
        missing = {image for image, _, _ in annotations} - set(names)
        if missing:
            raise ValueError(f"annotations of image_id {sorted(missing)[:5]}, which it lacks")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"cannot read {str(path)!r} as COCO ({type(error).__name__}: {error}); it needs images "
            "with id, file_name, height and width, annotations with image_id and segmentation or "
            "bbox, and categories with id and name; see https://cocodataset.org/#format-data"
        ) from error
    wanted = {
        known[check_choice(f"category of {str(path)!r}:", name, known)] for name in categories
    }
    segments: dict[Any, list[Any]] = defaultdict(list)
    for image, category, segment in annotations:
        if not categories or category in wanted:
            segments[image].append(segment)
    if not segments:
        raise ValueError(f"{str(path)!r} has no annotations of what was asked for; add some")
    return {names[i]: Segments(tuple(found), sizes[i]) for i, found in segments.items()}


def _segment(annotation: dict[str, Any]) -> Any:
    if annotation.get("segmentation"):
        return annotation["segmentation"]
    left, top, width, height = annotation["bbox"]
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]
