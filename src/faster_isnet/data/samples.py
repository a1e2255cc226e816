"""Describe the samples of a data set: where image, label and mask are."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from faster_isnet.common.checks import check_choice
from faster_isnet.data.images import read_image
from faster_isnet.data.masks import read_mask

SPLITS = ("train", "val", "test")
TRAINING_SPLITS = ("train", "val")
"""Splits that biases are planted in for training, and whose masks are made worse on purpose."""


class ImageSource(Protocol):
    """Read an image that is not a separate file. ``str()`` of it is its name."""

    def read_image(self) -> Tensor:
        """Read the image, ``[C, H, W]`` float32 in [0, 1], C 1 or 3."""


class MaskSource(Protocol):
    """Read a mask that is not a separate file. ``str()`` of it is its name."""

    def read_mask(self, size: tuple[int, int]) -> Tensor:
        """Read the mask, ``[1, H, W]`` float32 in {0, 1}, of an image of ``size`` (H, W)."""


@dataclass(frozen=True)
class Sample:
    """Describe an image with its label, mask, split, group and attribute.

    Files are read on demand.

    Attributes
    ----------
    image
        The image's file, or an object that reads it.
    label
        Index of its class; for multi-label data a 0 or 1 for each class; ``None`` if unknown.
    mask
        The mask's file, or an object that reads it; ``None`` if it has none.
    split
        ``"train"``, ``"val"``, ``"test"``, or ``None`` if it is not chosen yet.
    group
        Samples of one group, such as a patient, stay in one split; ``None`` for a group with
        this sample only.
    attribute
        What the background shows, such as the scanner; ``None`` if it is not known.
    subgroups
        Columns and values, such as ``("sex", "female")``, by which the image is scored apart.
    """

    image: Path | ImageSource
    label: int | tuple[int, ...] | None = None
    mask: Path | MaskSource | None = None
    split: str | None = None
    group: str | None = None
    attribute: str | None = None
    subgroups: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The name in messages and tables: the image's path."""
        return str(self.image)

    def read_image(self) -> Tensor:
        """Read the image, see :func:`~faster_isnet.data.images.read_image`."""
        return read_image(self.image) if isinstance(self.image, Path) else self.image.read_image()

    def read_mask(self, size: tuple[int, int]) -> Tensor | None:
        """Read the mask ``[1, H, W]`` in {0, 1} for an image of ``size`` (H, W), if there is one.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the mask cannot be read, or its size is not that of the image.
        """
        if self.mask is None:
            return None
        try:
            if isinstance(self.mask, Path):
                mask = read_mask(self.mask)
            else:
                mask = self.mask.read_mask(size)
        except ValueError as error:
            raise ValueError(f"the mask of {self.name!r}: {error}") from error
        if mask.shape[1:] != size:
            raise ValueError(
                f"image {self.name!r} has {_rows_and_columns(size)}, but its mask, "
                f"{str(self.mask)!r}, {_rows_and_columns(mask.shape[1:])}; draw the mask on this "
                "image, or correct which mask belongs to it"
            )
        return mask


def _rows_and_columns(size: Sequence[int]) -> str:
    return f"{size[0]} rows of {size[1]} pixels"


def relative_name(sample: Sample, folder: str | Path | None) -> str:
    """Return the name of a sample's image relative to a folder, with slashes on all systems.

    Without a folder, return the name as it is.

    Examples
    --------
    >>> relative_name(Sample(Path("data/cats/1.png")), "data")
    'cats/1.png'
    """
    if folder is None:
        return sample.name
    return Path(os.path.relpath(sample.name, folder)).as_posix()


def visible(name: str) -> str:
    """Return a name without what cannot be seen: letters of no width, spaces around and doubled.

    Examples
    --------
    >>> visible(" a\u200b  cat ")
    'a cat'
    """
    shown = name if name.isascii() else "".join(c for c in name if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFC", shown).split())


def _folded(name: str) -> object:
    try:
        return float(name)
    except ValueError:
        return visible(name).casefold()


def class_index(name: str, class_names: Sequence[str], where: str) -> int:
    """Look up the index of a class.

    Raises
    ------
    ValueError
        If it is not among ``class_names``; the message contains ``where`` it was found.
    """
    return list(class_names).index(check_choice(f"class of {where}:", name, class_names))


def check_distinct(
    names: Iterable[str], what: str, fold: Callable[[str], object] = _folded
) -> None:
    """Check that no two names are one, written in two ways.

    Parameters
    ----------
    names
        The names.
    what
        What they are, for the message.
    fold
        What is equal for two ways to write a name; by default its number, or its letters whatever
        their case.

    Raises
    ------
    ValueError
        If two names are one.

    Examples
    --------
    >>> check_distinct(["cat", "dog", "Cat"], "classes")
    Traceback (most recent call last):
    ...
    ValueError: classes 'cat' and 'Cat' differ only in how they are written; write them the same
    """
    known: dict[object, str] = {}
    for name in names:
        first = known.setdefault(fold(name), name)
        if first != name:
            raise ValueError(
                f"{what} {first!r} and {name!r} differ only in how they are written; write them "
                "the same"
            )


def classes_of(sample: Sample) -> list[int]:
    """Return the indices of a sample's classes: one, or for multi-label data any number."""
    if isinstance(sample.label, tuple):
        return [index for index, applies in enumerate(sample.label) if applies]
    return [] if sample.label is None else [sample.label]


def relabel(
    samples: Sequence[Sample], class_names: Sequence[str], order: Sequence[str]
) -> list[Sample]:
    """Return samples with labels for the same classes in another order.

    Parameters
    ----------
    samples
        Labelled by index in ``class_names``.
    class_names, order
        The names by index, as they are and as they shall be; the same names.
    """
    position = {index: list(order).index(name) for index, name in enumerate(class_names)}

    def label(old: int | tuple[int, ...] | None) -> int | tuple[int, ...] | None:
        if isinstance(old, tuple):
            return tuple(value for _, value in sorted((position[i], v) for i, v in enumerate(old)))
        return None if old is None else position[old]

    return [replace(sample, label=label(sample.label)) for sample in samples]
