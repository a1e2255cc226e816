"""The foreground alone is trained and tested on, and nothing else is taken for it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK
from faster_isnet.methods import Batch, ClassificationLoss, Standard, method_names
from faster_isnet.methods.foreground import keep_foreground
from faster_isnet.methods.masked import Masked
from faster_isnet.training.lit_classifier import LitClassifier
from marked_shapes import accuracy, marked_shapes, quiet_trainer, small_network, train


def batch(count: int = 6) -> Batch:
    images, labels, masks = marked_shapes(count)
    return Batch(images, labels, masks)


@pytest.mark.slow
def test_a_mark_in_the_background_is_not_learnt() -> None:
    data = marked_shapes(256)
    images, labels, masks = marked_shapes(200, 1, "wrong")
    assert accuracy(train(Standard(), data).deployed, images, labels) < 0.6
    method = Masked()
    network = train(method, data).deployed
    assert accuracy(network, method.inputs(Batch(images, labels, masks)), labels) > 0.95


@pytest.mark.parametrize("fill", [0.0, 0.4])
def test_the_foreground_stays_and_the_background_is_filled(fill: float) -> None:
    images, _, masks, _ = data = batch()
    inside = masks.expand_as(images) == 1
    cut = Masked(fill).inputs(data)
    assert torch.equal(cut[inside], images[inside])
    assert (cut[~inside] == fill).all()


def test_other_backgrounds_change_nothing() -> None:
    images, _, masks, _ = data = batch()
    network, method = small_network().eval(), Masked()
    other = torch.where(masks == 1, images, torch.rand_like(images))
    changed = method.losses(network, data._replace(images=other))
    assert torch.equal(method.losses(network, data).logits, changed.logits)


def test_images_without_a_mask_are_left_out_of_a_loss() -> None:
    data = batch()
    data.masks[1::2] = NO_MASK  # type: ignore[index]
    network, method = small_network().eval(), Masked()
    losses = method.losses(network, data)
    alone = method.losses(network, data.select(torch.tensor([0, 2, 4])))
    torch.testing.assert_close(losses.total, alone.total)
    torch.testing.assert_close(losses.logits, alone.logits)
    assert losses.samples is not None
    assert losses.samples.tolist() == [True, False] * 3
    assert losses.parts["left_out"] == 0.5


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_accuracy_is_that_of_the_others(task: str) -> None:
    """Of the images that are left out, there are no logits."""
    images, labels, masks = (part[:6] for part in marked_shapes(6))
    if task == "multilabel":
        labels = torch.stack([labels, 1 - labels], 1).float()
    masks[1::2] = NO_MASK
    method = Masked(classification=ClassificationLoss(task))
    lit = LitClassifier(small_network(), method).eval()
    loader = DataLoader(TensorDataset(images, labels, masks), 6)
    (logged,) = quiet_trainer(1).validate(lit, loader, verbose=False)
    logits = lit.deployed(keep_foreground(images, masks))[::2]
    right = logits > 0 if task == "multilabel" else logits.argmax(1)
    assert logged["val/accuracy"] == pytest.approx(float((right == labels[::2]).float().mean()))
    assert logged["val/left_out"] == 0.5


def test_an_image_without_a_mask_is_not_predicted() -> None:
    data = batch()
    data.masks[3] = NO_MASK  # type: ignore[index]
    lit = LitClassifier(small_network(), Masked()).eval()
    for refused in (data, data._replace(masks=None)):
        with pytest.raises(ValueError, match=r"images \[.*3.*\] of the batch have no mask; make"):
            lit.predict_step(refused, 0)
    assert lit.predict_step(batch(), 0).shape == (6, 2)


def test_a_batch_without_any_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="have no mask; make"):
        Masked().losses(small_network(), batch()._replace(masks=None))


def test_it_is_found_by_its_name() -> None:
    assert method_names()["masked"] is Masked
    assert Masked.needs_every_mask
    assert Masked().needs_masks()


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), -float("inf")])
def test_the_fill_is_finite(fill: float) -> None:
    with pytest.raises(ValueError, match="fill must be a number"):
        Masked(fill)
