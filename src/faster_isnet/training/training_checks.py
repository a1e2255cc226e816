"""Stop a training that would not be what its user thinks it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import lightning
from torch import nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.names import nearest
from faster_isnet.methods.base import Method
from faster_isnet.methods.mask_presence import MaskPresence, no_masks

log = logging.getLogger(__name__)


class TrainingChecks(lightning.Callback):
    """Check the trainer's precision, the values that callbacks monitor, and that there are masks.

    A batch may be without masks; an epoch of a method that needs some may not. Where an epoch is
    only tried (``fast_dev_run``), that is a warning.

    Parameters
    ----------
    method
        That trains.
    network
        What it trains, of :meth:`~faster_isnet.methods.Method.build`.

    Raises
    ------
    ValueError
        Before the training, if the method cannot train in this precision, or a callback monitors
        a value that is a mistyped one of those that are logged; after the first epoch and before
        its checkpoint, if no sample had a mask.
    """

    def __init__(self, method: Method, network: nn.Module) -> None:
        super().__init__()
        self._method, self._network = method, network
        self._masks: MaskPresence | None = None

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check the precision."""
        if stage != "predict":
            self._method.check_precision(self._network, str(trainer.precision))

    def on_sanity_check_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Check names of monitored values, now that those of the validation have been logged."""
        logged = list(trainer.callback_metrics)
        trained = [f"train/{name.removeprefix('val/')}" for name in logged]
        known = [*logged, *trained, "epoch", "step"]
        for name, monitor in _monitors(trainer):
            meant = nearest(monitor, logged)
            if monitor not in known and monitor.startswith("val") and meant is not None:
                raise ValueError(
                    f"{name} monitors {monitor!r}, which is not logged; did you mean {meant!r}? "
                    f"Logged are: {', '.join(map(repr, [*logged, *trained]))}"
                )

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Say what is done; look for masks in the first epoch, if the method needs some."""
        if trainer.is_global_zero:
            device = f"{trainer.world_size} x {trainer.strategy.root_device.type}"
            mixing = self._method.mixing
            parts = (self._method.summary(), "" if mixing is None else mixing.summary())
            done = "; ".join(filter(None, parts))
            log.info(": ".join(filter(None, (f"Training on {device}", done))))
        self._masks = MaskPresence() if self._method.needs_masks() else None

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look for masks."""
        if self._masks is not None:
            self._masks.update(Batch.of(batch))

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Check that there were masks, once."""
        masks, self._masks = self._masks, None
        if masks is None or not trainer.strategy.reduce_boolean_decision(not masks.any, all=True):
            return
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise no_masks(masks.samples)
        log.warning("%s", no_masks(masks.samples))


def _monitors(trainer: lightning.Trainer) -> Iterator[tuple[str, str]]:
    """Yield who monitors a value, and its name."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(monitor := getattr(callback, "monitor", None), str):
            yield type(callback).__name__, monitor
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.monitor is not None:
            yield type(config.scheduler).__name__, config.monitor
