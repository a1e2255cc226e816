"""Read samples from folders: images by class, masks in a parallel folder."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from faster_isnet.data.images import IMAGE_SUFFIXES, is_image
from faster_isnet.data.masks import BESIDE_MASKS
from faster_isnet.data.samples import SPLITS, Sample, check_distinct, class_index

log = logging.getLogger(__name__)

_MASK_ENDS = ("_mask", "-mask", ".mask")
_MOST_LISTED = 10


def from_folders(
    root: str | Path,
    masks: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[list[Sample], list[str]]:
    """Read samples from folders named after classes: ``root/CLASS/…/image.png``.

    The class folders may be in folders of splits, ``root/train/CLASS/…``. Symbolic links are
    followed. Files with another suffix than those of image formats, or with none and another
    content, and class folders without images, are passed over with a warning that names them;
    hidden files without one.

    Parameters
    ----------
    root
        The folder of the class folders or splits.
    masks
        A folder of masks, see :func:`add_mask_folder`; images without a mask are allowed.
    class_names
        Names of the classes by index, to match other data. By default the
        folders' names, sorted.

    Returns
    -------
    tuple
        The samples, sorted by path, and the names of the classes.

    Raises
    ------
    FileNotFoundError
        If ``root`` or ``masks`` is not a folder.
    ValueError
        If there are no images, an image is outside of the class folders, folders of splits are
        mixed with others, a class is not among ``class_names``, or most masks belong to no image.
    """
    root = Path(root)
    paths = list_images(root)
    parts = [path.relative_to(root).parts for path in paths]
    depth = int(_has_splits(root, {part[0] for part in parts}))
    _warn_of_empty_folders(root, depth, paths)
    for path, part in zip(paths, parts, strict=True):
        if len(part) < depth + 2:
            raise ValueError(
                f"{str(path)!r} lies in no class folder; move it to "
                f"{str(path.parent / 'CLASS' / path.name)!r}, or name images and labels in a table"
            )
    if class_names is None:
        names = sorted({part[depth] for part in parts})
        check_distinct(names, f"class folders of {str(root)!r}:")
    else:
        names = list(class_names)
    samples = [
        Sample(
            path,
            label=class_index(part[depth], names, str(path)),
            split=part[0] if depth else None,
        )
        for path, part in zip(paths, parts, strict=True)
    ]
    return (samples if masks is None else add_mask_folder(samples, root, masks)), names


def add_mask_folder(
    samples: Iterable[Sample], images: str | Path, masks: str | Path
) -> list[Sample]:
    """Add masks from a folder with the same structure as the folder of images.

    Parameters
    ----------
    samples
        Samples that have a mask already keep it.
    images
        The folder of the images.
    masks
        The folder of the masks: ``masks/a/b.png``, or with another suffix, is the mask of
        ``images/a/b.jpg``. If there is none of this name, one is taken that differs in the case of
        letters, or ends in ``_mask``. Masks that belong to no image are named in a warning.

    Raises
    ------
    FileNotFoundError
        If ``masks`` is not a folder.
    ValueError
        If two masks are of one image, or most masks belong to no image.
    """
    samples, images, masks = list(samples), Path(images), Path(masks)
    paths = list_images(masks, beside=BESIDE_MASKS)
    names = [
        _names(sample.image.relative_to(images))[:2]  # as it is, or in lower case
        if isinstance(sample.image, Path) and sample.image.is_relative_to(images)
        else []
        for sample in samples
    ]
    exact = {each[0] for each in names if each}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        same, *similar = _names(path.relative_to(masks))
        for name in [same] if same in exact else similar:
            by_name[name].append(path)
    found = [_only(each, by_name) for each in names]
    _check_owners(paths, {path for path in found if path}, masks, images, samples)
    return [
        sample if sample.mask is not None else replace(sample, mask=mask)
        for sample, mask in zip(samples, found, strict=True)
    ]


def _only(names: Sequence[str], by_name: Mapping[str, list[Path]]) -> Path | None:
    """Return the mask that the first of the names finds."""
    candidates = next((by_name[name] for name in names if name in by_name), [])
    if len(candidates) > 1:
        raise ValueError(
            f"{str(candidates[0])!r} and {str(candidates[1])!r} are masks of one image; keep one "
            "of them"
        )
    return candidates[0] if candidates else None


def _names(path: Path) -> list[str]:
    """Return the names by which a file is found, the nearest to its own first."""
    # macOS decomposes letters with accents; other systems do not.
    name = unicodedata.normalize("NFC", path.with_suffix("").as_posix())
    lower = name.casefold()
    plain = next((lower.removesuffix(end) for end in _MASK_ENDS if lower.endswith(end)), lower)
    return list(dict.fromkeys([f"={name}", f"~{lower}", f"~{plain}"]))


def _check_owners(
    masks: Sequence[Path], owned: set[Path], folder: Path, images: Path, samples: Sequence[Sample]
) -> None:
    """Warn of masks that belong to no image, or raise if most do not."""
    if len(owned) == len(masks):
        return
    # A table may name some of a folder's images only: the masks of the others have their images.
    files = [path.relative_to(images) for path in _files(images) if is_image(path)]
    others = {name for path in files for name in _names(path)[:2]}
    orphans = [
        str(path)
        for path in masks
        if not owned or (path not in owned and others.isdisjoint(_names(path.relative_to(folder))))
    ]
    if 2 * len(orphans) > len(masks):
        count = "none" if len(orphans) == len(masks) else f"only {len(owned)}"
        raise ValueError(
            f"{count} of the {len(masks)} masks in {str(folder)!r} belong to an image in "
            f"{str(images)!r}; the path of {orphans[0]!r} under the one must be, but for the "
            f"suffix, that of an image under the other, like {samples[0].name!r}"
        )
    if orphans:
        log.warning(
            "%d of %d masks in %s belong to no image and are passed over: %s",
            *(len(orphans), len(masks), folder, _listed(orphans)),
        )


def list_images(folder: str | Path, beside: Sequence[str] = ()) -> list[Path]:
    """List the images in a folder and its subfolders, sorted; skip hidden files.

    Files without a suffix are images if they begin as one. Symbolic links are followed. A warning
    names other files, which are passed over, but for those called as in ``beside``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it has no images, or a link leads to a folder around it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; correct its name")
    images: list[Path] = []
    others: list[Path] = []
    for path in _files(folder):
        if is_image(path):
            images.append(path)
        elif path.name not in beside:
            others.append(path)
    if not images:
        raise ValueError(
            f"{str(folder)!r} has no images; their names must end in {', '.join(IMAGE_SUFFIXES)}"
        )
    if others:
        log.warning(
            "%d files in %s are passed over, as they are no images by their suffix (or, without "
            "one, by their content): %s",
            *(len(others), folder, _listed(sorted(map(str, others)))),
        )
    return sorted(images)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for each in (Path(root, name) for name in folders):
            if each.is_symlink() and Path(root).resolve().is_relative_to(each.resolve()):
                raise ValueError(f"{str(each)!r} is a link to a folder around it; remove it")
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _warn_of_empty_folders(root: Path, depth: int, paths: Sequence[Path]) -> None:
    full = {path.parents[i] for path in paths for i in range(len(path.relative_to(root).parts))}
    folders = (path for path in root.glob("/".join(["*"] * (depth + 1))) if path.is_dir())
    empty = [str(path) for path in folders if path not in full and not path.name.startswith(".")]
    if empty:
        log.warning(
            "%d folders of classes have no images and are passed over: %s",
            *(len(empty), _listed(sorted(empty))),
        )


def _has_splits(root: Path, folders: set[str]) -> bool:
    splits = folders & set(SPLITS)
    if splits and splits != folders:
        raise ValueError(
            f"{str(root)!r} has {sorted(folders - splits)[:5]} beside the splits {sorted(splits)}; "
            f"put all images under folders named {', '.join(SPLITS)}, or none"
        )
    return bool(splits)
