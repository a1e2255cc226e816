"""A training that has learnt nothing says so, and one that has does not."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import ISNet, ISNetLoss
from faster_isnet.common.batch import Batch
from faster_isnet.methods import ClassificationLoss, ISNetMethod, Losses, Method, Standard
from faster_isnet.training.convergence import ConvergenceChecks, chance_loss
from faster_isnet.training.lit_classifier import LitClassifier
from marked_shapes import quiet_trainer


class Scripted(Method):
    """A loss whose value each epoch is given, and whose gradient is 0."""

    falling_parts = {"background": "Do better"}  # noqa: RUF012

    def __init__(self, classification: list[float], background: list[float]) -> None:
        super().__init__()
        self.values, self.epoch = (classification, background), 0

    def set_progress(self, epoch: int, step: int) -> None:
        self.epoch = epoch

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        logits = network(batch.images)
        first, second = (0 * logits.sum() + each[self.epoch] for each in self.values)
        return Losses(first + second, logits, first, {"background": second})


def found(method: Method, epochs: int, labels: Tensor | None = None, **options: Any) -> list[str]:
    labels = torch.arange(20) % 2 if labels is None else labels
    data = DataLoader(TensorDataset(torch.rand(len(labels), 4), labels), 5)
    lit = LitClassifier(nn.Linear(4, 2), method, learning_rate=1e-6)
    trainer = quiet_trainer(epochs, **options)
    trainer.fit(lit, data)
    (checks,) = (each for each in trainer.callbacks if isinstance(each, ConvergenceChecks))
    return checks.warnings


@pytest.mark.parametrize(
    ("classification", "background", "words"),
    [
        ([0.7, 0.5, 0.3], [1.0, 0.7, 0.5], []),
        ([0.7, 0.7, 0.69], [1.0, 0.7, 0.5], ["0.69, is not better than chance, 0.693"]),
        ([0.7, 0.5, 0.3], [1.0, 0.7, 0.96], ["0.96, has hardly fallen since epoch 0, 1: "]),
        ([0.7, 0.5, 0.7], [1.0, 1.0, 1.0], ["not better than chance", "Do better"]),
        ([0.7, 0.3], [1.0, 1.0], []),  # too early to say
        ([0.7, 0.5, 0.3], [0.04, 0.04, 0.04], []),  # small from the beginning
        ([0.7, 0.5, 0.3], [0.0, 0.0, 0.0], []),  # no weight
        ([0.7, 0.6, 0.5, 0.4], [0.0, 1.0, 1.0, 1.0], ["fallen since epoch 1"]),
    ],
)
def test_what_is_found(
    classification: list[float],
    background: list[float],
    words: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="faster_isnet"):
        warnings = found(Scripted(classification, background), len(classification))
    assert len(warnings) == len(words)
    for warning, part in zip(warnings, words, strict=True):
        assert part in warning
        assert caplog.messages.count(warning) == 1


@pytest.mark.parametrize(
    ("right", "classes", "guesses"), [(9, 2, False), (5, 2, True), (5, 4, False)]
)
def test_guessing_on_validation_images_is_named(right: int, classes: int, guesses: bool) -> None:
    """Of a training whose loss has fallen: a batch norm's statistics may be wrong, or labels."""
    network = nn.Linear(4, classes)
    nn.init.zeros_(network.weight)
    network.bias.data = torch.eye(classes)[0]  # it says class 0 always
    labels = torch.ones(10, dtype=torch.int64)
    labels[:right] = 0
    lit = LitClassifier(network, Scripted([0.7, 0.5, 0.3], [1.0, 0.7, 0.5]), learning_rate=1e-6)
    trainer = quiet_trainer(3)
    images = torch.rand(20, 4)
    train, val = (TensorDataset(images[: len(y)], y) for y in (torch.arange(20) % classes, labels))
    trainer.fit(lit, DataLoader(train, 5), DataLoader(val, 5))
    (checks,) = (each for each in trainer.callbacks if isinstance(each, ConvergenceChecks))
    assert [f"guessing among {classes} classes" in warning for warning in checks.warnings] == (
        [True] if guesses else []
    )


