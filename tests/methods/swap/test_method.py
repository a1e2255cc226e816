"""A classifier that is trained on swapped backgrounds does not read them."""

from __future__ import annotations

import copy
from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from faster_isnet import NO_MASK
from faster_isnet.methods import Batch, ClassificationLoss, Losses, Standard, Swap
from faster_isnet.methods.swap.backgrounds import FILLS
from faster_isnet.methods.swap.method import symmetric_divergence
from faster_isnet.training.lit_classifier import LitClassifier
from marked_images import accuracies, convolutional, marked_images, trained


def losses_of(method: Swap, network: nn.Module, batch: Batch) -> Losses:
    torch.manual_seed(3)
    return method.training_losses(network, batch)


@pytest.fixture(scope="module")
def data() -> Batch:
    return marked_images(512)


@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLS)
def test_it_ignores_a_mark_that_the_standard_classifier_follows(data: Batch, fill: str) -> None:
    if fill == "inpaint":
        pytest.importorskip("cv2")
    standard = accuracies(trained(Standard(), convolutional(), data))
    assert standard["true"] > 0.98
    assert standard["false"] < 0.3
    torch.manual_seed(0)
    swap = accuracies(trained(Swap(fill=fill), convolutional(), data))
    assert min(swap.values()) > 0.9
    assert max(swap.values()) - min(swap.values()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("pool", [0, 64])
def test_batches_of_two_say_nothing_of_the_class_either(data: Batch, pool: int) -> None:
    """Were no image given its own background, batch norm could tell the class from it."""
    network = trained(Swap(pool=pool), convolutional(), data, epochs=2, batch_size=2)
    found = accuracies(network)
    assert min(found.values()) > 0.85
    assert abs(found["true"] - found["false"]) < 0.08


@pytest.mark.slow
def test_a_consistency_helps_where_most_images_keep_their_background(data: Batch) -> None:
    found = []
    for consistency in (0.0, 3.0):
        torch.manual_seed(0)
        method = Swap(share=0.1, consistency=consistency)
        found.append(accuracies(trained(method, convolutional(), data))["false"])
    without, with_it = found
    assert with_it > without + 0.02


def test_without_masks_it_is_the_standard_loss(data: Batch) -> None:
    batch, network = data.select(torch.arange(8)), convolutional().eval()
    expected = Standard().losses(network, batch).total
    for masks in (None, torch.full((8, 1, 16, 16), NO_MASK)):
        for method in (Swap(), Swap(fill="image", pool=4), Swap(consistency=2.0)):
            losses = losses_of(method, network, batch._replace(masks=masks))
            torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(Swap().losses(network, batch).total, expected)


def test_it_trains_on_the_background_of_others_alone() -> None:
    """A network that reads the foreground sees no difference, one that reads the rest does."""
    batch = marked_images(8)

    class Part(nn.Module):
        def __init__(self, part: Tensor) -> None:
            super().__init__()
            self.part = part

        def forward(self, images: Tensor) -> Tensor:
            read = (images * self.part).mean((1, 2, 3))
            return 100 * torch.stack([read, -read], 1)

    assert batch.masks is not None
    inside, outside = Part(batch.masks[:1]), Part(1 - batch.masks[:1])
    method = Swap()
    assert torch.equal(losses_of(method, inside, batch).logits, method.losses(inside, batch).logits)
    assert not torch.allclose(
        losses_of(method, outside, batch).logits, method.losses(outside, batch).logits
    )


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_consistency_is_that_of_swapped_images(task: str) -> None:
    batch = marked_images(6, classes=3)
    assert batch.masks is not None
    assert batch.labels is not None
    batch.masks[:2] = NO_MASK
    if task == "multilabel":
        batch = batch._replace(labels=(torch.rand(6, 3) < 0.5).float())
    network = convolutional(3).eval()
    loss = ClassificationLoss(task)
    with_term = losses_of(Swap(loss, consistency=0.5), network, batch)
    without = losses_of(Swap(loss), network, batch)
    torch.testing.assert_close(with_term.logits, without.logits)
    apart = symmetric_divergence(without.logits, network(batch.images), task)
    assert not apart[:2].any()
    changed = (without.logits - network(batch.images)).abs().sum(1) > 1e-6
    expected = apart.sum() / changed.sum()
    torch.testing.assert_close(with_term.parts["consistency"], expected)
    torch.testing.assert_close(with_term.total, without.total + 0.5 * expected)


def test_what_dropout_does_to_an_image_that_is_not_swapped_is_no_inconsistency() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(256, 2)).train()
    losses = losses_of(Swap(consistency=1.0), network, marked_images(4)._replace(masks=None))
    assert losses.parts["consistency"] == 0


