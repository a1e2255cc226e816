"""Plant a background bias in any images: marks or stripes that are correlated with the class.

A classifier is trained on images with the mark of their class, all of them or most, and evaluated
on three versions of the same test images: ``"biased"`` (mark of the true class), ``"unbiased"`` (no
mark) and ``"deceiving"`` (mark of another class). One that ignores the background scores the same
on all three. This applies the test of the papers to user-defined images.

References
----------
The synthetic background bias and its three test sets: P. R. A. S. Bassi et al., Nature
Communications 15, 291 (2024), and IEEE Access 12, 155151 (2024).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from faster_isnet.common.checks import NO_ATTRIBUTE, check_choice, check_range
from faster_isnet.data.dataset import ImageDataset
from faster_isnet.data.digits import BIASES
from faster_isnet.data.marks import MARK_KINDS, SMALLEST, STRIPES, correlated_class, stripes
from faster_isnet.data.samples import Sample

MarkedItem = tuple[Any, ...]
_PHASES, _CORRELATION = 1, 2  # so that what is drawn for one image is independent
KINDS = (*MARK_KINDS, STRIPES)
"""Values of ``kind`` of :class:`Planting`."""
Position = tuple[int, int]
"""Row and column of the top left pixel of a mark."""


@dataclass(frozen=True)
class Planting:
    """Draw marks that depend on the class in the background of images.

    A mark is a square, black and white or grey, so that it is visible on any background; or it is
    the background itself, which has stripes.

    Parameters
    ----------
    kind
        What differs between classes. ``"shape"``: which of the twelve
        :data:`~faster_isnet.data.marks.SHAPES`. ``"texture"``: the direction of stripes.
        ``"text"``: which of 26 letters. These are in one corner of the image, like the tokens of
        radiographs.
        ``"position"``: where a white square is; each class has a separate section of the border.
        ``"stripes"``: the direction of stripes all over the background, a sinusoid that is added
        to it, with a random phase for each image.
    size
        Side of the mark as a share of the image's shorter side, in (0, 0.5]. In pixels, it must
        be at least 8. Of ``"stripes"`` their period, at least 4 pixels; it determines for how many
        classes directions can be told apart (0.15: 20, 0.5: 6; see
        :func:`~faster_isnet.data.marks.most_directions`).
    opacity
        Of squares, in (0, 1]; 1 hides the image below.
    amplitude
        Of ``"stripes"``, in (0, 0.5], where images are in [0, 1]; sums are clipped to that.
    correlation
        Probability that an image with the bias ``"biased"`` has the mark of its own class, in
        [0, 1]; else it has the mark of another class, sampled uniformly. Both are drawn for each
        image by ``seed`` and its index; images that have another class's mark at one correlation
        have it at all lower ones, too. :class:`~faster_isnet.data.ImageData` applies it to training
        and validation images; test sets are planted with 1. At 1 / K for K classes marks say
        nothing of the class; at 0 no mark is that of its image's class, so that each rules out one
        class, and with two classes gives away the other.
    seed
        Seed of the marks of classes, the corner, phases, and classes other than the true one; ≥ 0.

    Raises
    ------
    TypeError
        If ``kind`` is not a string, or a number has another type.
    ValueError
        If a value is unknown or out of its range, or not of this kind: ``opacity`` with stripes,
        ``amplitude`` with squares.

    Examples
    --------
    >>> planting = Planting("text", size=0.25)
    >>> image = planting.plant(torch.zeros(3, 64, 64), None, mark_class=1, num_classes=2)
    >>> int((image > 0).any(0).sum()) <= 16 * 16
    True
    """

    kind: str = "shape"
    size: float = 0.15
    opacity: float = 1.0
    amplitude: float = 0.15
    correlation: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all values."""
        check_choice("kind", self.kind, KINDS)
        check_range("size", self.size, 0, 0.5, open_low=True)
        check_range("opacity", self.opacity, 0, 1, open_low=True)
        check_range("amplitude", self.amplitude, 0, 0.5, open_low=True)
        check_range("correlation", self.correlation, 0, 1)
        check_range("seed", self.seed, 0)
        name, of = ("opacity", "squares") if self.kind == STRIPES else ("amplitude", "stripes")
        value, default = getattr(self, name), getattr(Planting, name)
        if value != default:
            raise ValueError(
                f"{name} is of {of}, but kind is {self.kind!r}, and {name} {value:g}; leave it out"
            )

    def plant(
        self,
        image: Tensor,
        mask: Tensor | None,
        mark_class: int,
        num_classes: int,
        index: int = 0,
    ) -> Tensor:
        """Draw the mark of a class in an image; the foreground is unchanged, exactly.

        Stripes are added to all of the background. A square is placed where it overlaps the least
        foreground, mostly none; among such positions, at the one nearest to its corner. For
        ``"position"``, it is the one nearest to the class's position on the border, among those
        nearer to it than to any other class's.
        Where they overlap, the foreground covers the mark; images of foreground only get none.

        Parameters
        ----------
        image
            ``[C, H, W]``, floating point in [0, 1]; it is not changed.
        mask
            ``[1, H, W]``, 1 in the foreground; ``None``, or filled with ``NO_MASK``, for an image
            without one, which is background only.
        mark_class
            The class of the mark, from 0.
        num_classes
            Number of classes, ≥ 2.
        index
            Index of the image, ≥ 0. With ``seed`` it determines the phase of stripes, whatever
            their class; squares do not depend on it.

        Returns
        -------
        Tensor
            Like ``image``.

        Raises
        ------
        TypeError
            If the image is not floating point.
        ValueError
            If the image is not ``[C, H, W]`` or its mask not of its size, ``mark_class`` is out of
            range, the mark would have less than 8 pixels (stripes less than 4), or there are
            not as many marks as classes.
        """
        _check_plant_arguments(image, mask, mark_class, num_classes)
        height, width = image.shape[1:]
        foreground = torch.zeros(1, height, width) if mask is None else (mask == 1).float()
        which = int(_permutation(num_classes, self.seed)[mark_class])
        if self.kind == STRIPES:
            phase = np.random.default_rng((self.seed, index, _PHASES)).random()
            waves = stripes(height, width, self.size, which, num_classes, phase)
            striped = image + self.amplitude * torch.from_numpy(waves).to(image)
            return torch.where(foreground == 1, image, striped.clamp(0, 1))
        return self._with_square(image, foreground, which, num_classes)

    def _with_square(
        self, image: Tensor, foreground: Tensor, which: int, num_classes: int
    ) -> Tensor:
        height, width = image.shape[1:]
        side = self._side(height, width)
        if self.kind == "position":
            anchors, own = _border_positions(height - side, width - side, num_classes, side), which
        else:
            anchors, own = (self._corner(height - side, width - side),), 0
        row, column = _best_position(foreground, side, anchors, own)
        window = np.s_[:, row : row + side, column : column + side]
        mark = _mark(self.kind, side, which, num_classes).to(image)
        planted = image.clone()
        planted[window] = image[window].lerp(
            mark, self.opacity * (1 - foreground[window].to(image))
        )
        return planted

    def _corner(self, last_row: int, last_column: int) -> Position:
        at_the_bottom, at_the_right = np.random.default_rng(self.seed).integers(2, size=2).tolist()
        return last_row * at_the_bottom, last_column * at_the_right

    def _side(self, height: int, width: int) -> int:
        side = round(self.size * min(height, width))
        if side < SMALLEST:
            raise ValueError(
                f"size {self.size:g} makes a mark of {side} pixels in an image of {height} x "
                f"{width}; marks need {SMALLEST}: give a size of "
                f"{math.ceil(100 * SMALLEST / min(height, width)) / 100:g} or more"
            )
        return side


