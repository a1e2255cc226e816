"""Make masks worse on purpose, to study what a training needs of them."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from faster_isnet.common.checks import check_range
from faster_isnet.data.masks import grow, shrink
from faster_isnet.data.samples import Sample, relative_name

_LARGEST = 0.5  # share of the side
_TOUCHING = np.ones((3, 3))  # pixels that touch at a corner are connected


@dataclass(frozen=True)
class WorseMasks:
    """Grow, shrink, box, shift and leave out masks, in this order; by default nothing is changed.

    All are meant for masks of training and validation: with which a method learns, as a user would
    who has no better ones. What is drawn depends on ``seed`` and the image's name only, not on the
    other images, the order or the access; which masks are left out depends on the names and labels
    of all. A mask never loses all of its foreground by a change.

    Parameters
    ----------
    grow, shrink
        Distance by which masks are dilated or eroded, as a share of the image's shorter side, in
        [0, 0.5]; with both, dilated masks are eroded. Eroded to nothing, the pixels that are
        farthest from the background remain.
    boxes
        Replace each connected part of the foreground by its bounding box.
    shift
        Distance by which a mask is shifted, in a random direction for each image, as a share of
        the shorter side, in [0, 0.5]. What leaves the image is lost; a mask that would leave it as
        a whole is shifted less.
    missing
        Share of the masks that are left out, in [0, 1]; the same share of each class, to within
        an image or two. Masks that are missing at one share are missing at all higher ones, too.
    seed
        Seed of the directions and of the choice of missing masks; ≥ 0.

    Raises
    ------
    TypeError
        If a number has another type.
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> mask = torch.zeros(1, 8, 8)
    >>> mask[:, 2:5, 3] = mask[:, 4, 3:6] = 1
    >>> int(mask.sum()), int(WorseMasks(boxes=True).worsen(mask, "an image").sum())
    (5, 9)
    >>> print(WorseMasks(grow=0.1, missing=0.5))
    grown by 0.1 of the side, missing for 50 % of the images
    """

    grow: float = 0.0
    shrink: float = 0.0
    boxes: bool = False
    shift: float = 0.0
    missing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all values."""
        for name in ("grow", "shrink", "shift"):
            check_range(f"worse_masks.{name}", getattr(self, name), 0, _LARGEST)
        check_range("worse_masks.missing", self.missing, 0, 1)
        check_range("worse_masks.seed", self.seed, 0)

    def __str__(self) -> str:
        """List the changes."""
        changes = [
            f"{what} by {share:g} of the side"
            for what, share in (("grown", self.grow), ("shrunk", self.shrink))
            if share
        ]
        if self.boxes:
            changes.append("bounding boxes")
        if self.shift:
            changes.append(f"shifted by {self.shift:g} of the side")
        if self.missing:
            changes.append(f"missing for {100 * self.missing:g} % of the images")
        return ", ".join(changes) or "unchanged"

    def worsen(self, mask: Tensor, name: str) -> Tensor:
        """Change a mask; whether it is missing is what :meth:`removed` tells.

        Parameters
        ----------
        mask
            ``[1, H, W]`` in {0, 1}; it is not changed in place.
        name
            Name of the image, which random changes are drawn by.

        Returns
        -------
        Tensor
            ``[1, H, W]`` in {0, 1}, with foreground; a mask without foreground is unchanged.

        Raises
        ------
        ValueError
            If a distance is less than a pixel.
        """
        if not bool((mask == 1).any()):
            return mask
        if self.grow:
            mask = grow(mask, self._pixels("grow", mask))
        if self.shrink:
            mask = shrink(mask, self._pixels("shrink", mask))
        if self.boxes:
            mask = _boxes(mask)
        if self.shift:
            angle = 2 * math.pi * self._uniform("direction", name)
            mask = _shifted(mask, self._pixels("shift", mask), angle)
        return mask

    def removed(self, labels: Mapping[str, Hashable]) -> frozenset[str]:
        """Choose the images whose masks are missing.

        Parameters
        ----------
        labels
            The label of each image that has a mask, by its name.

        Returns
        -------
        frozenset of str
            Names of round(``missing`` · N) of the N images, the same share of each label to
            within an image or two.
        """
        members = defaultdict(list)
        for name, label in labels.items():
            members[label].append((self._uniform("missing", name), name))
        order = []
        for label, drawn in members.items():
            # Spread evenly over [0, 1), so that the order can be cut anywhere.
            start = self._uniform("class", repr(label))
            order += [
                ((rank + start) / len(drawn), name) for rank, (_, name) in enumerate(sorted(drawn))
            ]
        count = round(self.missing * len(order))
        return frozenset(name for _, name in sorted(order)[:count])

    def _pixels(self, name: str, mask: Tensor) -> float:
        height, width = mask.shape[1:]
        share: float = getattr(self, name)
        pixels = share * min(height, width)
        if pixels < 1:
            raise ValueError(
                f"worse_masks.{name} {share:g} is less than a pixel in an image of {height} x "
                f"{width}; give {math.ceil(1000 / min(height, width)) / 1000:g} or more, or 0"
            )
        return pixels

    def _uniform(self, what: str, name: str) -> float:
        """Draw a number in [0, 1) by the seed and a name, the same in all processes."""
        digest = hashlib.sha256(f"{self.seed}\0{what}\0{name}".encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48


def removed_masks(
    worse_masks: WorseMasks, samples: Iterable[Sample], folder: str | Path | None
) -> list[str]:
    """Return the names of those samples whose masks are missing.

    Parameters
    ----------
    worse_masks
        Says how many.
    samples
        Those of one data set; of those without a mask none is chosen.
    folder
        What names are relative to where they are drawn by; ``None`` for whole names.
    """
    names = {relative_name(s, folder): s for s in samples if s.mask is not None}
    removed = worse_masks.removed({name: sample.label for name, sample in names.items()})
    return [sample.name for name, sample in names.items() if name in removed]


def _boxes(mask: Tensor) -> Tensor:
    parts, _ = ndimage.label((mask[0] == 1).numpy(), _TOUCHING)
    boxes = torch.zeros_like(mask)
    for rows, columns in ndimage.find_objects(parts):
        boxes[0, rows, columns] = 1
    return boxes


def _shifted(mask: Tensor, distance: float, angle: float) -> Tensor:
    """Shift a mask by whole pixels; by less, if nothing of it would stay in the image."""
    while True:
        rows, columns = (round(distance * part) for part in (math.sin(angle), math.cos(angle)))
        shifted = ndimage.shift(mask[0].numpy(), (rows, columns), order=0)
        if shifted.any():
            return torch.from_numpy(shifted)[None]
        distance -= 1
