"""Read masks from COCO JSON files: polygons, run lengths and boxes."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from faster_isnet.common.checks import check_choice
from faster_isnet.common.files import check_file
from faster_isnet.data.coco_segments import check_segment, check_size, polygon_of_box
from faster_isnet.data.masks import Segments
from faster_isnet.data.samples import Sample

log = logging.getLogger(__name__)


def from_coco(
    path: str | Path, samples: Iterable[Sample], categories: Sequence[str] = ()
) -> list[Sample]:
    """Add masks from a COCO file: the union of all annotations of an image.

    An image belongs to a sample whose path ends with the image's ``file_name``. For an
    annotation without a segmentation, its box is filled. In merged files, annotations of images
    with one ``file_name``, and categories of one name, are joined.

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
        If it is not in COCO's format, an annotation cannot be (named by its id), a category is
        unknown, or its images match no sample, or one matches several.
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
    unused = [str(name) for name in masks if name not in owners]
    if unused and owners:
        log.warning(
            "%d of %d annotated images of %s are none of the samples, such as %s",
            *(len(unused), len(masks), path, unused[0]),
        )
    if not owners:
        raise ValueError(
            f"no sample's path ends with the name of an annotated image of {str(path)!r}, such as "
            f"{str(next(iter(masks)))!r}; correct their file_name"
        )
    return found


def _ends_of_path(sample: Sample) -> list[PurePath]:
    """Return all suffixes of the path of a sample's image, the longest first."""
    parts = _path(str(sample.image)).parts if isinstance(sample.image, Path) else ()
    return [PurePath(*parts[start:]) for start in range(len(parts))]


def _path(name: Any) -> PurePath:
    if not isinstance(name, str):
        raise ValueError(f"the file_name {name!r}, which is no text")
    return PurePath(unicodedata.normalize("NFC", name))  # macOS decomposes letters with accents


def _read_masks(path: Path, categories: Sequence[str]) -> dict[PurePath, Segments]:
    """Read the mask of each image that has annotations, by its ``file_name``."""
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        known = defaultdict(set)  # merged files have a name twice, with two ids
        for each in content.get("categories", []):
            known[each["name"]].add(each["id"])
        images = _read_images(content["images"])
        annotations = [
            (each["image_id"], each.get("category_id"), each) for each in content["annotations"]
        ]
        missing = {image for image, _, _ in annotations} - set(images)
        if missing:
            raise ValueError(
                f"annotations of image_id {sorted(missing, key=repr)[:5]}, which it lacks"
            )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"cannot read {str(path)!r} as COCO ({type(error).__name__}: {error}); it needs images "
            "with id, file_name, height and width, annotations with image_id and segmentation or "
            "bbox, and categories with id and name; see https://cocodataset.org/#format-data"
        ) from error
    wanted = set[Any]().union(
        *(known[check_choice(f"category of {str(path)!r}:", name, known)] for name in categories)
    )
    segments: dict[tuple[PurePath, tuple[int, int]], list[Any]] = defaultdict(list)
    for image, category, annotation in annotations:
        if not categories or category in wanted:
            name, size = images[image]
            where = f"annotation id {annotation.get('id')!r} of {str(path)!r}, of {str(name)!r}"
            segments[name, size].append(_segment(annotation, size, where))
    if not segments:
        raise ValueError(f"{str(path)!r} has no annotations of what was asked for; add some")
    return {name: Segments(tuple(found), size) for (name, size), found in segments.items()}


def _read_images(
    entries: Sequence[Mapping[str, Any]],
) -> dict[Any, tuple[PurePath, tuple[int, int]]]:
    """Read names and sizes (H, W) by id; merged files have a name with several ids."""
    images: dict[Any, tuple[PurePath, tuple[int, int]]] = {}
    sizes: dict[PurePath, tuple[int, int]] = {}
    for each in entries:
        name, size = _path(each["file_name"]), check_size((each["height"], each["width"]))
        if sizes.setdefault(name, size) != size:
            raise ValueError(
                f"{str(name)!r} is there with the sizes {list(sizes[name])} and {list(size)}"
            )
        if images.setdefault(each["id"], (name, size)) != (name, size):
            raise ValueError(
                f"the id {each['id']!r} is that of both {str(images[each['id']][0])!r} and "
                f"{str(name)!r}"
            )
    return images


def _segment(annotation: Mapping[str, Any], size: tuple[int, int], where: str) -> Any:
    try:
        segment = annotation.get("segmentation") or polygon_of_box(annotation.get("bbox"))
        check_segment(segment, size)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}; or delete the annotation") from error
    return segment
