"""Find after a training what did not converge, and say what to do."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import lightning
import torch
from torch import Tensor

from faster_isnet.common.batch import Batch
from faster_isnet.methods.base import Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.training.frozen_backbone import ALL_EPOCHS

log = logging.getLogger(__name__)

_AT_CHANCE = 0.98  # of chance; the mean of an epoch varies by less
_FLAT = 0.95  # of its first epoch
_SMALL = 0.05  # a part below it has nowhere to fall to
_FEWEST_EPOCHS = 3
_OFTEN = 0.5
_SAMPLES = 1000


class ConvergenceChecks(lightning.Callback):
    """Compare the losses of the last epoch with chance and with the first epoch, and warn.

    The classification loss is at chance if it is above 98 % of what the frequencies of the classes
    alone give, see :func:`chance_loss`. So is the accuracy on validation images if it is not above
    that of guessing among all classes equally. A part of the loss that ought to fall
    (:attr:`~faster_isnet.methods.Method.falling_parts`) is flat if after three epochs or more it is
    above 95 % of its value in the first epoch that had it, which is a mean over that epoch and so
    has begun to fall; and above 0.05, below which there is little to fall. Shares of validation
    images (:attr:`~faster_isnet.methods.Method.rare_parts`) are too large above a half.

    Parameters
    ----------
    method
        Of the training.
    frozen_epochs
        For how many epochs the backbone is frozen, ``-1`` for all: a head alone can hardly do what
        these parts ask for, so epochs are compared with the first after these.

    Attributes
    ----------
    warnings : list of str
        What was found at the end of the training.
    """

    def __init__(self, method: Method, frozen_epochs: int = 0) -> None:
        super().__init__()
        self._method = method
        self._begin = math.inf if frozen_epochs == ALL_EPOCHS else frozen_epochs
        self._first: dict[str, tuple[int, float]] = {}  # epoch and value
        self._labels: list[Tensor] = []
        self._last: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._accuracy = math.inf
        self.warnings: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the values of the first epoch."""
        return {"first": {name: list(value) for name, value in self._first.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the values of the first epoch."""
        first = state_dict.get("first", {})
        self._first = {name: (int(epoch), float(value)) for name, (epoch, value) in first.items()}

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Forget the labels of the epoch before."""
        self._labels.clear()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the labels, of several classes each their mean."""
        labels = Batch.of(batch).needed("labels")
        self._labels.append(labels if labels.dim() == 1 else labels.float().mean(0, keepdim=True))

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Keep the means of the epoch."""
        metrics = trainer.callback_metrics
        names = ("classification", *self._method.falling_parts)
        self._last = {n: float(metrics[f"train/{n}"]) for n in names if f"train/{n}" in metrics}
        self._accuracy = float(metrics.get("val/accuracy", math.inf))
        shares = (f"val/{name}" for name in self._method.rare_parts)
        self._shares = {name: float(metrics[name]) for name in shares if name in metrics}
        for name, value in self._last.items():
            if value > 0 and trainer.current_epoch >= self._begin:
                self._first.setdefault(name, (trainer.current_epoch, value))

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Warn of what has not converged."""
        self.warnings = []
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        flat = self._flat(trainer.current_epoch - 1)
        self.warnings = [*self._at_chance(), *self._guesses(), *flat, *self._too_often()]
        if trainer.is_global_zero:
            for warning in self.warnings:
                log.warning("%s", warning)

    def _at_chance(self) -> Iterable[str]:
        value = self._last.get("classification", math.nan)
        if not self._labels:
            return
        chance = chance_loss(self._method.classification, torch.cat(self._labels).cpu())
        if chance is not None and value >= _AT_CHANCE * chance:
            yield (
                f"the classification loss of the last epoch, {value:.3g}, is not better than "
                f"chance, {chance:.3g}: nothing has been learnt about the classes. Train for more "
                "epochs (--trainer.max_epochs), try another learning rate "
                "(--model.learning_rate), and check that the labels belong to the images"
            )

    def _guesses(self) -> Iterable[str]:
        if not self._labels or self._labels[0].dim() > 1:  # accuracy of several labels is each's
            return
        classes = max(2, int(torch.cat(self._labels).max()) + 1)
        if self._accuracy <= 1 / classes:
            yield (
                f"val/accuracy after the last epoch, {self._accuracy:.3g}, is not better than "
                f"guessing among {classes} classes. Train for more epochs (--trainer.max_epochs), "
                "with a smaller weight of other losses than the classification's if the method has "
                "one (--method.loss.heatmap_weight), and check the validation images' labels"
            )

    def _flat(self, epoch: int) -> Iterable[str]:
        for name, cure in self._method.falling_parts.items():
            first, before = self._first.get(name, (epoch, math.inf))
            value = self._last.get(name, 0.0)
            if epoch - first + 1 >= _FEWEST_EPOCHS and value >= max(_FLAT * before, _SMALL):
                yield (
                    f"the {name} loss of the last epoch, {value:.3g}, has hardly fallen since "
                    f"epoch {first}, {before:.3g}: the method has not done its work. {cure}"
                )

    def _too_often(self) -> Iterable[str]:
        for name, cure in self._method.rare_parts.items():
            share = self._shares.get(f"val/{name}", 0.0)
            if share > _OFTEN:
                yield (
                    f"val/{name} is {share:.2g} after the last epoch, above {_OFTEN:g}: that many "
                    f"of the validation images are not as the loss wants them. {cure}"
                )


def chance_loss(loss: ClassificationLoss, labels: Tensor) -> float | None:
    """Compute the classification loss of a network that knows the classes' frequencies alone.

    For cross-entropy that is the entropy of the labels, log K for K classes of one size. With class
    weights it is the loss of equal logits if that is lower.

    Parameters
    ----------
    loss
        With its options.
    labels
        ``[N]`` int64, or ``[N, C]`` in [0, 1], of which the mean counts.

    Returns
    -------
    float or None
        ``None`` for a custom function, which may depend on anything.

    Examples
    --------
    >>> round(chance_loss(ClassificationLoss(), torch.tensor([0, 1, 0, 1])), 4)  # log 2
    0.6931
    """
    if loss.function is not None:
        return None
    if labels.dim() == 1:
        classes = 0 if loss.class_weights is None else len(loss.class_weights)
        counts = labels.bincount(minlength=max(2, classes)).double()
        frequencies = counts / counts.sum()
        labels = torch.arange(len(counts)).repeat_interleave((frequencies * _SAMPLES).ceil().long())
    else:
        frequencies = labels.double().mean(0)
        labels = frequencies[None]
    tiny = 1e-9
    frequencies = frequencies.clamp(tiny, 1 - tiny)
    logits = frequencies.logit() if loss.task == "multilabel" else frequencies.log()
    constants = (logits, torch.zeros_like(logits))
    return min(float(loss(each.expand(len(labels), -1), labels)) for each in constants)