@pytest.mark.parametrize(("low", "words"), [(1e-9, []), (1e6, ["val/out_of_range is 1"])])
def test_relevance_that_never_gets_into_its_range_is_named(low: float, words: list[str]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    masks = torch.zeros(20, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    images = TensorDataset(torch.rand(20, 3, 8, 8), torch.arange(20) % 2, masks)
    loss = ISNetLoss(0.01, cut_low=low, cut_high=1e7)
    method = ISNetMethod(loss, swapped_backgrounds=0)
    lit = LitClassifier(net, method, optimizer="sgd", learning_rate=0.1)
    trainer = quiet_trainer(8)
    trainer.fit(lit, DataLoader(images, 5), DataLoader(images, 10))
    (checks,) = (each for each in trainer.callbacks if isinstance(each, ConvergenceChecks))
    shares = [warning for warning in checks.warnings if "out_of_range" in warning]
    assert len(shares) == len(words)
    assert not ISNetMethod(loss).rare_parts  # beside swapped backgrounds
    assert all(part in warning for warning, part in zip(shares, words, strict=True))


def test_frequent_classes_make_chance_lower() -> None:
    """A loss below log 2 is no better than chance if nine of ten labels are the same."""
    labels = (torch.arange(20) % 10 == 0).long()
    entropy = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert found(Scripted([0.5 * (entropy + math.log(2))], [1.0]), 1, labels)
    assert not found(Scripted([0.9 * entropy], [1.0]), 1, labels)


def test_a_tried_training_is_not_examined() -> None:
    assert not found(Scripted([0.7], [1.0]), 1, fast_dev_run=True)


def test_a_resumed_training_knows_its_first_epoch(tmp_path: Path) -> None:
    def train(epochs: int, **options: Any) -> list[str]:
        method = Scripted([0.5] * 4, [1.0, 0.5, 0.5, 0.5])
        data = DataLoader(TensorDataset(torch.rand(20, 4), torch.arange(20) % 2), 5)
        keep = ModelCheckpoint(tmp_path, save_last=True)
        trainer = quiet_trainer(epochs, callbacks=[keep], enable_checkpointing=True)
        trainer.fit(LitClassifier(nn.Linear(4, 2), method), data, **options)
        return next(
            each.warnings for each in trainer.callbacks if isinstance(each, ConvergenceChecks)
        )

    train(1)
    assert not train(4, ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def test_an_isnet_names_what_is_flat_and_the_option() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 2
    masks = torch.zeros(16, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    data = DataLoader(TensorDataset(images, labels, masks), 8)
    method = ISNetMethod(ISNetLoss(cut_low=0.1))
    lit = LitClassifier(ISNet(net), method, learning_rate=1e-9)
    trainer = quiet_trainer(3)
    trainer.fit(lit, data)
    (checks,) = (each for each in trainer.callbacks if isinstance(each, ConvergenceChecks))
    assert any("--method.deep_supervision true" in warning for warning in checks.warnings)


def test_a_classifier_that_learns_is_not_warned_of() -> None:
    labels = torch.arange(64) % 2
    data = DataLoader(TensorDataset(torch.randn(64, 4) + 3 * labels[:, None], labels), 8)
    lit = LitClassifier(nn.Linear(4, 2), Standard(), optimizer="adamw", learning_rate=0.1)
    trainer = quiet_trainer(3)
    trainer.fit(lit, data)
    (checks,) = (each for each in trainer.callbacks if isinstance(each, ConvergenceChecks))
    assert not checks.warnings


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"focusing": 2.0}, {"class_weights": [1.0, 9.0, 2.0]}],
)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_no_constant_is_better_than_chance(task: str, options: dict[str, Any]) -> None:
    loss = ClassificationLoss(task, **options)
    torch.manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 1000, replacement=True)
    if task == "multilabel":
        labels = (torch.rand(1000, 3) < torch.tensor([0.7, 0.2, 0.1])).float()
    chance = chance_loss(loss, labels)
    assert chance is not None
    constants = (2 * torch.randn(300, 3)).tolist()
    best = min(float(loss(torch.tensor([each]).expand(1000, -1), labels)) for each in constants)
    plain = not options or "label_smoothing" in options
    assert chance <= best * (1.01 if plain else 1.35)
    assert chance >= best * 0.8


def test_a_function_of_ones_own_has_no_known_chance() -> None:
    loss = ClassificationLoss(function=lambda logits, labels: logits.sum())
    assert chance_loss(loss, torch.tensor([0, 1])) is None
