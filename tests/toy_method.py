"""Methods as a user would write them: the background is made black."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from faster_isnet.methods import Batch, Losses, Method


class BlackBackground(Method):
    """Train on images whose background becomes black, the more the longer it takes.

    Parameters
    ----------
    epochs
        After how many the background is black.
    """

    needs_gradients_in_validation = True  # to show that it may

    def __init__(self, epochs: int = 2) -> None:
        super().__init__()
        self.epochs, self.epoch, self.seen = epochs, 0, 0

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        images = batch.images.requires_grad_()
        darkness = min(self.epoch / self.epochs, 1)
        logits = network(images * (1 - darkness * (batch.masks == 0)))
        loss = self.classification(logits, batch.labels)
        self.seen += len(images) * self.training
        return Losses(loss, logits, loss, {"darkness": loss.new_tensor(darkness)})

    def set_progress(self, epoch: int, step: int) -> None:
        self.epoch = epoch

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: Any) -> None:
        self.seen = state["seen"]


class ForegroundOnly(Method):
    """Train and test on the foreground alone."""

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        logits = network(self.inputs(batch))
        loss = self.classification(logits, batch.labels)
        return Losses(loss, logits, loss)

    def inputs(self, batch: Batch) -> Tensor:
        return batch.images * (batch.masks != 0)
