"""HAM as a method: its loss, its labels and masks, and that it is trained, kept and deployed."""

from __future__ import annotations

import json
from pathlib import Path

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK
from faster_isnet.cli import main
from faster_isnet.methods import Batch, ClassificationLoss, method_names
from faster_isnet.methods.ham.losses import outside_loss
from faster_isnet.methods.ham.method import HAM
from faster_isnet.methods.ham.network import HAMNetwork
from faster_isnet.models import build_backbone, convnet
from faster_isnet.training.image_classifier import ImageClassifier
from faster_isnet.training.lit_classifier import LitClassifier
from toy_runs import fit

SHAPE = (3, 16, 16)


def batch(count: int = 6, classes: int = 3) -> Batch:
    masks = torch.zeros(count, 1, 16, 16)
    masks[..., 4:12, 2:10] = 1
    return Batch(torch.rand(count, 3, 16, 16), torch.arange(count) % classes, masks)


def built(classes: int = 3, **options: object) -> tuple[HAM, HAMNetwork]:
    method = HAM(image_shape=SHAPE, **options)  # type: ignore[arg-type]
    return method, method.build(build_backbone("convnet", max(classes, 2))).eval()


def test_it_is_found_by_its_name() -> None:
    assert method_names()["ham"] is HAM


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    weights = {"mask_weight": 0.3, "abnormality_weight": 0.2, "bound_weight": 2, "union_weight": 5}
    method, network = built(**weights)
    images, labels, masks, _ = batch()
    losses = method.losses(network, Batch(images, labels, masks))
    expected = losses.classification
    for name, loss in losses.parts.items():
        assert loss > 0, name
        expected = expected + weights[f"{name}_weight"] * loss
    torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(losses.classification, F.cross_entropy(network(images), labels))


@pytest.mark.parametrize("part", ["mask", "abnormality", "bound", "union"])
def test_every_part_trains_the_features_alone(part: str) -> None:
    method, network = built()
    loss = method.losses(network, batch()).parts[part]
    loss.backward()
    gradient = network.classifier.block1[0].weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_the_union_is_of_the_classes_that_are_present() -> None:
    method, network = built()
    with torch.no_grad():  # maps of all sizes, of which the last class's is everywhere the largest
        network.abnormality.weight.fill_(500.0)
        network.classes.weight.copy_(torch.tensor([[100.0], [200.0], [900.0]]).expand(3, 64))
    images, _, masks, _ = batch(2)
    present, absent = (
        method.losses(network, Batch(images, torch.tensor([label, label]), masks)).parts
        for label in (2, 0)
    )
    found = network.attend(images)
    smaller = (100 / 500) * found.abnormality_map
    expected = outside_loss(found.abnormality_map, smaller, torch.ones(2, 1))
    torch.testing.assert_close(absent["union"], expected)
    assert present["union"] < absent["union"]


def test_without_a_mask_all_terms_but_the_mask_loss_are_left() -> None:
    method, network = built()
    images, labels, masks, _ = batch()
    whole = method.losses(network, Batch(images, labels, masks))
    for none in (None, torch.full_like(masks, NO_MASK)):
        losses = method.losses(network, Batch(images, labels, none))
        assert losses.parts["mask"] == 0
        for name in ("abnormality", "bound", "union"):
            torch.testing.assert_close(losses.parts[name], whole.parts[name])
        torch.testing.assert_close(losses.classification, whole.classification)


def test_images_without_a_mask_do_not_count_for_the_mask_loss() -> None:
    method, network = built()
    images, labels, masks, _ = batch()
    some = masks.clone()
    some[3:] = NO_MASK
    found = method.losses(network, Batch(images, labels, some)).parts["mask"]
    alone = method.losses(network, Batch(images[:3], labels[:3], masks[:3])).parts["mask"]
    torch.testing.assert_close(found, alone)


def test_masks_are_not_read_without_their_weight() -> None:
    method, network = built(mask_weight=0)
    assert not method.reads_masks()
    assert not method.needs_masks()
    wrong = batch()._replace(masks=torch.full((6, 1, 16, 16), 0.5))
    assert method.losses(network, wrong).parts["mask"] == 0
    method, network = built()
    assert method.needs_masks()
    with pytest.raises(ValueError, match="masks must hold 0 and 1 only"):
        method.losses(network, wrong)


