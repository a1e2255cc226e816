"""Keep backgrounds of earlier batches."""

from __future__ import annotations

import torch
from torch import Tensor

from faster_isnet.common.checks import check_range


class BackgroundPool:
    """Keep the backgrounds of the last images, to be drawn for those of later batches.

    They lie where the images do, as they are: 64 images of 3 × 224 × 224 take 39 MB. Nothing waits
    for an accelerator.

    Parameters
    ----------
    size
        How many are kept, ≥ 1; the oldest ones are replaced.

    Examples
    --------
    >>> pool = BackgroundPool(2)
    >>> pool.draw(torch.zeros(1, 1, 2)).tolist()  # nothing is kept yet
    [[[0.0, 0.0]]]
    >>> pool.add(torch.ones(1, 1, 2), torch.tensor([True]))
    >>> pool.draw(torch.zeros(1, 1, 2)).tolist()
    [[[1.0, 1.0]]]
    """

    def __init__(self, size: int) -> None:
        self.size = int(check_range("size", size, 1))
        self._kept: Tensor | None = None
        self._added = torch.zeros((), dtype=torch.long)

    def draw(self, otherwise: Tensor) -> Tensor:
        """Draw a background for each image, with replacement.

        Parameters
        ----------
        otherwise
            ``[B, C, ...]``: what is returned while there is none of this shape.
        """
        kept = self._kept
        if kept is None or not _alike(kept, otherwise):
            return otherwise
        number = self._added.clamp(max=self.size)
        drawn = (torch.rand(len(otherwise)).to(kept.device) * number).long()
        return torch.where(number > 0, kept[drawn], otherwise)

    def add(self, backgrounds: Tensor, lends: Tensor) -> None:
        """Add backgrounds; those of another shape are dropped.

        Parameters
        ----------
        backgrounds
            ``[B, C, ...]``.
        lends
            ``[B]``, boolean: which of them are backgrounds.
        """
        backgrounds, lends = backgrounds[-self.size :].detach(), lends[-self.size :]
        if self._kept is None or not _alike(self._kept, backgrounds):
            # The last row takes what is no background.
            self._kept = backgrounds.new_zeros(self.size + 1, *backgrounds.shape[1:])
            self._added = torch.zeros_like(lends, dtype=torch.long).sum()
        places = (self._added + lends.cumsum(0) - 1) % self.size
        self._kept.index_copy_(0, torch.where(lends, places, self.size), backgrounds)
        self._added = self._added + lends.sum()


def _alike(kept: Tensor, backgrounds: Tensor) -> bool:
    """Whether backgrounds may lie in one tensor."""
    return (
        kept.shape[1:] == backgrounds.shape[1:]
        and kept.dtype == backgrounds.dtype
        and kept.device == backgrounds.device
    )
