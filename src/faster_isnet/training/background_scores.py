"""Score a classifier on validation images with replaced backgrounds, to choose the best epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from faster_isnet.common.batch import Batch
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32
from faster_isnet.data.backgrounds import BACKGROUNDS
from faster_isnet.data.batch_backgrounds import BatchBackgrounds
from faster_isnet.methods.base import Method
from faster_isnet.training.logged_values import accuracy_of, stage_of_loader

log = logging.getLogger(__name__)

ERROR, WORST_ACCURACY = "background_error", "worst_accuracy"
MONITOR = f"val/{ERROR}"
"""What the best epoch is chosen by, unless another value is named: the lowest."""
_AS_THEY_ARE = "none"
_KINDS = (_AS_THEY_ARE, *BACKGROUNDS)
_SHARDING = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)


class BackgroundScores(lightning.Callback):
    """Score the classifier on validation images with replaced backgrounds, and log the result.

    Validation images have the bias of the training images, so their accuracy is highest, and their
    loss lowest, where the classifier has learnt the bias. So the network that is deployed, which
    is given what it is given in a test, also predicts the images that have a mask on other
    backgrounds: blurred, noise, black, and that of an image of another class, see
    :class:`~faster_isnet.data.batch_backgrounds.BatchBackgrounds`. Logged are, besides the values
    of the images as they are, which count as a kind of background of their own:

    - ``val/accuracy_blur``, ``_noise``, ``_zeros`` and ``_other_image``, for those that there are;
    - ``val/worst_accuracy``, the lowest accuracy of a kind, ``val/accuracy`` included;
    - ``val/background_error``, the value to monitor: 1 − the geometric mean of 1 − e over the
      kinds' errors e.

    The error of a kind is the mean over all images of 1 − p, p being the probability of the label
    (see :func:`expected_errors`). It says what accuracy says, but has no steps: of a hundred
    images accuracy has a hundred and one values, and epochs are often level. Cross-entropy has no
    steps either, but no bound: a few images of noise that the classifier is sure of would count for
    more than all others. It and the Brier score also prefer, on a background where a network is at
    chance, one that has not learnt anything yet to one that is sure of itself.

    The worst kind alone would not do: some trainings end at chance on noise, whatever the epoch,
    and then chance, or the first epoch, would decide. Nor would the mean, in which a classifier
    that another class's background misleads makes up for it by reading the others. In a geometric
    mean half of the accuracy lost on one kind counts as much as on any other, and a kind that is
    never learnt is the same factor in all epochs. Since a lower value is better, the default mode
    of Lightning's ``ModelCheckpoint`` and ``EarlyStopping`` is right.

    Of several validation loaders that called ``"val"`` counts, or the first. Where no image has a
    mask, both are those of the images as they are, and a log line says so; likewise where
    processes share the weights (FSDP), which would have to predict equally many batches.

    Parameters
    ----------
    method
        Of the training.

    Examples
    --------
    >>> from lightning.pytorch.callbacks import ModelCheckpoint
    >>> ModelCheckpoint("checkpoints", "best", monitor=MONITOR).mode
    'min'
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self._method = method
        self._start()
        self._has_told = False

    def _start(self) -> None:
        self._sums: dict[str, Tensor] = {}  # images, and sums of accuracies and errors
        self._backgrounds = BatchBackgrounds()

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin anew."""
        self._start()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Predict the batch on other backgrounds."""
        if dataloader_idx != _main_loader(trainer.val_dataloaders):
            return
        batch = Batch.of(batch)
        labels, samples = batch.needed("labels"), outputs["samples"]
        self._add(_AS_THEY_ARE, outputs["logits"], labels if samples is None else labels[samples])
        if isinstance(trainer.strategy, _SHARDING):
            return
        network = self._method.deployed(pl_module.net)  # type: ignore[arg-type]
        with trainer.precision_plugin.forward_context():
            for kind, replaced in self._backgrounds.replaced(batch, seed=batch_idx):
                logits = network(self._method.inputs(replaced))
                self._add(kind, logits, replaced.needed("labels"))

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Log the means of all processes, and the worst of them."""
        none = torch.zeros(3, device=pl_module.device)
        sums = torch.stack([self._sums.get(kind, none) for kind in _KINDS])
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
        self._start()  # frees the images
        kinds = [kind for kind, count in zip(_KINDS, sums[:, 0].tolist(), strict=True) if count]
        if not kinds:
            return
        self._tell_once(trainer, kinds)
        sums = sums[sums[:, 0] > 0]
        _, accuracies, errors = (sums / sums[:, :1]).unbind(1)
        loaders = trainer.val_dataloaders
        stage = stage_of_loader("val", loaders, _main_loader(loaders))
        found = {f"{stage}/{ERROR}": 1 - (1 - errors).log().mean().exp()}
        for kind, accuracy in zip(kinds, accuracies, strict=True):
            if kind != _AS_THEY_ARE:
                found[f"{stage}/accuracy_{kind.replace(' ', '_')}"] = accuracy
        pl_module.log(f"{stage}/{WORST_ACCURACY}", accuracies.min(), prog_bar=True, sync_dist=True)
        pl_module.log_dict(found, sync_dist=True)

    def _add(self, kind: str, logits: Tensor, labels: Tensor) -> None:
        task, count = self._method.task, len(labels)
        accuracy = accuracy_of(logits, labels, task)
        error = expected_errors(logits, labels, task).mean()
        new = count * torch.stack([torch.ones_like(error), accuracy.to(error), error]).float()
        self._sums[kind] = new if kind not in self._sums else self._sums[kind] + new

    def _tell_once(self, trainer: lightning.Trainer, kinds: list[str]) -> None:
        if kinds != [_AS_THEY_ARE] or self._has_told or trainer.sanity_checking:
            return
        self._has_told = True
        sharded = isinstance(trainer.strategy, _SHARDING)
        log.info(
            "%s, so %s and %s are those of validation images as they are, with whatever bias these "
            "have",
            "The weights are sharded" if sharded else "No validation image has a mask",
            *(f"val/{WORST_ACCURACY}", MONITOR),
        )


def expected_errors(logits: Tensor, labels: Tensor, task: str = "multiclass") -> Tensor:
    """Compute for each sample the probability that is given to what is wrong.

    That is the error to expect if a class is drawn by the probabilities: 1 − Σ_k p_k y_k for
    multi-class, and the mean over the labels of |p_k − y_k| for multi-label.

    Parameters
    ----------
    logits
        ``[B, C]``, or ``[B]`` or ``[B, 1]`` of a network with a single logit.
    labels
        ``[B]`` int64, or ``[B, C]`` in [0, 1].
    task
        ``"multiclass"`` or ``"multilabel"``.

    Returns
    -------
    Tensor
        ``[B]`` in [0, 1].

    Examples
    --------
    >>> expected_errors(torch.tensor([[0.0, 0.0], [9.0, -9.0]]), torch.tensor([0, 1]))
    tensor([0.5000, 1.0000])
    """
    logits = at_least_float32(class_logits(logits, task))
    if task == "multilabel":
        return (logits.sigmoid() - labels.to(logits)).abs().mean(1)
    target = labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1])
    return 1 - (logits.softmax(1) * target.to(logits)).sum(1)


def _main_loader(loaders: Any) -> int:
    """Return the position of the loader called ``"val"``, or else of the first."""
    names = list(loaders) if isinstance(loaders, Mapping) else []
    return names.index("val") if "val" in names else 0
