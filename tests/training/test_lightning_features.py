"""What Lightning's users are used to works with our modules as it is."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK, ISNet, ISNetLoss, LitISNet
from faster_isnet.methods import ISNetMethod, Standard
from faster_isnet.models import build_backbone
from faster_isnet.training.lit_classifier import LitClassifier

METHODS = ["isnet", "standard"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)),
        *(nn.BatchNorm1d(3),),
    )


def lit_of(method: str, model: nn.Module | None = None, **options: Any) -> LitClassifier:
    """One that draws nothing at random, so that trainings can be compared."""
    model = network() if model is None else model
    options = {"optimizer": "sgd", "schedule": "constant"} | options
    if method == "standard":
        return LitClassifier(model, Standard(), **options)
    loss = ISNetLoss(0.5, cut_low=0.1)
    return LitISNet(ISNet(model), loss, swapped_backgrounds=0, **options)


def data(n: int = 12, size: int = 4) -> DataLoader[Any]:
    torch.manual_seed(1)
    masks = torch.zeros(n, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    masks[::5] = NO_MASK
    return DataLoader(TensorDataset(torch.rand(n, 3, 8, 8), torch.arange(n) % 3, masks), size)


def trainer_of(*callbacks: Callback, epochs: int = 3, **options: Any) -> lightning.Trainer:
    defaults = {
        "logger": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
    }
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **(defaults | options),
    )


class Weights(Callback):
    """The weights after each training step."""

    def __init__(self) -> None:
        self.found: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, lit: Any, *_: Any) -> None:
        self.found.append(copy.deepcopy(lit.net.state_dict()))


@pytest.mark.skipif(
    not hasattr(lightning_callbacks, "EMAWeightAveraging"), reason="new in Lightning 2.6"
)
@pytest.mark.parametrize("method", METHODS)
def test_ema_evaluates_and_keeps_the_averaged_weights(method: str, tmp_path: Path) -> None:
    ema = lightning_callbacks.EMAWeightAveraging(decay=0.5)
    seen, evaluated = Weights(), list[Tensor]()
    name = "backbone.classifier.weight" if method == "isnet" else "classifier.weight"

    class Evaluated(Callback):
        def on_validation_batch_end(self, trainer: Any, lit: Any, *_: Any) -> None:
            if not trainer.sanity_checking:
                evaluated.append(lit.net.state_dict()[name].clone())

    lit = lit_of(method, build_backbone("convnet", 3))
    start = lit.net.state_dict()[name].clone()
    keep = ModelCheckpoint(tmp_path, "last")
    trainer_of(ema, seen, Evaluated(), keep).fit(lit, data(), data())
    average = start
    for number, weights in enumerate(seen.found):
        average = weights[name] if number == 0 else average.lerp(weights[name], 0.5)
    torch.testing.assert_close(evaluated[-1], average)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(kept["state_dict"][f"net.{name}"], average)
    torch.testing.assert_close(lit.net.state_dict()[name], average)
    again = type(lit).load_from_checkpoint(tmp_path / "last.ckpt")
    torch.testing.assert_close(again.net.state_dict()[name], average)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_swa_ends_with_the_mean_of_epochs(method: str, schedule: str) -> None:
    """Of those that end before the last one: Lightning takes the weights where an epoch starts."""
    swa = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2, annealing_epochs=1)
    ends: list[Tensor] = []

    class Ends(Callback):
        def on_train_epoch_end(self, trainer: Any, lit: Any) -> None:
            ends.append(next(lit.net.parameters()).detach().clone())

    lit = lit_of(method, schedule=schedule)
    trainer_of(Ends(), swa).fit(lit, data(), data())
    torch.testing.assert_close(next(lit.net.parameters()), torch.stack(ends[:2]).mean(0))
    assert all(each.isfinite().all() for each in lit.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_bf16_mixed_precision(method: str) -> None:
    trainer = trainer_of(precision="bf16-mixed")
    lit = lit_of(method, learning_rate=0.1)
    before = copy.deepcopy(lit.net)
    trainer.fit(lit, data(), data())
    for ours, start in zip(lit.net.parameters(), before.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert ours.isfinite().all()
        assert not torch.equal(ours, start)
    full = trainer_of()
    full.fit(lit_of(method, learning_rate=0.1), data(), data())
    ours, theirs = (each.callback_metrics["train/loss"] for each in (trainer, full))
    torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_resuming_goes_on_as_if_it_had_not_stopped(method: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole = lit_of(method, schedule="cosine")
    trainer_of(keep, epochs=4, **options).fit(whole, data(), data())
    again = lit_of(method, schedule="cosine")
    trainer_of(epochs=4, **options).fit(again, data(), data(), ckpt_path=tmp_path / "epoch=1.ckpt")
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", METHODS)
def test_loggers_and_monitors(method: str, tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path, version="csv"), TensorBoardLogger(tmp_path, version="tb")]
    best = ModelCheckpoint(tmp_path, "best", monitor="val/accuracy", mode="max")
    stop = EarlyStopping("val/loss", patience=0, min_delta=100.0)
    monitor = LearningRateMonitor("step")
    lit = lit_of(method, schedule="one-cycle")
    trainer = trainer_of(best, stop, monitor, logger=loggers, log_every_n_steps=1, epochs=9)
    trainer.fit(lit, data(), data())
    assert trainer.current_epoch == 2  # the first epoch is the best by far
    assert Path(best.best_model_path).name == "best.ckpt"
    (path,) = tmp_path.rglob("metrics.csv")
    header = path.read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/accuracy", "lr-SGD"} <= set(header)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    assert b"val/loss" in events.read_bytes()
    assert b"lr-SGD" in events.read_bytes()


def without(weights: list[dict[str, Tensor]], number: int) -> bool:
    """Whether a step changed no parameter."""
    before, after = weights[number - 1], weights[number]
    names = [name for name in before if "running" not in name and "num_batches" not in name]
    return all(torch.equal(before[name], after[name]) for name in names)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_last_batch_of_one_sample_is_left_out(
    method: str, optimizer: str, precision: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen, lit = Weights(), lit_of(method, optimizer=optimizer, weight_decay=0.1)
    trainer = trainer_of(seen, epochs=2, precision=precision)
    with caplog.at_level(logging.WARNING):
        trainer.fit(lit, data(9), data(9))
    assert "batch 2 of epoch 1 is left out: batch norm needs more than one sample" in caplog.text
    assert [without(seen.found, number) for number in range(1, 6)] == [
        False, True, False, False, True,
    ]  # fmt: skip
    whole = lit_of(method, optimizer=optimizer, weight_decay=0.1)
    trainer_of(epochs=2, precision=precision).fit(whole, _head(data(9), 8))
    for ours, theirs in zip(lit.net.parameters(), whole.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def _head(loader: DataLoader[Any], n: int) -> DataLoader[Any]:
    dataset = loader.dataset
    assert isinstance(dataset, TensorDataset)
    return DataLoader(TensorDataset(*(each[:n] for each in dataset.tensors)), loader.batch_size)


def test_gradients_that_were_accumulated_before_it_are_used() -> None:
    seen = Weights()
    trainer_of(seen, epochs=1, accumulate_grad_batches=4).fit(lit_of("isnet"), data(9))
    assert without(seen.found, 1)
    assert not without(seen.found, 2)


def test_the_calibration_leaves_it_out_too() -> None:
    lit = LitISNet(ISNet(network()), ISNetLoss(cut_low="auto"), calibration_epochs=1)
    trainer_of(epochs=1).fit(lit, data(9))
    assert lit.criterion.cuts is not None


@pytest.mark.parametrize("method", METHODS)
def test_training_on_single_samples_alone_raises(method: str) -> None:
    for loader in (data(3, size=1), data(1)):
        with pytest.raises(ValueError, match=r"batch 0 of epoch 0: .*value per channel"):
            trainer_of().fit(lit_of(method), loader)


def single(flat: bool) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1)]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if flat else []))


class AsTwo(nn.Module):
    """The logits of two classes of a network with a single one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        z = self.network(images).reshape(-1, 1)
        return torch.cat([-z / 2, z / 2], 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("flat", [False, True])
def test_a_network_with_a_single_logit_trains_as_that_with_two(method: str, flat: bool) -> None:
    dataset = data().dataset
    assert isinstance(dataset, TensorDataset)
    x, y, masks = dataset.tensors
    loader = DataLoader(TensorDataset(x, y % 2, masks), 4)
    one, two = single(flat), AsTwo(single(flat))
    found = []
    for model in (one, two):
        trainer = trainer_of(epochs=2)
        trainer.fit(lit_of(method, model), loader, loader)
        found.append(trainer.callback_metrics)
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name])
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    right = ((one.eval()(x).flatten() > 0) == (y % 2).bool()).float().mean()
    torch.testing.assert_close(found[0]["val/accuracy"], right)


def test_a_part_of_a_batch_is_supervised_with_a_single_logit() -> None:
    method = ISNetMethod(ISNetLoss(cut_low=0.1), supervised_part=0.5)
    dataset = data().dataset
    assert isinstance(dataset, TensorDataset)
    x, y, masks = dataset.tensors
    trainer = trainer_of(epochs=1)
    trainer.fit(LitClassifier(single(True), method), DataLoader(TensorDataset(x, y % 2, masks), 4))
    assert trainer.callback_metrics["train/loss"].isfinite()
