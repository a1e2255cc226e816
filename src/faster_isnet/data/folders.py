"""Samples from folders: images by class, masks beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from faster_isnet.data.images import IMAGE_SUFFIXES
from faster_isnet.data.samples import SPLITS, Sample, class_index


def from_folders(
    root: str | Path,
    masks: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[list[Sample], list[str]]:
    """Read samples from folders named by class: ``root/CLASS/…/image.png``.

    Above the classes may be the splits, ``root/train/CLASS/…``. Files that are no images by their
    suffix, and hidden ones, are passed over.

    Parameters
    ----------
    root
        The folder.
    masks
        A folder of masks, see :func:`add_mask_folder`; images may lack one.
    class_names
        The classes in the order of their indices, for data that join others. By default the
        folders' names, sorted.

    Returns
    -------
    tuple
        The samples, sorted by path, and the names of the classes.

    Raises
    ------
    FileNotFoundError
        If ``root`` or ``masks`` is no folder.
    ValueError
        If there are no images, an image lies outside of the class folders, folders of splits lie
        beside others, a class is not among ``class_names``, or no mask belongs to an image.
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
    names = sorted({part[depth] for part in parts}) if class_names is None else list(class_names)
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
    """Give samples the masks of a folder that is laid out like the images'.

    Parameters
    ----------
    samples
        Those that have a mask keep it.
    images
        The folder of the images.
    masks
        The folder of the masks: to ``images/a/b.jpg`` belongs ``masks/a/b.png``, or with another
        suffix.

    Raises
    ------
    FileNotFoundError
        If ``masks`` is no folder.
    ValueError
        If two masks differ in their suffix only, or none belongs to an image.
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
    """Return the images in a folder and below, by their suffixes, sorted; hidden ones left out.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it has none.
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
