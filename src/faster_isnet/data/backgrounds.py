"""Replace the background of images, to measure how much a classifier depends on it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.data.dataset import Item

BLUR = 0.1
"""The standard deviation of the blur, as a share of the image's shorter side."""


class ReplacedBackground(Dataset[Item]):
    """Replace the background of a data set's images; the foreground is unchanged, exactly.

    Items are ``(image, label, mask)``, those of ``dataset`` except for images, and without an
    attribute, which would be that of the background before. Random values depend only on ``seed``
    and the item's index.

    Parameters
    ----------
    dataset
        Its items are ``(image [C, H, W] in [0, 1], label, mask [1, H, W])``, all of one size, or
        have an attribute as well. All must have a mask: select them with
        :class:`torch.utils.data.Subset`.
    kind
        The new background. ``"blur"``: the background, blurred by :data:`BLUR`.
        ``"noise"``: uniform in [0, 1], the same in all channels. ``"zeros"``: black. ``"other
        image"``: the background of an image of another class, or if there is none, of any
        other image. The foreground of that image is filled in from its surroundings, so that no
        background contains foreground.
    labels
        The labels of all items of ``dataset``.
    seed
        Seed of the noise and of the choice of other images; ≥ 0.

    Raises
    ------
    ValueError
        If ``kind`` is unknown, there are not as many labels as items, the seed is negative, or
        ``kind`` is ``"other image"`` and there is only one. At access: if an item has no mask.

    Examples
    --------
    >>> items = [(torch.rand(1, 8, 8), torch.tensor(0), torch.ones(1, 8, 8))]
    >>> replaced = ReplacedBackground(items, "zeros", [0])
    >>> bool((replaced[0][0] == items[0][0]).all())  # it is all foreground
    True
    """

    def __init__(
        self, dataset: Dataset[Item], kind: str, labels: Sequence[Any], seed: int = 0
    ) -> None:
        self._dataset = dataset
        self._kind = check_choice("background", kind, BACKGROUNDS)
        self._seed = int(check_range("seed", seed, 0))
        count = len(dataset)  # type: ignore[arg-type]
        if len(labels) != count:
            raise ValueError(f"there are {len(labels)} labels for {count} images")
        if kind == OTHER and count < 2:
            raise ValueError(f"another image's background needs two images, got {count}")
        self._labels = [tuple(np.ravel(label).tolist()) for label in labels]
        # Sorted by class, so that sampling from the other classes skips one contiguous range.
        self._by_class = sorted(range(count), key=self._labels.__getitem__)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Item:
        """Return the item with its new background; raise ``IndexError`` beyond the end."""
        index = range(len(self))[index]
        image, label, mask = self._read(index)
        rng = np.random.default_rng((self._seed, index))
        if self._kind == OTHER:
            other, _, its_mask = self._read(self._sample_other(index, rng))
            background = torch.where(its_mask == 1, _blurred(other, its_mask), other)
        else:
            background = _FILLS[self._kind](image, mask, rng)
        return torch.where(mask == 1, image, background), label, mask

    def _read(self, index: int) -> Item:
        item = self._dataset[index]
        if not bool((item[2] == 1).any()):
            raise ValueError(
                f"item {index} has no mask, so no background; leave such items out: Subset"
            )
        return item[:3]

    def _sample_other(self, index: int, rng: np.random.Generator) -> int:
        """Sample an item of another class, or if there is none, any other item."""
        label_of = self._labels.__getitem__
        first, last = (
            bisect(self._by_class, label_of(index), key=label_of)
            for bisect in (bisect_left, bisect_right)
        )
        if last - first == len(self):
            first = self._by_class.index(index)
            last = first + 1
        sampled = int(rng.integers(len(self) - (last - first)))
        return self._by_class[sampled if sampled < first else sampled + last - first]


def blurred_backgrounds(images: Tensor, masks: Tensor) -> Tensor:
    """Blur backgrounds without the foreground; far inside the foreground, use the mean.

    Parameters
    ----------
    images
        ``[B, C, ...]``, with any number of spatial dimensions.
    masks
        ``[B, 1, ...]``: 1 in the foreground.

    Returns
    -------
    Tensor
        ``[B, C, ...]``, within the range of each image: the background, blurred by :data:`BLUR`
        and continued into the foreground.

    Examples
    --------
    >>> images = torch.tensor([0.2, 0.2, 0.9, 0.2]).reshape(1, 1, 4)
    >>> blurred_backgrounds(images, (images > 0.5).float())
    tensor([[[0.2000, 0.2000, 0.2000, 0.2000]]])
    """
    weight = (masks != 1).to(images)
    spatial = tuple(range(2, images.dim()))
    deviation = BLUR * min(images.shape[2:])
    with torch.autocast(images.device.type, enabled=False):  # few digits would be seen
        near, blurred = _blur(weight, deviation), _blur(images * weight, deviation)
    mean = (images * weight).sum(spatial, keepdim=True)
    mean = mean / weight.sum(spatial, keepdim=True).clamp(min=1)
    reached = near > torch.finfo(images.dtype).eps
    filled = torch.where(reached, blurred / near.where(reached, 1), mean)
    every = (1, *spatial)
    return filled.clamp(images.amin(every, keepdim=True), images.amax(every, keepdim=True))


def _blur(values: Tensor, deviation: float) -> Tensor:
    """Convolve ``[B, C, ...]`` with a Gaussian, one dimension after another.

    As matrices, since a kernel is as long as half of the image: on ten images of 224 × 224 that is
    a hundred times faster than a convolution with all of its kernel.
    """
    radius = math.ceil(3 * deviation)
    offsets = torch.arange(-radius, radius + 1).to(values)
    kernel = (-(offsets**2) / (2 * deviation**2)).softmax(0)
    for dim in range(2, values.dim()):
        if (length := values.shape[dim]) == 1:
            continue
        pixels = torch.eye(length).to(values)
        reflected = F.pad(pixels, (radius, radius), mode="reflect")
        weights = F.conv1d(reflected[:, None], kernel[None, None])[:, 0]
        values = (values.movedim(dim, -1) @ weights).movedim(-1, dim)
    return values


def _blurred(image: Tensor, mask: Tensor, rng: np.random.Generator | None = None) -> Tensor:
    return blurred_backgrounds(image[None], mask[None])[0]


def _noise(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:
    values = rng.random((1, *image.shape[1:]), dtype=np.float32)
    return torch.from_numpy(values).to(image).expand_as(image)


def _zeros(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:
    return torch.zeros_like(image)


_FILLS: dict[str, Callable[[Tensor, Tensor, np.random.Generator], Tensor]] = {
    "blur": _blurred,
    "noise": _noise,
    "zeros": _zeros,
}
OTHER = "other image"
BACKGROUNDS = (*_FILLS, OTHER)
"""The kinds of new backgrounds."""
