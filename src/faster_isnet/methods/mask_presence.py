"""Find out whether the batches of an epoch have any mask, without waiting for an accelerator."""

from __future__ import annotations

from torch import Tensor

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_MASK


class MaskPresence:
    """Keep whether any sample of the batches seen has a mask.

    Attributes
    ----------
    samples
        How many samples were seen.

    Examples
    --------
    >>> import torch
    >>> seen = MaskPresence()
    >>> seen.update(Batch(torch.rand(2, 3, 4, 4), torch.tensor([0, 1])))
    >>> seen.any
    False
    >>> seen.update(Batch(torch.rand(1, 3, 4, 4), torch.tensor([0]), torch.ones(1, 1, 4, 4)))
    >>> seen.any, seen.samples
    (True, 3)
    """

    def __init__(self) -> None:
        self.samples = 0
        self._found: Tensor | None = None

    def update(self, batch: Batch) -> None:
        """Look at a batch."""
        self.samples += len(batch.images)
        if batch.masks is not None:
            found = (batch.masks != NO_MASK).any()
            self._found = found if self._found is None else self._found | found

    @property
    def any(self) -> bool:
        """Whether a sample has a mask; reading it waits for the device."""
        return self._found is not None and bool(self._found)


def no_masks(samples: int) -> ValueError:
    """Return the error of an epoch of so many samples, none of which has a mask."""
    return ValueError(
        f"none of the {samples} samples of the first epoch has a mask, without which this method "
        "trains a standard classifier; give batches (images, labels, masks), or train without on "
        "purpose: method Standard()"
    )
