"""What is said while a network is trained."""

from __future__ import annotations

import io
import re
import sys
import time

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from faster_isnet.common.progress import Bar, EpochLines, count_bar, progress_bar


class Lit(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/hidden", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/loss", torch.tensor(0.123456), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(*callbacks: lightning.Callback) -> None:
    loader = DataLoader(torch.rand(6, 2), 2)
    trainer = lightning.Trainer(
        max_epochs=3,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Lit(), loader, loader)


def test_a_log_gets_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    fit(EpochLines())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
    assert [line.split(":")[0] for line in lines] == [f"Epoch {n} of 3" for n in (1, 2, 3)]
    assert all("val/loss 0.1235" in line and "train/loss" in line for line in lines)
    assert not any("hidden" in line or "\r" in line for line in lines)
    times = [re.search(r", ([\d.e-]+) s an epoch(?:, ([\d:]+) left)?$", line) for line in lines]
    assert all(found and float(found[1]) > 0 for found in times)
    assert [bool(found and found[2]) for found in times] == [True, True, False]


class SlowToBegin(lightning.Callback):
    def on_train_start(self, *args: object) -> None:
        time.sleep(2)


def test_what_is_done_before_the_first_epoch_is_not_part_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(EpochLines(), SlowToBegin())
    first = next(line for line in capsys.readouterr().out.splitlines() if "Epoch 1 of 3" in line)
    seconds = re.search(r"([\d.e-]+) s an epoch", first)
    assert seconds
    assert float(seconds[1]) < 2


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    lines = EpochLines()
    lines.disable()
    fit(lines)
    assert "Epoch" not in capsys.readouterr().out
    lines.enable()
    fit(lines)
    assert "Epoch 3 of 3" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [Bar, EpochLines])
def test_other_processes_take_part_when_metrics_are_computed(
    monkeypatch: pytest.MonkeyPatch, kind: type[Bar] | type[EpochLines]
) -> None:
    """Computing them exchanges values: all processes have to, at the same place."""
    progress, hooks = kind(), []

    def get_metrics(trainer: lightning.Trainer, module: Lit) -> dict[str, float]:
        hooks.append(module._current_fx_name)
        return {}

    progress.disable()
    monkeypatch.setattr(progress, "get_metrics", get_metrics)
    fit(progress)
    assert hooks.count("on_train_epoch_end") == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
@pytest.mark.parametrize(("show", "total"), [(True, 3), (True, float("inf")), (False, 3)])
def test_a_count_is_shown_on_a_terminal_and_vanishes(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], show: bool, total: float
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with count_bar(total, "image", show, what="reading") as bar:
        bar.update(3)
    written = sys.stderr.getvalue()
    assert ("reading" in written) == (show and stream is Terminal)
    if written:
        assert written.endswith("\r")
        assert written.split("\r")[-2].strip() == ""


@pytest.mark.parametrize(("terminal", "kind"), [(True, Bar), (False, EpochLines)])
def test_a_bar_needs_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: type
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert type(progress_bar()) is kind
