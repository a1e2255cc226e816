"""The standard classifier: trained on images and labels alone."""

from __future__ import annotations

from torch import nn

from faster_isnet.common.batch import Batch
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.mixing import MIXINGS


class Standard(Method):
    """Train the classifier without masks: the baseline of all others.

    Where images are mixed (``mixing``), labels are mixed by area, as in the papers: masks are not
    used there either.

    Parameters
    ----------
    classification
        The classification loss; ``None`` for cross-entropy.

    Examples
    --------
    >>> import torch
    >>> batch = Batch(torch.rand(4, 12), torch.tensor([0, 1, 1, 0]))
    >>> Standard().losses(nn.Linear(12, 2), batch).logits.shape
    torch.Size([4, 2])
    """

    name = "standard"
    mixings = MIXINGS

    def __init__(self, classification: ClassificationLoss | None = None) -> None:
        super().__init__(classification)

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the classification loss."""
        logits = network(batch.images)
        loss = self.classification(logits, batch.labels)
        return Losses(loss, logits, loss)

    def reads_masks(self) -> bool:
        """No mask is used."""
        return False
