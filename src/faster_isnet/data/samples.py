"""What a data set consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from faster_isnet.common.checks import check_choice
from faster_isnet.data.images import read_image
from faster_isnet.data.masks import read_mask

SPLITS = ("train", "val", "test")


class ImageSource(Protocol):
    """An image that is no file of its own. ``str()`` of it is its name."""

    def read_image(self) -> Tensor:
        """Return the image, ``[C, H, W]`` float32 in [0, 1], C 1 or 3."""


class MaskSource(Protocol):
    """A mask that is no file of its own. ``str()`` of it is its name."""

    def read_mask(self, size: tuple[int, int]) -> Tensor:
        """Return the mask, ``[1, H, W]`` float32 in {0, 1}, of an image of ``size`` (H, W)."""


@dataclass(frozen=True)
class Sample:
    """An image and what is known of it; nothing is read before it is asked for.

    Attributes
    ----------
    image
        The image's file, or whatever else reads it.
    label
        Index of its class; for several labels a 0 or 1 for each class; ``None`` if not known.
    mask
        Its mask's file, or whatever else reads it; ``None`` if it has none.
    split
        ``"train"``, ``"val"``, ``"test"``, or ``None`` for one still to be chosen.
    group
        What must not be divided between splits, such as a patient; ``None`` for a group of its
        own.
    """

    image: Path | ImageSource
    label: int | tuple[int, ...] | None = None
    mask: Path | MaskSource | None = None
    split: str | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """What to call it in messages and tables: its image's path."""
        return str(self.image)

    def read_image(self) -> Tensor:
        """Return the image, see :func:`~faster_isnet.data.images.read_image`."""
        return read_image(self.image) if isinstance(self.image, Path) else self.image.read_image()

    def read_mask(self, size: tuple[int, int]) -> Tensor | None:
        """Return the mask ``[1, H, W]`` in {0, 1} of the image of ``size`` (H, W), if it has one.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the mask cannot be read, or is of another size than the image.
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


def class_index(name: str, class_names: Sequence[str], where: str) -> int:
    """Return the index of a class.

    Raises
    ------
    ValueError
        If it is not among ``class_names``; the message says ``where`` it was found.
    """
    return list(class_names).index(check_choice(f"class of {where}:", name, class_names))


def classes_of(sample: Sample) -> list[int]:
    """Return the indices of a sample's classes: one, or for several labels any number."""
    if isinstance(sample.label, tuple):
        return [index for index, applies in enumerate(sample.label) if applies]
    return [] if sample.label is None else [sample.label]
