"""The refit of the last layer: what it learns, when it happens, and what it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from faster_isnet.common.batch import Batch
from faster_isnet.methods import ClassificationLoss, LastLayer, Method, Standard
from faster_isnet.methods.last_layer.features import last_layer_features
from faster_isnet.training.lit_classifier import LitClassifier
from marked_images import convolutional, correlated_images, trained, worst_group_accuracy
from marked_shapes import quiet_trainer


def loader(batch: tuple[Tensor | None, ...], size: int = 32, shuffle: bool = False) -> Any:
    parts = [part for part in batch if part is not None]
    return DataLoader(list(zip(*parts, strict=True)), size, shuffle=shuffle)  # type: ignore[arg-type]


VALIDATION = correlated_images(120, 0.8, 9)


def fit(
    method: Method,
    data: Batch,
    val: Any = None,
    epochs: int = 1,
    network: nn.Module | None = None,
    checkpoint: Path | None = None,
    **options: Any,
) -> tuple[LitClassifier, lightning.Trainer]:
    torch.manual_seed(0)
    network = convolutional() if network is None else network
    lit = LitClassifier(network, method, optimizer="adam", schedule="cosine")
    trainer = quiet_trainer(epochs, **options)
    shuffled = loader(data, shuffle=True)
    trainer.fit(lit, shuffled, loader(VALIDATION) if val is None else val, ckpt_path=checkpoint)
    return lit.eval(), trainer


def weights(network: nn.Module, layer: str = "8") -> Tensor:
    return network.get_submodule(layer).weight.detach().clone()  # type: ignore[operator, union-attr]


def test_it_ignores_the_mark_more_than_the_standard_classifier() -> None:
    data, val = correlated_images(480, 0.95), correlated_images(600, 0.95, 50)
    torch.manual_seed(0)
    method = LastLayer()
    network = trained(method, convolutional(features=128), data, epochs=8)
    standard = worst_group_accuracy(network)  # another test shows that it is that
    method.refit(network, last_layer_features(network, [val]))
    assert worst_group_accuracy(network) > standard + 0.07


def test_all_but_the_refitted_layer_is_that_of_a_standard_training() -> None:
    data = correlated_images(96, 0.9)
    method = LastLayer()
    lit, _ = fit(method, data, epochs=3)
    standard, _ = fit(Standard(), data, epochs=3)
    for name, expected in standard.net.state_dict().items():
        assert torch.equal(expected, lit.net.state_dict()[name]) == (not name.startswith("8."))
    method.restore(lit.net)
    for expected, found in zip(standard.parameters(), lit.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_checkpoints_hold_the_refitted_layer_that_was_validated(tmp_path: Path) -> None:
    data = correlated_images(96, 0.9)
    saving = ModelCheckpoint(tmp_path, "{epoch}", monitor="val/loss", save_top_k=-1, save_last=True)
    method = LastLayer()
    lit, trainer = fit(method, data, epochs=3, callbacks=[saving], enable_checkpointing=True)
    losses = []
    for epoch in range(3):
        path = tmp_path / f"epoch={epoch}.ckpt"
        loaded = LitClassifier.load_from_checkpoint(path, classifier=convolutional())
        (found,) = quiet_trainer(1).validate(loaded, loader(VALIDATION), verbose=False)
        losses.append(found["val/loss"])
    assert losses[-1] == pytest.approx(float(trainer.callback_metrics["val/loss"]))
    assert float(saving.best_model_score) == pytest.approx(min(losses))  # type: ignore[arg-type]
    # Validating a trained classifier, on whatever images, changes nothing.
    quiet_trainer(1).validate(loaded, loader(correlated_images(60, 0.5, 3)), verbose=False)
    assert torch.equal(weights(loaded.net), weights(lit.net))
    method.restore(lit.net)
    assert not torch.equal(weights(loaded.net), weights(lit.net))


def test_a_resumed_training_is_the_same(tmp_path: Path) -> None:
    data, options = correlated_images(96, 0.9), {"epochs": 2}
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    saved = {"callbacks": [saving], "enable_checkpointing": True}
    whole, _ = fit(LastLayer(), data, **options, **saved)
    for epoch in range(2):  # in its middle, and at its end, where nothing is left to train
        path = tmp_path / f"epoch={epoch}.ckpt"
        resumed, _ = fit(LastLayer(), data, **options, checkpoint=path)
        for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(expected, found)
        layers = [lit.method.state()["trained"]["weight"] for lit in (whole, resumed)]
        assert torch.equal(*layers)


def test_the_layer_is_refitted_at_the_end_if_no_validation_was() -> None:
    data, method = correlated_images(64, 0.9), LastLayer()
    lit, _ = fit(method, data, epochs=3, check_val_every_n_epoch=2)
    refitted = weights(lit.net)
    method.restore(lit.net)
    assert not torch.equal(refitted, weights(lit.net))
    method.refit(lit.net, last_layer_features(lit.net, [VALIDATION]))
    torch.testing.assert_close(refitted, weights(lit.net))


def test_several_refits_leave_the_trained_layer_alone() -> None:
    method, network = LastLayer(), convolutional()
    trained = weights(network)
    for val in (VALIDATION, correlated_images(60, 0.5, 3)):
        method.refit(network, last_layer_features(network, [val]))
        assert not torch.equal(weights(network), trained)
    method.restore(network)
    assert torch.equal(weights(network), trained)
    assert method.state() == {}


def test_the_set_named_val_is_fitted() -> None:
    data = correlated_images(64, 0.9)
    other = correlated_images(40, 0.5, 30)._replace(attributes=None)
    loaders = {"elsewhere": loader(other), "val": loader(VALIDATION)}
    several, trainer = fit(LastLayer(), data, loaders)
    alone, _ = fit(LastLayer(), data)
    assert torch.equal(weights(several.net), weights(alone.net))
    assert "val/elsewhere/loss" in trainer.callback_metrics
    listed, _ = fit(LastLayer(), data, [loader(VALIDATION), loader(other)])
    assert torch.equal(weights(listed.net), weights(alone.net))


def test_images_without_an_attribute_are_left_out() -> None:
    data = correlated_images(64, 0.9)
    more = correlated_images(160, 0.3, 9)
    assert more.attributes is not None
    more.attributes[torch.arange(160) % 4 == 0] = -1
    known = more.select((more.attributes != -1).nonzero().flatten())
    found = [weights(fit(LastLayer(), data, loader(each))[0].net) for each in (more, known)]
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    ("head", "precision"),
    [
        (lambda: nn.Linear(16, 2, bias=False), "32-true"),
        (lambda: nn.Linear(16, 1), "32-true"),
        (lambda: nn.Sequential(nn.Unflatten(1, (16, 1, 1)), nn.Conv2d(16, 2, 1), nn.Flatten()),
         "32-true"),
        (lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 2)), "64-true"),
        (lambda: nn.Linear(16, 2), "bf16-mixed"),
    ],
    ids=["no bias", "one logit", "convolution", "dropout", "mixed precision"],
)  # fmt: skip
def test_heads_of_all_kinds(head: Callable[[], nn.Module], precision: str) -> None:
    torch.manual_seed(0)
    network = convolutional()
    network[8] = head()
    method = LastLayer()
    val = correlated_images(300, 0.6, 9)
    lit, _ = fit(method, correlated_images(320, 0.95), loader(val), 4, network,
                 precision=precision)  # fmt: skip
    refitted = worst_group_accuracy(lit.net.float())
    method.restore(lit.net)
    assert refitted > worst_group_accuracy(lit.net) + 0.1


class Scaled(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 2  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Scaled(*convolutional()), "the logits are not the output of the last linear layer, '8'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 2), nn.Softmax(1)), "something changes them"),
        (
            nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(256, 2))),
            "'1', computes its weights from other parameters",
        ),
        (nn.Sequential(nn.Conv2d(1, 2, 16), nn.Flatten()), "no linear layer ran"),
    ],
)
def test_networks_without_a_last_linear_layer_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        last_layer_features(network, [VALIDATION])


def with_attributes(attributes: Tensor | None) -> Batch:
    return VALIDATION._replace(attributes=attributes)


LABELS = VALIDATION.needed("labels")


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (with_attributes(None), "none of the 120 validation images has an attribute.*give batches"),
        (with_attributes(torch.full((120,), -1)), "none of the 120 validation images"),
        (with_attributes(LABELS), "class 0 with attribute 0 only, class 1 with attribute 1 only"),
        (with_attributes(0 * LABELS), "class 0 with attribute 0 only, class 1 with attribute 0"),
        (with_attributes(LABELS * (torch.arange(120) % 2)), "too: class 0 with attribute 0 only;"),
        (with_attributes(2 * LABELS + torch.arange(120) % 2), "each attribute goes with one class"),
        (VALIDATION.select((LABELS == 1).nonzero().flatten()), r"of the classes \[0\]"),
    ],
)
def test_validation_images_that_cannot_help_are_refused(
    val: Batch, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = correlated_images(32, 0.5)
    with pytest.raises(ValueError, match=message):
        fit(LastLayer(), data, loader(val, 120), num_sanity_val_steps=0)
    with caplog.at_level(logging.WARNING):
        fit(LastLayer(), data, loader(val, 120), fast_dev_run=True)
    assert "the last layer stays as it is" in caplog.text


def test_a_training_without_validation_is_refused_before_it_begins() -> None:
    lit = LitClassifier(convolutional(), LastLayer())
    with pytest.raises(ValueError, match="refits the last layer on validation images, but there"):
        quiet_trainer(1).fit(lit, loader(VALIDATION))


def test_pairs_that_validation_lacks_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    attributes = LABELS * 2 + torch.arange(120) % 2  # 0 and 1 of one class, 2 and 3 of the other
    attributes[:40] = 0
    with caplog.at_level(logging.WARNING):
        fit(LastLayer(), correlated_images(32, 0.5), loader(with_attributes(attributes)), epochs=3)
    text = "no images of 3 of the pairs of a label and an attribute, such as (0, 2), (0, 3), (1, 1)"
    assert caplog.text.count(text) == 1


def test_several_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'last-layer' needs groups.*'multilabel'"):
        LitClassifier(convolutional(), LastLayer(ClassificationLoss("multilabel")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": [1.0, 0.0]}, "strengths must be a number in"),
        ({"strengths": []}, "strengths must be one number or more"),
        ({"subsets": 0}, "subsets must be a number in"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LastLayer(**options)
