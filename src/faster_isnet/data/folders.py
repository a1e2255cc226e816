"""Read samples from folders: images by class, masks in a parallel folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from faster_isnet.data.images import IMAGE_SUFFIXES
from faster_isnet.data.samples import SPLITS, Sample, check_distinct, class_index


def from_folders(
    root: str | Path,
    masks: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[list[Sample], list[str]]:
    """Read samples from folders named after classes: ``root/CLASS/…/image.png``.

    The class folders may be in folders of splits, ``root/train/CLASS/…``. Hidden files, and files
    without the suffix of an image format, are ignored.

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
        mixed with others, a class is not among ``class_names``, or no mask belongs to an image.
    """
    root = Path(root)
    paths = list_images(root)
    parts = [path.relative_to(root).parts for path in paths]
    depth = int(_has_splits(root, {part[0] for part in parts}))
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
        ``images/a/b.jpg``.

    Raises
    ------
    FileNotFoundError
        If ``masks`` is not a folder.
    ValueError
        If two masks differ only in their suffix, or no mask belongs to an image.
    """
    images, masks = Path(images), Path(masks)
    by_stem: dict[Path, Path] = {}
    for path in list_images(masks):
        stem = path.relative_to(masks).with_suffix("")
        if stem in by_stem:
            raise ValueError(
                f"{str(by_stem[stem])!r} and {str(path)!r} are masks of one image; keep one of them"
            )
        by_stem[stem] = path

    def mask_of(sample: Sample) -> Path | None:
        if not isinstance(sample.image, Path) or not sample.image.is_relative_to(images):
            return None
        return by_stem.get(sample.image.relative_to(images).with_suffix(""))

    samples = list(samples)
    found = [mask_of(sample) for sample in samples]
    if not any(found):
        raise ValueError(
            f"none of the masks in {str(masks)!r} belongs to an image in {str(images)!r}; the path "
            f"of {str(next(iter(by_stem.values())))!r} under the one must be, but for the suffix, "
            f"that of an image under the other, like {samples[0].name!r}"
        )
    return [
        sample if sample.mask is not None else replace(sample, mask=mask)
        for sample, mask in zip(samples, found, strict=True)
    ]


def list_images(folder: str | Path) -> list[Path]:
    """List the images in a folder and its subfolders, by suffix, sorted; skip hidden files.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it has no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; correct its name")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise ValueError(
            f"{str(folder)!r} has no images; their names must end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return paths


def _has_splits(root: Path, folders: set[str]) -> bool:
    splits = folders & set(SPLITS)
    if splits and splits != folders:
        raise ValueError(
            f"{str(root)!r} has {sorted(folders - splits)[:5]} beside the splits {sorted(splits)}; "
            f"put all images under folders named {', '.join(SPLITS)}, or none"
        )
    return bool(splits)
