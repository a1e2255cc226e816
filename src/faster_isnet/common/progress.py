"""Show progress: of training by a bar on a terminal, otherwise by lines; of counts by a bar."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from tqdm import tqdm


def progress_bar() -> ProgressBar:
    """Choose a progress bar on a terminal, and a line for each epoch otherwise."""
    return Bar(refresh_rate=5) if sys.stderr.isatty() else EpochLines()


def count_bar(total: float, unit: str, show: bool = True, what: str | None = None) -> tqdm[Any]:
    """Make a bar on stderr that counts to ``total`` by its ``update``, shown on a terminal only.

    Parameters
    ----------
    total
        Infinity if it is not known.
    unit
        What is counted.
    show
        Whether to show it at all.
    what
        What is being done. It vanishes when it is done, since others follow.
    """
    known = None if total == float("inf") else total
    disable = None if show else True
    return tqdm(total=known, unit=unit, desc=what, leave=what is None, disable=disable)


class Bar(TQDMProgressBar):
    """Show Lightning's progress bar, without the version number of loggers."""

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Show the metrics of an epoch."""
        self.get_metrics(trainer, pl_module)  # exchanges values: all processes must take part
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Return the metrics to show."""
        return {name: v for name, v in super().get_metrics(*args).items() if name != "v_num"}


class EpochLines(ProgressBar):
    """Print a line for each epoch, with the metrics of the progress bar and the time left."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._started = 0.0
        self._epochs = 0  # since then

    def enable(self) -> None:
        """Enable printing."""
        self._enabled = True

    def disable(self) -> None:
        """Disable printing; Lightning calls it in all processes except the first."""
        self._enabled = False

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Count the epochs anew, also in a training that is resumed."""
        self._epochs = 0

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin to measure the time, after what other callbacks do before the first epoch."""
        if not self._epochs:
            self._started = time.perf_counter()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Print the metrics of an epoch."""
        metrics = self.get_metrics(trainer, pl_module)  # exchanges values: all processes take part
        if not self._enabled:
            return
        shown = [f"{name} {v:.4g}" for name, v in metrics.items() if isinstance(v, float)]
        self._epochs += 1
        seconds = (time.perf_counter() - self._started) / self._epochs
        shown.append(f"{seconds:.3g} s an epoch")
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs or 0
        if epoch < last:
            shown.append(f"{tqdm.format_interval(seconds * (last - epoch))} left")
        of_last = f" of {last}" if last > 0 else ""
        print(f"Epoch {epoch}{of_last}: {', '.join(shown)}", flush=True)
