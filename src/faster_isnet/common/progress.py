"""What a training says while it runs: a bar on a terminal, a line for each epoch elsewhere."""

from __future__ import annotations

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar


def progress_bar() -> ProgressBar:
    """Return a bar if there is a terminal to draw it on, else lines for a log."""
    return Bar(refresh_rate=5) if sys.stderr.isatty() else EpochLines()


class Bar(TQDMProgressBar):
    """Lightning's bar, without the loggers' version."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Return what the bar shows."""
        return {name: v for name, v in super().get_metrics(*args).items() if name != "v_num"}


class EpochLines(ProgressBar):
    """A line for each epoch, with what a bar would show at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True

    def enable(self) -> None:
        """Write lines."""
        self._enabled = True

    def disable(self) -> None:
        """Write none, as in all processes but the first."""
        self._enabled = False

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write a line."""
        if not self._enabled:
            return
        metrics = self.get_metrics(trainer, pl_module)
        shown = [f"{name} {v:.4g}" for name, v in metrics.items() if isinstance(v, float)]
        last = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        print(f"Epoch {trainer.current_epoch + 1}{last}: {', '.join(shown)}", flush=True)