class PlantedDataset(Dataset[MarkedItem]):
    """Plant marks in the background of a data set's images.

    Items are ``(image, label, mask, attribute)``: those of ``dataset``, except for images and the
    attribute, which is the class whose mark is planted, an int64 scalar; −1 without a mark. Augment
    images in ``dataset``, since marks must be drawn last. Masks of an
    :class:`~faster_isnet.data.ImageDataset` that are made worse decide nothing here: marks are
    planted by the exact masks.

    Parameters
    ----------
    dataset
        Its items are ``(image [C, H, W] in [0, 1], label, mask [1, H, W])``, the label one class; a
        mask filled with ``NO_MASK`` stands for no mask. They may have an attribute as well, which
        is replaced.
    planting
        The marks.
    bias
        ``"biased"``: the mark of the true class, for ``planting.correlation`` of the images.
        ``"unbiased"``: no mark. ``"deceiving"``: the mark of another class, sampled uniformly from
        the others by ``planting.seed`` and the index.
    num_classes
        Number of classes, ≥ 2.

    Raises
    ------
    TypeError
        If ``bias`` is not a string. At access: if a label is not one class.
    ValueError
        If ``bias`` is unknown or ``num_classes`` below 2. At access: if a label is out of range,
        and what :meth:`Planting.plant` raises.
    """

    def __init__(
        self, dataset: Dataset[MarkedItem], planting: Planting, bias: str, num_classes: int
    ) -> None:
        self.dataset = dataset
        self.planting = planting
        self.bias = check_choice("bias", bias, BIASES)
        self.num_classes = int(check_range("num_classes", num_classes, 2))

    @property
    def samples(self) -> list[Sample]:
        """The samples of ``dataset``, which must be an :class:`~faster_isnet.data.ImageDataset`."""
        return self.dataset.samples  # type: ignore[attr-defined, no-any-return]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> MarkedItem:
        """Return the item with its mark; raise ``IndexError`` beyond the end."""
        position = range(len(self))[index]  # so that index -1 gives the same mark as the last one
        # By the index itself, which may have a seed, if it needs no change.
        item, exact_mask = self._item_and_exact_mask(index if index >= 0 else position)
        image, label, mask = item[:3]
        marked = NO_ATTRIBUTE
        if self.bias != "unbiased":
            marked = self._marked_class(label, position)
            image = self.planting.plant(image, exact_mask, marked, self.num_classes, position)
        return image, label, mask, torch.tensor(marked)

    def _item_and_exact_mask(self, index: int) -> tuple[MarkedItem, Tensor]:
        if isinstance(self.dataset, ImageDataset):
            return self.dataset.item_and_exact_mask(index)
        item = self.dataset[index]
        return item, item[2]

    def _marked_class(self, label: int | Tensor, index: int) -> int:
        try:
            own = operator.index(label)
        except TypeError as error:
            raise TypeError(
                f"a mark is of one class, but item {index} has the label {label}; plant marks in "
                "data with one class, an integer, for each image"
            ) from error
        if not 0 <= own < self.num_classes:
            raise ValueError(
                f"item {index} has the label {own}, but there are {self.num_classes} classes, 0 to "
                f"{self.num_classes - 1}"
            )
        if self.bias == "biased":
            planting = self.planting
            return correlated_class(
                own, self.num_classes, planting.correlation, (planting.seed, index, _CORRELATION)
            )
        rng = np.random.default_rng((self.planting.seed, index))
        return (own + int(rng.integers(1, self.num_classes))) % self.num_classes


