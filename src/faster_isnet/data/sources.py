"""Read samples from folders, a table or HDF5, chosen by the path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from faster_isnet.common.checks import TASKS, check_choice
from faster_isnet.data.folders import from_folders
from faster_isnet.data.hdf5 import HDF5_SUFFIXES, Hdf5Entry, from_hdf5
from faster_isnet.data.masks import Foreground, MaskFile
from faster_isnet.data.sample_tables import TABLE_SUFFIXES, from_table
from faster_isnet.data.samples import SPLITS, Sample

Source = str | Path | Mapping[str, str | Path]
Fields = Mapping[str, str | Sequence[str]]

_TABLE_FIELDS = ("image", "label", "mask", "split", "group", "attribute", "subgroups", "boxes")
_HDF5_FIELDS = ("images", "masks", "labels", "attributes")


def read_samples(
    source: Source,
    root: str | Path | None = None,
    fields: Fields | None = None,
    class_names: Sequence[str] | None = None,
    task: str | None = None,
) -> tuple[list[Sample], list[str]]:
    """Read samples from folders by class, a table, or HDF5.

    Parameters
    ----------
    source
        A folder, a ``.csv`` or ``.parquet`` file, an ``.h5`` or ``.hdf5`` file; or one of
        these for each split, by its name. The training data then define the classes.
    root
        Folder that relative paths in a table start from. By default the table's folder.
    fields
        Names of a table's columns (``image``, ``label``, ``mask``, ``split``, ``group``,
        ``attribute``, ``boxes``; of ``subgroups`` there are none by default) or of HDF5's data
        sets (``images``, ``masks``, ``labels``, ``attributes``) that differ from these defaults.
    class_names, task
        Classes and task of the data to match; see
        :func:`~faster_isnet.data.sample_tables.from_table`.

    Returns
    -------
    tuple
        The samples, and the names of the classes.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If the type of the source is unknown, fields are unknown, the task differs, or the reader
        finds invalid data.
    """
    if isinstance(source, Mapping):
        return _read_splits(source, root, fields, class_names, task)
    samples, names = _read_source(Path(source), root, fields or {}, class_names, task)
    if task is not None and task_of(samples) != task:
        raise ValueError(
            f"{str(source)!r} is {task_of(samples)}, but the data that it joins are {task}; give "
            "both either one label an image, or a 0 or 1 for each class"
        )
    return samples, names


def _read_source(
    path: Path,
    root: str | Path | None,
    fields: Fields,
    class_names: Sequence[str] | None,
    task: str | None,
) -> tuple[list[Sample], list[str]]:
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        options: dict[str, Any] = _known(fields, _TABLE_FIELDS)
        return from_table(path, root, class_names=class_names, task=task, **options)
    if suffix in HDF5_SUFFIXES:
        options = _known(fields, _HDF5_FIELDS)
        return from_hdf5(path, class_names=class_names, **options)
    if path.is_file():
        raise ValueError(
            f"{str(path)!r} is neither a folder nor a file ending in "
            f"{', '.join((*TABLE_SUFFIXES, *HDF5_SUFFIXES))}; convert it to one of these"
        )
    if fields:
        raise ValueError(
            f"folders have no fields, but {str(path)!r} is given {sorted(fields)}; leave them out"
        )
    return from_folders(path, class_names=class_names)


def task_of(samples: Sequence[Sample]) -> str:
    """Return ``"multilabel"`` if labels are a 0 or 1 for each class, else ``"multiclass"``."""
    return TASKS[any(isinstance(sample.label, tuple) for sample in samples)]


def choose_foreground(samples: Iterable[Sample], foreground: Foreground) -> list[Sample]:
    """Set which values are foreground in masks from files and HDF5; others have none."""
    return [replace(sample, mask=_with_foreground(sample.mask, foreground)) for sample in samples]


def _with_foreground(mask: Any, foreground: Foreground) -> Any:
    if isinstance(mask, Path):
        return MaskFile(mask, foreground)
    return replace(mask, foreground=foreground) if isinstance(mask, Hdf5Entry) else mask


def _read_splits(
    sources: Mapping[str, str | Path],
    root: str | Path | None,
    fields: Fields | None,
    class_names: Sequence[str] | None,
    task: str | None,
) -> tuple[list[Sample], list[str]]:
    samples: list[Sample] = []
    names = None if class_names is None else list(class_names)
    for split in sorted(
        sources, key=lambda name: SPLITS.index(check_choice("split", name, SPLITS))
    ):
        part, names = read_samples(sources[split], root, fields, names, task)
        task = task or task_of(part)
        samples += [replace(sample, split=split) for sample in part]
    return samples, names or []


def _known(fields: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    return {check_choice("field", name, known): value for name, value in fields.items()}
