"""A U-Net finds the foreground, and the classifier reads nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK, Explainer
from faster_isnet.methods import Batch, Standard, method_names
from faster_isnet.methods.segment_classify import SegmentClassify, SegmentedClassifier
from faster_isnet.models import build_backbone
from faster_isnet.training.export import export
from faster_isnet.training.lit_classifier import LitClassifier
from marked_shapes import accuracy, dice, marked_shapes, quiet_trainer, small_network, train

ENCODER = "tu-mobilenetv3_small_050"  # a fast one


class Bright(nn.Module):
    """Takes what is brighter than the image's mean for the foreground."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True)


def cutting(classifier: nn.Module, threshold: float = 0.5, fill: float = 0.0) -> nn.Module:
    return SegmentedClassifier(Bright(), classifier, threshold, fill).eval()


def batch(count: int = 6) -> Batch:
    images, labels, masks = marked_shapes(count)
    return Batch(images, labels, masks)


@pytest.mark.slow
def test_a_mark_in_the_background_is_not_learnt() -> None:
    data = marked_shapes(128)
    images, labels, masks = marked_shapes(100, 1, "wrong")
    assert accuracy(train(Standard(), data).deployed, images, labels) < 0.7
    network = train(SegmentClassify(ENCODER), data).deployed
    assert isinstance(network, SegmentedClassifier)
    with torch.no_grad():
        assert dice((network.segment(images) > 0).float(), masks) > 0.9
    assert accuracy(network, images, labels) > 0.9


def test_the_classifier_reads_what_is_cut_out() -> None:
    images = torch.rand(3, 3, 8, 8)
    brighter = images.mean(1, keepdim=True) > images.mean((1, 2, 3), keepdim=True)
    cut = cutting(nn.Identity())(images)
    torch.testing.assert_close(cut, images * brighter)
    filled = cutting(nn.Identity(), fill=0.3)(images)
    torch.testing.assert_close(filled, torch.where(brighter, images, 0.3))


def test_the_threshold_is_a_probability() -> None:
    """The image is normalised: 2 σ above the mean is a probability of 0.88."""
    images = torch.randn(2, 3, 64, 64)
    shares = [(cutting(nn.Identity(), t)(images) != 0).float().mean() for t in (0.3, 0.5, 0.8)]
    assert shares[0] > shares[1] > shares[2] > 0
    z = torch.nn.functional.layer_norm(images, images.shape[1:]).mean(1, keepdim=True)
    expected = (z.sigmoid() > 0.8).expand_as(images)
    assert torch.equal(cutting(nn.Identity(), 0.8)(images) != 0, expected)


def test_both_networks_are_trained_by_their_own_loss_alone() -> None:
    network, method, data = (m := SegmentClassify(ENCODER)).build(small_network()), m, batch()
    losses = method.losses(network, data)
    of_segmenter = torch.autograd.grad(
        losses.parts["segmentation"], network.parameters(), retain_graph=True, allow_unused=True
    )
    of_classifier = torch.autograd.grad(
        losses.classification, network.parameters(), retain_graph=True, allow_unused=True
    )
    for (name, _), first, second in zip(
        network.named_parameters(), of_segmenter, of_classifier, strict=True
    ):
        assert (first is not None) == name.startswith("segmenter."), name
        assert (second is not None) == name.startswith("classifier."), name
    torch.testing.assert_close(losses.total, losses.classification + losses.parts["segmentation"])


@pytest.mark.parametrize("masks", [None, torch.full((6, 1, 32, 32), NO_MASK)])
def test_images_without_a_mask_count_for_the_classification_alone(masks: Tensor | None) -> None:
    method = SegmentClassify(ENCODER)
    network = method.build(small_network()).eval()
    losses = method.losses(network, batch()._replace(masks=masks))
    assert losses.parts["segmentation"] == 0
    torch.testing.assert_close(losses.total, losses.classification)
    losses.total.backward()
    for parameter in network.parameters():  # as several processes must have gradients of the same
        assert parameter.grad is not None
    assert all((p.grad == 0).all() for p in network.segmenter.parameters() if p.grad is not None)


