"""The best epoch is chosen by validation images with replaced backgrounds."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK
from faster_isnet.common.batch import Batch
from faster_isnet.data.batch_backgrounds import BatchBackgrounds
from faster_isnet.methods import ClassificationLoss, Masked, Method, Standard, Swap
from faster_isnet.training import background_scores
from faster_isnet.training.background_scores import MONITOR, expected_errors
from faster_isnet.training.lit_classifier import LitClassifier
from marked_images import convolutional, marked_images, trained
from marked_shapes import quiet_trainer

REPLACED = {f"val/accuracy_{kind}" for kind in ("blur", "noise", "zeros", "other_image")}


def loader(batch: Batch, size: int = 16) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(part for part in batch if part is not None)), size)


def scores(network: nn.Module, loaders: Any, method: Method | None = None) -> dict[str, float]:
    lit = LitClassifier(network, method or Standard())
    trainer = quiet_trainer(1)
    trainer.validate(lit, loaders, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture(scope="module")
def by_the_mark() -> nn.Module:
    torch.manual_seed(0)
    return trained(Standard(), convolutional(), marked_images(512))


@pytest.fixture(scope="module")
def by_the_foreground() -> nn.Module:
    torch.manual_seed(0)
    return trained(Swap(), convolutional(), marked_images(512))


def test_reading_the_mark_is_found_on_images_that_have_it(
    by_the_mark: nn.Module, by_the_foreground: nn.Module
) -> None:
    data = marked_images(100, seed=2)
    of_mark = scores(by_the_mark, loader(data))
    assert of_mark["val/accuracy"] == 1.0
    assert of_mark["val/worst_accuracy"] < 0.5
    of_foreground = scores(by_the_foreground, loader(data))
    assert of_foreground["val/worst_accuracy"] > 0.85
    assert of_foreground["val/background_error"] < 0.2
    assert of_mark["val/background_error"] > 0.4


@pytest.mark.parametrize(("monitor", "kept"), [(MONITOR, 0), ("val/loss", 1)])
def test_the_best_epoch_is_the_one_before_the_mark_was_learnt(
    by_the_mark: nn.Module, by_the_foreground: nn.Module, monitor: str, kept: int, tmp_path: Path
) -> None:
    class Learn(Callback):
        def on_validation_start(self, trainer: lightning.Trainer, lit: Any) -> None:
            learnt = (by_the_foreground, by_the_mark)[trainer.current_epoch]
            lit.net.load_state_dict(learnt.state_dict())

    best = ModelCheckpoint(tmp_path, "best", monitor=monitor)
    trainer = quiet_trainer(2, callbacks=[Learn(), best], enable_checkpointing=True)
    data = loader(marked_images(100, seed=2))
    trainer.fit(LitClassifier(convolutional(), Standard()), data, data)
    content = torch.load(best.best_model_path, weights_only=True)
    assert content["epoch"] == kept
    weights = (by_the_foreground, by_the_mark)[kept].state_dict()
    assert torch.equal(content["state_dict"]["net.8.weight"], weights["8.weight"])


def test_the_worst_is_that_of_means_over_all_images() -> None:
    """Not the mean of the batches' worst; batches may be of any size."""
    network, data = convolutional().eval(), marked_images(20)
    assert data.masks is not None
    data.masks[::5] = NO_MASK
    found = scores(network, loader(data, 7))
    errors, lowest = [], []
    backgrounds = BatchBackgrounds()
    seen: dict[str, list[Batch]] = {"none": [data]}
    for number, start in enumerate(range(0, 20, 7)):
        batch = data.select(torch.arange(20)[start : start + 7])
        for kind, replaced in backgrounds.replaced(batch, number):
            seen.setdefault(kind, []).append(replaced)
    assert len(seen) == 5
    for kind, batches in seen.items():
        labels = torch.cat([each.needed("labels") for each in batches])
        with torch.no_grad():
            logits = network(torch.cat([each.images for each in batches]))
        accuracy = float((logits.argmax(1) == labels).float().mean())
        name = "accuracy" if kind == "none" else f"accuracy_{kind.replace(' ', '_')}"
        assert found[f"val/{name}"] == pytest.approx(accuracy)
        errors.append(float(expected_errors(logits, labels).mean()))
        lowest.append(accuracy)
    assert found["val/worst_accuracy"] == pytest.approx(min(lowest))
    expected = 1 - geometric_mean([1 - error for error in errors])
    assert found["val/background_error"] == pytest.approx(expected)


def test_a_kind_that_is_never_learnt_does_not_decide() -> None:
    """Right on all kinds but noise, at chance there and sure, is better than knowing nothing."""

    class Sees(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            noisy = images[:, 0, :4].flatten(1).std(1) > 0.2
            of_one = 99 * torch.where(noisy, 1.0, images[:, 0, 8, 8] - 0.5)
            return torch.stack([-of_one, of_one], 1)

    labels = torch.arange(20) % 2
    images, masks = torch.full((20, 1, 16, 16), 0.5), torch.zeros(20, 1, 16, 16)
    masks[..., 4:12, 4:12] = 1
    data = loader(
        Batch(torch.where(masks == 1, labels.reshape(-1, 1, 1, 1), images), labels, masks)
    )
    sees = scores(Sees(), data)
    assert sees["val/accuracy"] == sees["val/accuracy_zeros"] == 1
    assert sees["val/accuracy_noise"] == sees["val/worst_accuracy"] == 0.5
    assert sees["val/background_error"] == pytest.approx(1 - 0.5 ** (1 / 5))
    knows_nothing = scores(Zeros(), data)
    assert knows_nothing["val/background_error"] == pytest.approx(0.5)


class Zeros(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images), 2)