def test_the_divergence_is_the_mean_of_two_kullback_leibler_divergences() -> None:
    first, second = torch.randn(5, 4), torch.randn(5, 4)
    for task, kind in (("multiclass", "softmax"), ("multilabel", "binary")):
        if kind == "softmax":
            p, q = (torch.distributions.Categorical(logits=x) for x in (first, second))
            expected = (p.probs * (p.logits - q.logits)).sum(1)
            expected = (expected + (q.probs * (q.logits - p.logits)).sum(1)) / 2
        else:
            p, q = (torch.distributions.Bernoulli(logits=x) for x in (first, second))
            kl = torch.distributions.kl_divergence
            expected = (kl(p, q) + kl(q, p)).mean(1) / 2
        torch.testing.assert_close(symmetric_divergence(first, second, task), expected)


def test_a_single_logit_is_two_classes() -> None:
    first, second = torch.randn(5, 1), torch.randn(5, 1)
    two = [torch.cat([torch.zeros_like(x), x], 1) for x in (first, second)]
    torch.testing.assert_close(symmetric_divergence(first, second), symmetric_divergence(*two))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, r"share must be a number in \[0, 1\], got 1.5"),
        ({"plain": -1}, r"plain must be a number in \[0, 1\], got -1"),
        ({"pool": -1}, r"pool must be a number in \[0, inf\), got -1"),
        ({"consistency": -1.0}, "consistency must be a number"),
        ({"fill": "grey"}, "unknown fill 'grey'"),
        ({"share": 0.0, "consistency": 1.0}, "share=0 swaps none; set consistency=0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Swap(**options)


def test_masks_are_needed_if_something_is_swapped() -> None:
    assert Swap().needs_masks()
    assert Swap().reads_masks()
    assert not Swap(share=0.0).needs_masks()
    assert not Swap(share=0.0).reads_masks()


def test_it_trains_and_goes_on_from_a_checkpoint_and_is_exported(tmp_path: Path) -> None:
    batch = marked_images(16)
    assert batch.labels is not None
    assert batch.masks is not None
    loader = DataLoader(list(zip(*batch[:3], strict=True)), batch_size=8)

    def fit(epochs: int, checkpoint: Path | None) -> LitClassifier:
        torch.manual_seed(0)
        method = Swap(consistency=1.0, plain=0.5)
        lit = LitClassifier(convolutional(), method, schedule="constant")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(lit, loader, loader, ckpt_path=checkpoint)
        assert {"train/consistency", "val/loss"} <= set(trainer.callback_metrics)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return lit

    whole = fit(2, None)
    fit(1, None)
    resumed = fit(2, tmp_path / "1.ckpt")
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found)
    loaded = LitClassifier.load_from_checkpoint(
        tmp_path / "2.ckpt", classifier=convolutional(), method=Swap()
    )
    exported = torch.export.export(copy.deepcopy(loaded.deployed).eval(), (batch.images[:2],))
    torch.testing.assert_close(
        exported.module()(batch.images[:2]), whole.deployed.eval()(batch.images[:2])
    )
