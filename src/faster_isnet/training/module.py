"""Training an ISNet, or the plain classifier beside it, with Lightning."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_accuracy

from faster_isnet.common.checks import (
    check_choice,
    check_image_values,
    check_mask_values,
    check_range,
)
from faster_isnet.methods.isnet.calibration import CutCalibration
from faster_isnet.methods.isnet.cuts import Cuts
from faster_isnet.methods.isnet.loss import ISNetLoss, LossParts
from faster_isnet.methods.isnet.network import ISNet

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

Batch = Sequence[Tensor]
"""``(images, labels)`` or ``(images, labels, masks)``."""


class LitISNet(lightning.LightningModule):
    """An ISNet as a Lightning module.

    Batches are ``(images, labels, masks)``, or ``(images, labels)`` where no sample has a mask.
    With ``criterion.heatmap_weight == 0`` it trains the plain classifier, and no relevance is
    computed at all.

    Logs ``train/loss``, ``train/classification``, ``train/heatmap`` and ``train/accuracy``, and
    the same under ``val/`` and ``test/``; with several loaders under ``val/NAME/``, NAME being the
    loader's key if they are given as a dict (``"val"`` itself goes without), its number if as a
    list. All are means over the samples of all processes. Checkpoints hold the state of each
    process's random number generators, so that a resumed run of as many processes goes on as if it
    had not stopped.

    Parameters
    ----------
    net
        What to train.
    criterion
        The loss; ``None`` for :class:`~faster_isnet.ISNetLoss` with its defaults.
    optimizer
        ``"sgd"``, ``"adam"`` or ``"adamw"``.
    learning_rate
        The learning rate of the first epoch, > 0.
    momentum
        Of SGD, in [0, 1].
    weight_decay
        ≥ 0.
    milestones, gamma
        The epochs after which the learning rate is multiplied by ``gamma``.
    gradient_clip
        The largest norm of the gradient; ``None`` for no clipping. Lightning's own
        ``Trainer(gradient_clip_val=…)`` goes before it.
    heatmap_weight_schedule
        P by epoch, as ``{epoch: P}``: linear between the epochs named, constant outside of them.
        ``None`` keeps the criterion's weight.
    calibration_epochs
        With ``ISNetLoss(cut_low="auto")``: for how long the plain classifier is trained that C1
        and C2 are calibrated on, see :class:`~faster_isnet.CutCalibration`.
    supervised_part
        In (0, 1]: of each training batch, the share of samples that are explained, drawn anew and
        rounded up; all count for the classification. Below 1 a step is cheaper and resists bias
        a little less (``docs/results/speed.md``), and batch norm sees the batch in two parts.
    supervise_every
        k ≥ 1: only every k-th optimiser step, from the first on, has a heatmap loss. Above 1
        training is cheaper and may resist no bias at all: the demo's does not. 1 for every step.

    Raises
    ------
    TypeError
        If ``net`` is not an :class:`~faster_isnet.ISNet`.
    ValueError
        If a name is unknown or a number is out of range.
    FloatingPointError
        In training, if a loss is not finite: names the batch and the part. Checkpoints that were
        written before are left as they are.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> lit = LitISNet(ISNet(resnet18(num_classes=3)), optimizer="adamw", learning_rate=1e-3)
    >>> lit.criterion.heatmap_weight
    0.7
    """

    def __init__(
        self,
        net: ISNet,
        criterion: ISNetLoss | None = None,
        *,
        optimizer: str = "sgd",
        learning_rate: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        milestones: Sequence[int] = (),
        gamma: float = 0.1,
        gradient_clip: float | None = 1.0,
        heatmap_weight_schedule: Mapping[int, float] | None = None,
        calibration_epochs: int = 3,
        supervised_part: float = 1.0,
        supervise_every: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(net, ISNet):
            raise TypeError(
                f"net must be an ISNet, got {type(net).__name__}; wrap your model: ISNet(model)"
            )
        self.net = net
        self.criterion = ISNetLoss() if criterion is None else criterion
        self.optimizer_name = check_choice("optimizer", optimizer, OPTIMIZERS)
        self.learning_rate = check_range("learning_rate", learning_rate, 0, open_low=True)
        self.momentum = check_range("momentum", momentum, 0, 1)
        self.weight_decay = check_range("weight_decay", weight_decay, 0)
        self.milestones = list(milestones)
        self.gamma = check_range("gamma", gamma, 0, 1, open_low=True)
        if gradient_clip is not None:
            check_range("gradient_clip", gradient_clip, 0, open_low=True)
        self.gradient_clip = gradient_clip
        self.calibration_epochs = int(check_range("calibration_epochs", calibration_epochs, 1))
        self.supervised_part = check_range("supervised_part", supervised_part, 0, 1, open_low=True)
        self.supervise_every = int(check_range("supervise_every", supervise_every, 1))
        self.heatmap_weight_schedule = dict(heatmap_weight_schedule or {})
        for epoch, weight in self.heatmap_weight_schedule.items():
            check_range(f"heatmap_weight_schedule[{epoch}]", weight, 0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of ``images``."""
        return self.net(images)  # type: ignore[no-any-return]

    def on_train_epoch_start(self) -> None:
        """Set P by its schedule."""
        if schedule := self.heatmap_weight_schedule:
            epochs = sorted(schedule)
            weights = [schedule[epoch] for epoch in epochs]
            self.criterion.heatmap_weight = float(np.interp(self.current_epoch, epochs, weights))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Look at values that go to an accelerator: there it would hold up the training."""
        # On a CPU the training step looks. What is only predicted has no labels.
        if self.device.type == "cpu" or isinstance(batch, Tensor) or len(batch) < 2:
            return batch
        images, _, *masks = batch
        check_image_values(images)
        if masks and isinstance(masks[0], Tensor) and self.criterion.heatmap_weight > 0:
            check_mask_values(masks[0])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        where = f"batch {batch_idx} of epoch {self.current_epoch}"
        try:
            parts, logits = self._training_losses(batch)
        except FloatingPointError as error:
            raise FloatingPointError(f"{where}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        _check_finite(parts, where)
        self._log_parts("train", parts, logits, batch[1])
        return parts.total

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the losses and the accuracy of a batch."""
        parts, logits = self._losses(batch)
        name = _log_name("val", self.trainer.val_dataloaders, dataloader_idx)
        self._log_parts(name, parts, logits, batch[1])

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the losses and the accuracy of a batch."""
        parts, logits = self._losses(batch)
        name = _log_name("test", self.trainer.test_dataloaders, dataloader_idx)
        self._log_parts(name, parts, logits, batch[1])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser, with its learning rate's milestones if there are any."""
        optimizer = self.build_optimizer(self.net.parameters())
        if not self.milestones:
            return optimizer
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, self.milestones, self.gamma)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return an optimiser of these parameters, as the settings say."""
        options = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer_name == "sgd":
            options["momentum"] = self.momentum
        return OPTIMIZERS[self.optimizer_name](parameters, **options)

    def configure_callbacks(self) -> list[lightning.Callback]:
        """Return the calibration of C1 and C2, if they are wanted and not known yet."""
        weights = (self.criterion.heatmap_weight, *self.heatmap_weight_schedule.values())
        unknown = self.criterion.cuts is None and any(weight > 0 for weight in weights)
        return [CutCalibration(self.calibration_epochs)] if unknown else []

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says, or else at the norm of this module."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif self.gradient_clip is not None:
            self.clip_gradients(optimizer, self.gradient_clip, "norm")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of all processes' random number generators, and C1 and C2."""
        checkpoint["random_states"] = _from_all_processes(_random_states())
        if self.criterion.cuts is not None:
            checkpoint["cuts"] = asdict(self.criterion.cuts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the random number generators, and C1 and C2 that were calibrated."""
        if "cuts" in checkpoint and self.criterion.cuts is None:
            self.criterion.cuts = Cuts.of(**checkpoint["cuts"])
        states = checkpoint.get("random_states", [])
        if len(states) == _processes():  # those of others are no use
            _set_random_states(states[self.global_rank])

    @property
    def _supervises(self) -> bool:
        # Before the calibration Lightning's sanity check alone finds no cuts.
        return self.criterion.heatmap_weight > 0 and self.criterion.cuts is not None

    def _losses(self, batch: Batch) -> tuple[LossParts, Tensor]:
        if not self._supervises:
            return self._plain_losses(batch)
        images, labels, *rest = batch
        explanation = self.net.explain(images)
        parts = self.criterion(explanation, labels, rest[0] if rest else None)
        return parts, explanation.logits

    def _plain_losses(self, batch: Batch) -> tuple[LossParts, Tensor]:
        images, labels, *_ = batch
        logits = self.net(images)
        classification = self.criterion.classify(logits, labels)
        return LossParts(classification, classification, torch.zeros_like(classification)), logits

    def _training_losses(self, batch: Batch) -> tuple[LossParts, Tensor]:
        if self.global_step % self.supervise_every:
            return self._plain_losses(batch)
        images, labels, *rest = batch
        explained = math.ceil(self.supervised_part * len(images))
        if explained == len(images) or not self._supervises:
            return self._losses(batch)
        order = torch.randperm(len(images)).to(images.device)
        chosen, others = order[:explained], order[explained:]
        explanation = self.net.explain(images[chosen])
        parts = self.criterion(explanation, labels[chosen], rest[0][chosen] if rest else None)
        shuffled = torch.cat([explanation.logits, self.net(images[others])])
        logits = torch.empty_like(shuffled).index_copy(0, order, shuffled)
        classification = self.criterion.classify(logits, labels)
        return self.criterion.join(classification, parts.heatmap), logits

    def _log_parts(self, stage: str, parts: LossParts, logits: Tensor, labels: Tensor) -> None:
        classes = logits.shape[1]
        if self.criterion.task == "multilabel":
            accuracy = multilabel_accuracy(logits, labels, num_labels=classes, average="micro")
        else:
            accuracy = multiclass_accuracy(logits, labels, num_classes=classes, average="micro")
        shown = {"loss": parts.total, "accuracy": accuracy}
        kept = {"classification": parts.classification, "heatmap": parts.heatmap}
        for values, in_progress_bar in ((shown, True), (kept, False)):
            self.log_dict(
                {f"{stage}/{name}": value.detach() for name, value in values.items()},
                on_step=False,
                on_epoch=True,
                prog_bar=in_progress_bar,
                batch_size=len(logits),
                sync_dist=True,
                add_dataloader_idx=False,
            )


def _log_name(stage: str, loaders: Any, index: int) -> str:
    if isinstance(loaders, Mapping):
        key = list(loaders)[index]
        return stage if key == stage else f"{stage}/{key}"
    several = isinstance(loaders, Sequence) and len(loaders) > 1
    return f"{stage}/{index}" if several else stage


def _check_finite(parts: LossParts, where: str) -> None:
    # The one place where a training step waits for an accelerator.
    values = torch.stack([parts.classification.detach(), parts.heatmap.detach()]).tolist()
    named = zip(("classification", "heatmap"), values, strict=True)
    bad = [f"{name} loss is {value}" for name, value in named if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{where}: the {' and the '.join(bad)}. Training stops before this batch touches the "
            "weights; lower the learning rate or the heatmap weight and resume from the last "
            "checkpoint"
        )


def _processes() -> int:
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def _from_all_processes(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the value of each process, by its rank; all have to call this."""
    values = [value] * _processes()
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def _random_states() -> dict[str, Any]:
    """Collect the generators' states in types that ``torch.load(weights_only=True)`` reads."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        # Of the device that this process works on: to ask the others takes memory of each.
        "cuda": torch.cuda.get_rng_state() if _uses_cuda() else None,
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "python": random.getstate(),
    }


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _set_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