def test_images_as_they_are_count_as_well() -> None:
    """A classifier that is right unless it sees the mark."""

    class Afraid(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            marked = (images[:, 0, :3, :3] - 0.5).abs().flatten(1).amin(1) > 0.49
            blank = (images[:, 0, :3, :3].flatten(1).std(1) < 1e-3) & ~marked
            return torch.stack([(marked | blank).float(), torch.full((len(images),), 0.5)], 1)

    data = marked_images(30)
    ones = data._replace(labels=torch.ones_like(data.needed("labels")))
    found = scores(Afraid(), loader(ones))
    assert found["val/accuracy"] == found["val/worst_accuracy"] == 0
    assert found["val/accuracy_noise"] == found["val/accuracy_blur"] == 1


def test_without_masks_it_is_that_of_the_images_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = marked_images(20)._replace(masks=None)
    lit = LitClassifier(convolutional(), Standard())
    trainer = quiet_trainer(3)
    with caplog.at_level(logging.INFO, logger="faster_isnet"):
        trainer.fit(lit, loader(data), loader(data))
    metrics = trainer.callback_metrics
    assert not REPLACED & set(metrics)
    assert metrics["val/worst_accuracy"] == metrics["val/accuracy"]
    with torch.no_grad():
        expected = expected_errors(lit.eval()(data.images), data.needed("labels")).mean()
    torch.testing.assert_close(metrics["val/background_error"], expected)
    lines = [line for line in caplog.messages if "as they are" in line]
    assert len(lines) == 1
    assert "No validation image has a mask" in lines[0]
    assert "val/background_error" in lines[0]


def test_with_masks_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="faster_isnet"):
        assert set(scores(convolutional(), loader(marked_images(20)))) > REPLACED
    assert "as they are" not in caplog.text


@pytest.mark.parametrize(
    ("names", "scored"),
    [(["elsewhere", "val"], "val"), (["one", "two"], "val/one"), (None, "val/0")],
)
def test_of_several_loaders_one_is_scored(names: list[str] | None, scored: str) -> None:
    data, other = loader(marked_images(20)), loader(marked_images(20, seed=3))
    loaders = [other, data] if names is None else dict(zip(names, (other, data), strict=True))
    found = scores(convolutional(), loaders)
    worst = {name for name in found if name.endswith("background_error")}
    assert worst == {f"{scored}/background_error"}
    assert f"{scored}/accuracy_noise" in found


def test_sharded_weights_predict_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background_scores, "_SHARDING", (SingleDeviceStrategy,))
    with caplog.at_level(logging.INFO, logger="faster_isnet"):
        found = scores(convolutional(), loader(marked_images(20)))
    assert not REPLACED & set(found)
    assert found["val/worst_accuracy"] == found["val/accuracy"]
    assert "The weights are sharded" in caplog.text


def test_what_a_method_reads_in_tests_is_what_is_predicted() -> None:
    """The masked classifier sees no background, so it is the same on all; others are left out."""
    data = marked_images(20)
    assert data.masks is not None
    data.masks[3] = NO_MASK
    found = scores(convolutional(), loader(data), Masked())
    values = {found[name] for name in REPLACED - {"val/accuracy_other_image"}}
    assert values == {found["val/accuracy"]} == {found["val/worst_accuracy"]}


def test_labels_of_a_multi_label_task() -> None:
    data = marked_images(20)
    labels = torch.stack([data.needed("labels"), 1 - data.needed("labels")], 1)
    method = Standard(ClassificationLoss("multilabel"))
    found = scores(convolutional(), loader(data._replace(labels=labels)), method)
    assert set(found) > REPLACED
    assert 0 < found["val/background_error"] < 1


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision_is_that_of_the_trainer(precision: Any) -> None:
    seen: set[torch.dtype] = set()
    network = convolutional()
    network[0].register_forward_hook(lambda *args: seen.add(args[2].dtype))
    lit = LitClassifier(network, Standard())
    data = loader(marked_images(16))
    trainer = quiet_trainer(1, precision=precision)
    trainer.validate(lit, data, verbose=False)
    assert seen == {torch.bfloat16 if "mixed" in precision else torch.float64}
    assert set(trainer.callback_metrics) > REPLACED


def test_epochs_with_the_same_weights_have_the_same_score() -> None:
    found: list[Mapping[str, Any]] = []

    class Keep(Callback):
        def on_validation_end(self, trainer: lightning.Trainer, lit: Any) -> None:
            found.append(copy.deepcopy(trainer.callback_metrics))

    lit = LitClassifier(convolutional().eval(), Standard(), optimizer="sgd", learning_rate=1e-30)
    data = loader(marked_images(20))
    quiet_trainer(2, callbacks=[Keep()], num_sanity_val_steps=0).fit(lit, data, data)
    first, second = found
    assert first["val/background_error"] == second["val/background_error"]
    assert first["val/accuracy_noise"] == second["val/accuracy_noise"]


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_expected_errors_are_within_0_and_1(task: str) -> None:
    logits = 50 * torch.randn(100, 3)
    labels = torch.randint(3, (100,)) if task == "multiclass" else (torch.rand(100, 3) < 0.5).long()
    found = expected_errors(logits, labels, task)
    assert found.shape == (100,)
    assert found.min() >= 0
    assert found.max() <= 1
    soft = nn.functional.one_hot(labels).double() if task == "multiclass" else labels.double()
    torch.testing.assert_close(expected_errors(logits, soft, task), found)
    torch.testing.assert_close(
        expected_errors(torch.tensor([2.0, -1.0]), torch.tensor([1, 1])),
        1 - torch.tensor([2.0, -1.0]).sigmoid(),
    )