def _check_plant_arguments(
    image: Tensor, mask: Tensor | None, mark_class: int, num_classes: int
) -> None:
    check_range("num_classes", num_classes, 2)
    if not image.is_floating_point():
        raise TypeError(f"image must be floating point in [0, 1], got {image.dtype}")
    if image.dim() != 3:
        raise ValueError(f"image must be [C, H, W], got {list(image.shape)}; plant one at a time")
    if mask is not None and mask.shape != (1, *image.shape[1:]):
        raise ValueError(
            f"mask must be {[1, *image.shape[1:]]} for an image {list(image.shape)}, got "
            f"{list(mask.shape)}"
        )
    if not 0 <= mark_class < num_classes:
        raise ValueError(f"mark_class must be in 0 to {num_classes - 1}, got {mark_class}")


@lru_cache
def _permutation(num_classes: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(num_classes)


@lru_cache
def _mark(kind: str, side: int, which: int, num_classes: int) -> Tensor:
    return torch.from_numpy(MARK_KINDS[kind](side, which, num_classes))


@lru_cache
def _border_positions(
    last_row: int, last_column: int, count: int, side: int
) -> tuple[Position, ...]:
    """Return positions spaced evenly over the border, clockwise from the top left."""
    perimeter = 2 * (last_row + last_column)
    if perimeter < count * side:
        raise ValueError(
            f"the border has room for {perimeter // side} marks of {side} pixels, but there are "
            f"{count} classes; give a smaller size, or another kind"
        )
    border = [
        *((0, column) for column in range(last_column)),
        *((row, last_column) for row in range(last_row)),
        *((last_row, column) for column in range(last_column, 0, -1)),
        *((row, 0) for row in range(last_row, 0, -1)),
    ]
    return tuple(border[perimeter * number // count] for number in range(count))


def _best_position(
    foreground: Tensor, side: int, anchors: tuple[Position, ...], own: int
) -> Position:
    """Find the position in the region of anchor ``own`` that overlaps the least foreground.

    The region of an anchor are the positions nearer to it than to any other anchor; of equal
    overlaps, the nearest to the anchor is chosen.
    """
    overlap = F.avg_pool2d(
        foreground, (side, 1), 1, divisor_override=1
    )  # sums of 0 and 1, so exact
    overlap = F.avg_pool2d(overlap, (1, side), 1, divisor_override=1)[0]
    distance, elsewhere = _distance_and_elsewhere(*overlap.shape, anchors, own)
    cost = overlap.long() * (1 + distance.max()) + distance
    cost[elsewhere] = cost.max() + 1
    row, column = divmod(int(cost.argmin()), overlap.shape[1])
    return row, column


@lru_cache(maxsize=16)  # of the size of images
def _distance_and_elsewhere(
    height: int, width: int, anchors: tuple[Position, ...], own: int
) -> tuple[Tensor, Tensor]:
    """Return squared distances from an anchor, and where another anchor is nearer."""
    rows, columns = torch.arange(height), torch.arange(width)
    # Integers, so that ties are exact; argmin then chooses the first anchor.
    distances = torch.stack(
        [(rows - row).square()[:, None] + (columns - column).square() for row, column in anchors]
    )
    return distances[own], distances.argmin(0) != own
