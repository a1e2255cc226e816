"""Images whose background is replaced, to see whether a classifier minds."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import gaussian_blur

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.data.dataset import Item

BLUR = 0.1
"""The standard deviation of the blur, as a share of the image's shorter side."""


class ReplacedBackground(Dataset[Item]):
    """A data set of images with another background; the foreground stays as it is, exactly.

    Items are as in ``dataset``; only images differ. What is drawn depends on ``seed`` and the
    item's index alone.

    Parameters
    ----------
    dataset
        Its items are ``(image [C, H, W] in [0, 1], label, mask [1, H, W])``, all of one size. All
        have a mask: of others take a :class:`torch.utils.data.Subset`.
    kind
        What takes the background's place. ``"blur"``: the background, blurred by :data:`BLUR`.
        ``"noise"``: uniform in [0, 1], the same in all channels. ``"zeros"``: black. ``"other
        image"``: the background of an image of another class, or if there is none, of another
        image. Where a background is wanted behind what was its image's foreground, it is filled
        in from around it: no foreground is seen in any background.
    labels
        Of all items of ``dataset``.
    seed
        Of the noise and the other images; ≥ 0.

    Raises
    ------
    ValueError
        If ``kind`` is unknown, there are not as many labels as items, the seed is negative, or
        another image is wanted and there is but one. At access: if an item has no mask.

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
        # Those of a class lie together, so that to draw from all others is to step over them.
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
            other, _, its_mask = self._read(self._draw_other(index, rng))
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
        return item

    def _draw_other(self, index: int, rng: np.random.Generator) -> int:
        """Return an item of another class, or if there is none, another one."""
        label_of = self._labels.__getitem__
        first, last = (
            bisect(self._by_class, label_of(index), key=label_of)
            for bisect in (bisect_left, bisect_right)
        )
        if last - first == len(self):
            first = self._by_class.index(index)
            last = first + 1
        drawn = int(rng.integers(len(self) - (last - first)))
        return self._by_class[drawn if drawn < first else drawn + last - first]


def _blurred(image: Tensor, mask: Tensor, rng: np.random.Generator | None = None) -> Tensor:
    """Blur the background alone; beyond the reach of that it is the background's mean."""
    weight = (mask != 1).to(image)
    deviation = BLUR * min(image.shape[1:])
    size = 2 * math.ceil(3 * deviation) + 1
    near = gaussian_blur(weight, [size, size], [deviation, deviation])
    blurred = gaussian_blur(image * weight, [size, size], [deviation, deviation])
    mean = (image * weight).sum((1, 2), keepdim=True) / weight.sum().clamp(min=1)
    reached = near > torch.finfo(image.dtype).eps
    return torch.where(reached, blurred / near.where(reached, 1), mean).clamp(0, 1)


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
"""What a background may be replaced by."""
