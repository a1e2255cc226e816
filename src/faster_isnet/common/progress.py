"""Show progress: of training by a bar on a terminal, otherwise by lines; of counts by a bar."""

from __future__ import annotations

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from tqdm import tqdm


def progress_bar() -> ProgressBar:
    """Choose a progress bar on a terminal, and a line for each epoch otherwise."""
    return Bar(refresh_rate=5) if sys.stderr.isatty() else EpochLines()


def count_bar(total: int, unit: str, show: bool = True) -> tqdm[Any]:
    """Make a bar on stderr that counts to ``total`` by its ``update``, shown on a terminal only."""
    return tqdm(total=total, unit=unit, disable=None if show else True)


class Bar(TQDMProgressBar):
    """Show Lightning's progress bar, without the version number of loggers."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Return the metrics to show."""
        return {name: v for name, v in super().get_metrics(*args).items() if name != "v_num"}


class EpochLines(ProgressBar):
    """Print a line for each epoch, with the metrics of the progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True

    def enable(self) -> None:
        """Enable printing."""
        self._enabled = True

    def disable(self) -> None:
        """Disable printing; Lightning calls it in all processes except the first."""
        self._enabled = False

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Print the metrics of an epoch."""
        if not self._enabled:
            return
        metrics = self.get_metrics(trainer, pl_module)
        shown = [f"{name} {v:.4g}" for name, v in metrics.items() if isinstance(v, float)]
        last = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        print(f"Epoch {trainer.current_epoch + 1}{last}: {', '.join(shown)}", flush=True)