def test_multi_label() -> None:
    method, network = built(classification=ClassificationLoss("multilabel"))
    images, _, masks, _ = batch(4)
    labels = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]])
    losses = method.losses(network, Batch(images, labels, masks))
    found = network.attend(images)
    wanted = torch.tensor([[1.0], [0.0], [1.0], [0.0]])  # whether any class is present
    torch.testing.assert_close(
        losses.parts["abnormality"],
        F.binary_cross_entropy_with_logits(found.abnormality, wanted),
    )
    with_finding = Batch(images[[0, 2]], labels[[0, 2]], masks[[0, 2]])
    for name in ("mask", "bound", "union"):
        torch.testing.assert_close(
            losses.parts[name], method.losses(network, with_finding).parts[name]
        )
    nothing = method.losses(network, Batch(images, torch.zeros_like(labels), masks))
    assert all(nothing.parts[name] == 0 for name in ("mask", "bound", "union"))
    assert nothing.total.isfinite()


def test_soft_labels_of_one_class_are_hard_ones() -> None:
    method, network = built()
    images, labels, masks, _ = batch()
    hard = method.losses(network, Batch(images, labels, masks))
    soft = method.losses(network, Batch(images, F.one_hot(labels, 3).float(), masks))
    torch.testing.assert_close(soft.total, hard.total)


class YesNo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = convnet(2)[:5], nn.Linear(64, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_single_logit_for_yes_or_no() -> None:
    method = HAM(image_shape=SHAPE)
    network = method.build(YesNo()).eval()
    images, _, masks, _ = batch(4)
    labels = torch.tensor([0, 1, 0, 1])
    losses = method.losses(network, Batch(images, labels, masks))
    assert losses.logits.shape == (4, 1)
    soft = torch.stack([1 - labels, labels], 1).float()
    again = method.losses(network, Batch(images, soft, masks))
    torch.testing.assert_close(again.total, losses.total)


def test_autocast_changes_little_and_losses_are_in_float32() -> None:
    method, network = built()
    images, labels, masks, _ = batch()
    exact = method.losses(network, Batch(images, labels, masks))
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(network, Batch(images, labels, masks))
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.total, exact.total, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_weight": -1}, "mask_weight must be a number in"),
        ({"union_weight": float("nan")}, "union_weight must be"),
        ({"dropout": 2}, r"dropout must be a number in \[0, 1\], got 2"),
        ({"sharpness": 0}, "sharpness must be a number in"),
        ({"width": 0}, "width must be a number in"),
    ],
)
def test_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HAM(**options)  # type: ignore[arg-type]


def test_it_must_know_the_shape_of_the_images() -> None:
    with pytest.raises(ValueError, match=r"shape of the images .* give image_shape=\(C, H, W\)"):
        LitClassifier(convnet(3), HAM())
    lit = ImageClassifier(["a", "b"], SHAPE, backbone="convnet", method=HAM())
    assert isinstance(lit.deployed, HAMNetwork)
    network = lit.deployed
    assert HAM().build(network) is network


def trained(out: Path, epochs: int, resumed: bool = False) -> LitClassifier:
    torch.manual_seed(0)
    method = HAM(image_shape=SHAPE, width=32)
    lit = LitClassifier(build_backbone("convnet", 3), method, schedule="constant")
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[ModelCheckpoint(out, save_last=True)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(1)
    loaders = (
        DataLoader(TensorDataset(*batch(12)[:3]), 6, shuffle=mixed) for mixed in (True, False)
    )
    trainer.fit(lit, *loaders, ckpt_path=out / "last.ckpt" if resumed else None)
    return lit


def test_it_is_trained_resumed_and_read_again(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 2)
    trained(tmp_path / "parts", 1)
    resumed = trained(tmp_path / "parts", 2, resumed=True)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    read = LitClassifier.load_from_checkpoint(tmp_path / "parts" / "last.ckpt").eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(read.deployed(images), resumed.deployed.eval()(images))
    assert read.deployed.mix[0][0].out_channels == 32


@pytest.mark.slow
def test_by_the_command_line(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(images, run, "--method", "ham", "--method.bound_weight", "0.1")
    assert main(["test", str(run)]) == 0
    assert json.loads((run / "test" / "metrics.json").read_text())["sets"]
    out = ["--formats", "onnx", "safetensors", "--out", str(tmp_path / "exported")]
    assert main(["export", str(run / "checkpoints" / "last.ckpt"), *out]) == 0
    described = json.loads((tmp_path / "exported" / "model.json").read_text())
    assert described["architecture"] == "HAMNetwork of convnet"
    assert described["output"]["shape"] == ["batch", 3]
