"""Group DRO: its formula, what it learns, and its state."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from faster_isnet.common.batch import Batch
from faster_isnet.methods import ClassificationLoss, GroupDRO, Standard, group_dro
from faster_isnet.training.lit_classifier import LitClassifier
from marked_images import convolutional, correlated_images, trained, worst_group_accuracy
from marked_shapes import quiet_trainer


def batch(groups: Sequence[tuple[int, int]], seed: int = 0) -> Batch:
    images = torch.rand(len(groups), 4, generator=torch.Generator().manual_seed(seed))
    labels, attributes = map(torch.tensor, zip(*groups, strict=True))
    return Batch(images, labels, attributes=attributes)


def network(classes: int = 3) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(4, classes)


def means_of(net: nn.Module, data: Batch) -> dict[tuple[int, int], torch.Tensor]:
    """The mean loss of each group, by cross-entropy of its images."""
    assert data.labels is not None
    assert data.attributes is not None
    groups = list(zip(data.labels.tolist(), data.attributes.tolist(), strict=True))
    found = {}
    for group in dict.fromkeys(groups):
        members = torch.tensor([each == group for each in groups])
        found[group] = F.cross_entropy(net(data.images)[members], data.labels[members])
    return found


def test_it_learns_the_foreground_where_the_standard_classifier_uses_the_mark() -> None:
    data = correlated_images(320, 0.95)
    found = {}
    for method in (Standard(), GroupDRO()):
        torch.manual_seed(0)
        found[method.name] = worst_group_accuracy(trained(method, convolutional(), data))
    assert found["standard"] < 0.84
    assert found["group-dro"] > found["standard"] + 0.07


def test_weights_grow_with_the_losses_as_published() -> None:
    net, method, eta = network(), GroupDRO(step_size=0.7), 0.7
    batches = [batch([(0, 0), (0, 1), (1, 1), (0, 0)], 1), batch([(0, 1), (1, 1), (1, 1)], 2)]
    q = dict.fromkeys([(0, 0), (0, 1), (1, 1)], 1 / 3)
    for data in batches:
        means = means_of(net, data)
        # A group that is not in the batch has no loss.
        q = {g: w * math.exp(eta * means[g].item() if g in means else 0) for g, w in q.items()}
        q = {g: w / sum(q.values()) for g, w in q.items()}
        losses = method.training_losses(net, data)
        assert method.weights() == pytest.approx(q)
        expected = sum(q[group] * mean for group, mean in means.items())
        torch.testing.assert_close(losses.total, expected)
        assert losses.parts["worst_group"] == max(means.values())
        torch.testing.assert_close(losses.classification, F.cross_entropy(net(data.images),
                                                                          data.labels))  # fmt: skip


def test_the_gradient_is_the_weighted_one_of_the_groups() -> None:
    net, method, data = network(), GroupDRO(step_size=2.0), batch([(0, 0), (0, 1), (2, 0)] * 2)
    method.training_losses(net, data).total.backward()
    assert net.weight.grad is not None
    found, weights = net.weight.grad.clone(), method.weights()
    expected = sum(
        weights[group] * torch.autograd.grad(mean, net.weight)[0]
        for group, mean in means_of(net, data).items()
    )
    torch.testing.assert_close(found, expected)


def test_processes_train_as_one_that_has_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [batch([(0, 0), (0, 0), (0, 1), (1, 1)], 1), batch([(0, 0), (2, 1), (1, 1)], 2)]
    net, alone = network(), GroupDRO(step_size=0.8)
    joined = Batch(*(None if a is None else torch.cat([a, b])
                     for a, b in zip(*shares, strict=True)))  # type: ignore[arg-type]  # fmt: skip
    alone.training_losses(net, joined).total.backward()
    assert net.weight.grad is not None
    expected, net.weight.grad = net.weight.grad.clone(), None
    sent: list[Any] = []
    monkeypatch.setattr(group_dro, "gather", lambda own: [sent.append(own), own][1:])
    for data in shares:  # what each tells the others
        GroupDRO().training_losses(net, data)
    monkeypatch.setattr(group_dro, "gather", lambda own: sent)
    for data in shares:
        method = GroupDRO(step_size=0.8)
        (method.training_losses(net, data).total / len(shares)).backward()
        assert method.weights() == pytest.approx(alone.weights())
    torch.testing.assert_close(net.weight.grad, expected)


def test_a_later_group_has_the_weight_of_one_without_a_loss() -> None:
    net, late, known = network(), GroupDRO(step_size=0.5), GroupDRO(step_size=0.5)
    first, second = batch([(0, 0), (1, 1)]), batch([(0, 0), (1, 1), (2, 5)], 4)
    known._log_weights = {(2, 5): 0.0}
    for data in (first, second):
        late.training_losses(net, data)
        known.training_losses(net, data)
    assert late.weights() == pytest.approx(known.weights())
    assert late.weights()[2, 5] < 1 / 3


def test_validation_leaves_the_weights_alone() -> None:
    net, method = network(), GroupDRO(step_size=0.5)
    method.training_losses(net, batch([(0, 0), (0, 1), (1, 1)]))
    before, data = method.weights(), batch([(0, 0), (1, 1)], 5)
    losses = method.losses(net, data)
    assert method.weights() == before
    expected = sum(before[group] * mean for group, mean in means_of(net, data).items())
    torch.testing.assert_close(losses.total, expected)


def test_unknown_attributes_are_a_group_of_each_class() -> None:
    net, method = network(), GroupDRO()
    method.training_losses(net, batch([(0, 0), (0, -1), (1, -1), (1, 1)]))
    assert set(method.weights()) == {(0, 0), (0, -1), (1, -1), (1, 1)}
    method = GroupDRO()
    method.training_losses(net, Batch(torch.rand(2, 4), torch.tensor([0, 2])))
    assert set(method.weights()) == {(0, -1), (2, -1)}


def test_small_groups_are_adjusted_from_the_second_epoch_on() -> None:
    net, data = network(), batch([(0, 0), (0, 0), (0, 0), (0, 0), (1, 1)])
    plain, adjusted = GroupDRO(step_size=0.1), GroupDRO(step_size=0.1, adjustment=2.0)
    for method in (plain, adjusted):
        method.set_progress(0, 0)
        method.training_losses(net, data)
    assert adjusted.weights() == plain.weights()
    for epoch in (1, 2):
        for method in (plain, adjusted):
            method.set_progress(epoch, epoch)
            method.training_losses(net, data)
        ratio = adjusted.weights()[1, 1] / adjusted.weights()[0, 0]
        before = plain.weights()[1, 1] / plain.weights()[0, 0]
        assert ratio / before == pytest.approx(math.exp(epoch * 0.1 * 2.0 * (1 / 1 - 1 / 2)))


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_networks_of_all_kinds_have_a_finite_gradient(classes: int, mixed: bool) -> None:
    net = network(classes)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        losses = GroupDRO().training_losses(net, batch([(0, 0), (1, 0), (1, 1)]))
    losses.total.backward()
    assert net.weight.grad is not None
    assert bool(net.weight.grad.isfinite().all())
    assert bool(net.weight.grad.any())


def test_options_of_the_classification_loss_are_kept() -> None:
    net, data = network(), batch([(0, 0), (1, 0)])
    loss = ClassificationLoss(focusing=2.0)
    losses = GroupDRO(loss).losses(net, data)
    torch.testing.assert_close(losses.total, loss(net(data.images), data.labels))  # two of 1/2


def test_what_has_no_groups_is_refused() -> None:
    with pytest.raises(ValueError, match=r"group-dro' needs groups.*'multilabel'"):
        LitClassifier(network(), GroupDRO(ClassificationLoss("multilabel")))
    soft = Batch(torch.rand(2, 4), torch.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"class indices \[B\], got torch.float32 \[2, 3\]"):
        GroupDRO().training_losses(network(), soft)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step_size must be a number in"),
        ({"adjustment": -1.0}, "adjustment must be a number in"),
        ({"classification": ClassificationLoss(class_weights=[1, 2])}, "class_weights have no"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupDRO(**options)  # type: ignore[arg-type]


def test_a_resumed_training_is_the_same(tmp_path: Path) -> None:
    data = correlated_images(48, 0.8)
    items: list[Any] = list(zip(*data, strict=True))
    loader = DataLoader(items, 16)

    def fit(epochs: int, checkpoint: Path | None) -> LitClassifier:
        torch.manual_seed(0)
        method = GroupDRO(step_size=0.3, adjustment=3.0)
        lit = LitClassifier(convolutional(), method, schedule="constant")
        trainer = quiet_trainer(epochs)
        trainer.fit(lit, loader, loader, ckpt_path=checkpoint)
        assert trainer.callback_metrics["train/worst_group"] > 0
        assert trainer.callback_metrics["val/worst_group"] > 0
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return lit

    whole = fit(3, None)
    fit(1, None)
    resumed = fit(3, tmp_path / "1.ckpt")
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found)
    assert resumed.method.state() == whole.method.state()
    loaded = LitClassifier.load_from_checkpoint(tmp_path / "3.ckpt", classifier=convolutional())
    assert isinstance(loaded.method, GroupDRO)
    assert isinstance(whole.method, GroupDRO)
    assert loaded.method.weights() == pytest.approx(whole.method.weights())


@pytest.mark.parametrize("form", ["no attributes", "unknown ones"])
def test_an_epoch_without_any_attribute_is_refused(
    form: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = correlated_images(16, 0.5)
    unknown = whole._replace(attributes=torch.full((16,), -1))
    items = list(zip(*(whole[:3] if form == "no attributes" else unknown), strict=True))
    with pytest.raises(ValueError, match="none of the 16 images of the first epoch has an attrib"):
        fit_quietly(items, max_epochs=2)
    with caplog.at_level(logging.WARNING):
        fit_quietly(items, fast_dev_run=True)
    assert "none of the 8 images" in caplog.text


def test_groups_that_are_the_classes_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit_quietly(list(zip(*correlated_images(32, 1.0), strict=True)), max_epochs=3)
    assert caplog.text.count("'group-dro' cannot help") == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fit_quietly(list(zip(*correlated_images(32, 0.8), strict=True)), max_epochs=3)
    assert not caplog.text


def test_some_unknown_attributes_are_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    data = correlated_images(32, 0.5)
    assert data.attributes is not None
    data.attributes[:5] = -1
    with caplog.at_level(logging.WARNING):
        fit_quietly(list(zip(*data, strict=True)), max_epochs=2)
    assert caplog.text.count("5 of the 32 images of the first epoch have no attribute") == 1


def fit_quietly(items: list[Any], max_epochs: int = 1, **options: bool) -> None:
    torch.manual_seed(0)
    lit = LitClassifier(convolutional(), GroupDRO(), optimizer="adam")
    quiet_trainer(max_epochs, **options).fit(lit, DataLoader(items, 8))
