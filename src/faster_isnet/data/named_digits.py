"""Give generated digits names, so that they can be evaluated like images of files."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from faster_isnet.data.dataset import Item
from faster_isnet.data.samples import Sample


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """Read an image, or its mask, from a data set that generates them.

    Parameters
    ----------
    dataset
        Its items are ``(image, label, mask, attribute)``.
    index
        Of the item; its number is the image's name.
    """

    dataset: Dataset[tuple[Tensor, int, Tensor, int]]
    index: int

    def read_image(self) -> Tensor:
        """Generate the image, ``[C, H, W]``."""
        return self.dataset[self.index][0]

    def read_mask(self, size: tuple[int, int]) -> Tensor:
        """Generate the mask, ``[1, H, W]``."""
        return self.dataset[self.index][2]

    def __str__(self) -> str:
        """Return the number of the item."""
        return f"{self.index:05}"


class NamedDigits(Dataset[Item]):
    """Name generated digits by their numbers, and return labels and attributes as tensors.

    Parameters
    ----------
    dataset
        :class:`~faster_isnet.data.BiasedDigits`.
    labels
        ``[N]``, the labels of all digits.
    without_mask
        Indices of those that have no mask.
    """

    def __init__(
        self,
        dataset: Dataset[tuple[Tensor, int, Tensor, int]],
        labels: Tensor,
        without_mask: Collection[int] = (),
    ) -> None:
        self._dataset, self._labels, self._without_mask = dataset, labels, without_mask

    @cached_property
    def samples(self) -> list[Sample]:
        """A sample for each digit."""
        images = [GeneratedImage(self._dataset, index) for index in range(len(self))]
        pairs = zip(images, self._labels.tolist(), strict=True)
        return [
            Sample(image, label, None if image.index in self._without_mask else image)
            for image, label in pairs
        ]

    def __len__(self) -> int:
        """Return the number of digits."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Item:
        """Return ``(image, label, mask, attribute)``; raise ``IndexError`` beyond the end."""
        image, label, mask, attribute = self._dataset[index]
        return image, torch.tensor(label), mask, torch.tensor(attribute)
