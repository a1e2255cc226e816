"""Show each image with other backgrounds, all kinds of them together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from faster_isnet.common.checks import check_range
from faster_isnet.data.backgrounds import OTHER, ReplacedBackground, blurred_backgrounds
from faster_isnet.data.dataset import Item
from faster_isnet.data.masks import grow, shrink

SYNTHETIC = ("blur", "noise", "zeros")
"""Kinds of backgrounds that no photograph has."""
ANOTHER_IMAGE, ANOTHER_CLASS = "another image", "another class"
UNCHANGED, FOREGROUND_REMOVED = "unchanged", "foreground removed"
GROWN, SHRUNK = "masks grown", "masks shrunk"
MASK_CHANGES = (GROWN, SHRUNK)
ENLARGED = "enlarged"
"""A harmless change of the whole image, for comparison: foreground and background stay together."""
ENLARGEMENT = 0.1
"""By how much the image is enlarged, as a share of its sides."""
_REMEMBERED = 8


class ImageVariants(Dataset[tuple[Tensor, Tensor]]):
    """Show each image as it is, with other backgrounds, enlarged, and without its foreground.

    An item is ``(images [V, C, H, W], masks [3, 1, H, W])``: the image by :attr:`names`, and its
    mask as it is, grown and shrunk. It depends on ``seed`` and the item's index alone.

    Parameters
    ----------
    images
        Items ``(image [C, H, W] in [0, 1], label, mask [1, H, W])``; all must have a mask.
    predicted
        What each image is predicted as. The background of :data:`ANOTHER_CLASS` is of an image that
        is predicted as something else; without two kinds of predictions that is left out.
    mask_change
        By how much masks are grown and shrunk, as a share of the square root of their area, in
        [0, 0.5]. With either, the background becomes that of another class, or, if that is left
        out, of another image.
    seed
        Seed of noise and of the choice of other images, ≥ 0.

    Attributes
    ----------
    names
        Of the V variants, in order: :data:`UNCHANGED`, the kinds of backgrounds,
        :data:`FOREGROUND_REMOVED`, :data:`ENLARGED` (by :data:`ENLARGEMENT`), :data:`GROWN`,
        :data:`SHRUNK`.
    realistic
        The kind of background that comes closest to what differs between classes:
        :data:`ANOTHER_CLASS`, or :data:`ANOTHER_IMAGE`.

    Raises
    ------
    ValueError
        If there are fewer than two images, not as many predictions as images, or a number is out
        of range.

    Examples
    --------
    >>> mask = torch.zeros(1, 8, 8)
    >>> mask[:, 2:6, 2:6] = 1
    >>> items = [(torch.rand(3, 8, 8), 0, mask) for _ in range(2)]
    >>> variants = ImageVariants(items, [0, 1], mask_change=0.25)
    >>> variants[0][0].shape, variants.realistic
    (torch.Size([10, 3, 8, 8]), 'another class')
    """

    def __init__(
        self, images: Dataset[Item], predicted: Sequence[Any], mask_change: float, seed: int = 0
    ) -> None:
        check_range("mask_change", mask_change, 0, 0.5)
        self._images = _Remembered(images)
        anything = [0] * len(predicted)
        several = len({str(each) for each in predicted}) > 1
        self.realistic = ANOTHER_CLASS if several else ANOTHER_IMAGE
        labels = predicted if several else anything
        self._replaced: dict[str, Dataset[Item]] = {
            **{kind: ReplacedBackground(self._images, kind, anything, seed) for kind in SYNTHETIC},
            ANOTHER_IMAGE: ReplacedBackground(self._images, OTHER, anything, seed),
        }
        if several:
            self._replaced[ANOTHER_CLASS] = ReplacedBackground(self._images, OTHER, labels, seed)
        self._by_changed_masks = {}
        for name, change in ((GROWN, grow), (SHRUNK, shrink)):
            changed = _ChangedMasks(self._images, change, mask_change)
            self._by_changed_masks[name] = ReplacedBackground(changed, OTHER, labels, seed)
        self.names = (
            UNCHANGED,
            *self._replaced,
            FOREGROUND_REMOVED,
            ENLARGED,
            *self._by_changed_masks,
        )

    @property
    def backgrounds(self) -> tuple[str, ...]:
        """The kinds of backgrounds."""
        return tuple(self._replaced)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the variants of an image and its masks; raise ``IndexError`` beyond the end."""
        image, _, mask = self._images[index][:3]
        replaced = [each[index][0] for each in self._replaced.values()]
        by_changed = [each[index] for each in self._by_changed_masks.values()]
        removed = torch.where(mask == 1, blurred_backgrounds(image[None], mask[None])[0], image)
        shown = [image, *replaced, removed, enlarged(image, ENLARGEMENT)]
        shown += [changed for changed, _, _ in by_changed]
        return torch.stack(shown), torch.stack([mask, *(changed for _, _, changed in by_changed)])


def enlarged(image: Tensor, share: float) -> Tensor:
    """Enlarge an image about its centre by linear interpolation; its edges are cut off.

    Parameters
    ----------
    image
        ``[C, H, W]``.
    share
        By how much, of its sides, ≥ 0.

    Returns
    -------
    Tensor
        ``[C, H, W]``, within the range of the image.

    Examples
    --------
    >>> enlarged(torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), 1)
    tensor([[[0.7500, 1.2500, 1.7500, 2.2500]]])
    """
    shown = 1 / (1 + share)
    transformation = torch.tensor([[[shown, 0, 0], [0, shown, 0]]]).to(image)
    grid = F.affine_grid(transformation, [1, *image.shape], align_corners=False)
    # Centres of pixels at the edges may lie beyond those of the image by a rounding error.
    found = F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)
    return found[0]


class _Remembered(Dataset[Item]):
    """Keep the last items, since one is asked for once for each kind of background."""

    def __init__(self, images: Dataset[Item]) -> None:
        self._images = images
        self._last: OrderedDict[int, Item] = OrderedDict()

    def __len__(self) -> int:
        return len(self._images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Item:
        if index not in self._last:
            self._last[index] = self._images[index]
            if len(self._last) > _REMEMBERED:
                self._last.popitem(last=False)
        return self._last[index]


class _ChangedMasks(Dataset[Item]):
    """Grow or shrink the mask of each image by a share of its own size."""

    def __init__(
        self, images: Dataset[Item], change: Callable[[Tensor, float], Tensor], share: float
    ) -> None:
        self._images, self._change, self._share = images, change, share

    def __len__(self) -> int:
        return len(self._images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Item:
        image, label, mask = self._images[index][:3]
        margin = self._share * float((mask == 1).sum()) ** 0.5
        return image, label, self._change(mask, margin)