def test_validation_sees_what_is_deployed() -> None:
    method, data = SegmentClassify(ENCODER), batch()
    network = method.build(small_network()).eval()
    assert torch.equal(method.losses(network, data).logits, method.deployed(network)(data.images))


def test_nothing_of_the_background_is_explained() -> None:
    network, images = cutting(small_network()), batch().images
    cut = cutting(nn.Identity())(images) == 0
    for options in ({"input_rule": "zb"}, {}):
        heatmap = Explainer(network, "flex", **options)(images, "highest-logit").heatmap[:, 0]
        assert (heatmap[cut] == 0).all()
        assert (heatmap != 0).any()


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 64), (40, 56)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_of_any_proportions(size: tuple[int, int], channels: int) -> None:
    classifier = small_network()
    classifier[0] = nn.Conv2d(channels, 8, 3, padding=1)  # type: ignore[index]
    method = SegmentClassify(ENCODER)
    masks = (torch.rand(3, 1, *size) < 0.5).float()
    data = Batch(torch.rand(3, channels, *size), torch.tensor([0, 1, 1]), masks)
    losses = method.losses(method.build(classifier), data)
    losses.total.backward()
    assert losses.total.isfinite()


def test_a_training_goes_on_and_its_network_is_read_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    loader = DataLoader(TensorDataset(*marked_shapes(32)), 8, shuffle=True)

    def lit() -> LitClassifier:
        torch.manual_seed(0)
        method = SegmentClassify(ENCODER, threshold=0.4, fill=0.1)
        return LitClassifier(build_backbone("convnet", 2), method, schedule="constant")

    def fit(model: LitClassifier, epochs: int, **options: Any) -> None:
        keep = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
        trainer = quiet_trainer(epochs, enable_checkpointing=True, callbacks=[keep])
        torch.manual_seed(2)
        trainer.fit(model, loader, **options)

    whole, parts, resumed = lit(), lit(), lit()
    fit(whole, 2)
    fit(parts, 1)
    fit(resumed, 2, ckpt_path=tmp_path / "last.ckpt")
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    read = LitClassifier.load_from_checkpoint(tmp_path / "last.ckpt").eval()
    images = batch().images
    assert torch.equal(read.deployed(images), resumed.eval().deployed(images))


@pytest.mark.slow
def test_the_whole_network_is_exported(tmp_path: Path) -> None:
    network = SegmentClassify(ENCODER).build(small_network()).eval()
    written = export(network, tmp_path, (3, 40, 48), ["onnx", "state_dict"])
    again = SegmentClassify(ENCODER).build(small_network()).eval()
    again.load_state_dict(torch.load(written["state_dict"], weights_only=True))
    images = torch.rand(2, 3, 40, 48)
    assert torch.equal(again(images), network(images))


def test_bfloat16() -> None:
    method, data = SegmentClassify(ENCODER), batch()
    network = method.build(small_network())
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(network, data)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_several_labels_of_an_image() -> None:
    method, data = SegmentClassify(ENCODER), batch()
    method.task = "multilabel"
    labels = torch.tensor([[0.0, 1.0], [1.0, 1.0]]).repeat(3, 1)
    losses = method.losses(method.build(small_network()), data._replace(labels=labels))
    assert losses.total.isfinite()


def test_it_is_found_by_its_name() -> None:
    assert method_names()["segment-classify"] is SegmentClassify
    assert SegmentClassify().needs_masks()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, r"threshold must be a number in \(0, 1\]"),
        ({"threshold": 1}, "threshold must be below 1"),
        ({"fill": float("nan")}, "fill must be a number"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentClassify(**options)


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        SegmentClassify("resnet81").build(small_network())


def test_only_images_of_two_dimensions_are_segmented() -> None:
    method = SegmentClassify(ENCODER)
    with pytest.raises(ValueError, match=r"takes images \[B, C, H, W\], got \[2, 3, 8, 8, 8\]"):
        method.losses(method.build(nn.Identity()), Batch(torch.rand(2, 3, 8, 8, 8)))


def test_the_package_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'faster-isnet\[segment\]'"):
        SegmentClassify()
