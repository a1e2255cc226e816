"""Methods whose losses are made of gradients, in training with Lightning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK
from faster_isnet.methods import GAIN, Batch, ClassificationLoss, Method, RightReasons
from faster_isnet.models import build_backbone
from faster_isnet.training.lit_classifier import LitClassifier

METHODS = {"rrr": RightReasons, "gain": GAIN}
PARTS = {"rrr": {"gradient"}, "gain": {"mask", "mining"}}
# Of validation images with other backgrounds.
SCORES = {f"val/accuracy_{kind}" for kind in ("blur", "noise", "zeros", "other_image")} | {
    "val/worst_accuracy",
    "val/background_error",
}
Build = Callable[..., Method]


def batch(count: int = 20) -> Batch:
    torch.manual_seed(1)
    images, masks = torch.rand(count, 3, 16, 16), torch.zeros(count, 1, 16, 16)
    masks[..., 4:12, 4:12] = 1
    masks[::3] = NO_MASK
    return Batch(images, torch.arange(count) % 3, masks)


def loader(shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*batch()[:3]), 8, shuffle=shuffle)


def lit(build: Build) -> LitClassifier:
    torch.manual_seed(0)
    classifier = build_backbone("convnet", 3, dropout=0.1)
    return LitClassifier(classifier, build(), schedule="constant")


def fit(
    model: LitClassifier, out: Path, epochs: int, last: Path | None = None
) -> dict[str, Tensor]:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[ModelCheckpoint(out, save_last=True)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader(shuffle=True), loader(), ckpt_path=last)
    return dict(trainer.callback_metrics)


@pytest.mark.parametrize("name", METHODS)
def test_a_training_goes_on_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    whole, parts, resumed = (lit(METHODS[name]) for _ in range(3))
    logged = fit(whole, tmp_path / "whole", 2)
    fit(parts, tmp_path / "parts", 1)
    fit(resumed, tmp_path / "parts", 2, tmp_path / "parts" / "last.ckpt")
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    names = {"loss", "classification", "accuracy"} | PARTS[name]
    losses = {f"{stage}/{each}" for stage in ("train", "val") for each in names}
    assert losses <= set(logged) <= losses | SCORES
    assert all(logged[f"val/{part}"] > 0 for part in PARTS[name])
    read = LitClassifier.load_from_checkpoint(tmp_path / "whole" / "last.ckpt")
    assert type(read.method) is METHODS[name]
    assert read.deployed is read.net
    images = batch().images
    assert torch.equal(read.eval()(images), whole.eval()(images))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.encoder(self.embed(images).flatten(2).mT)
        return self.head(tokens[:, 0] + tokens.mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_networks_with_attention(name: str, training: bool) -> None:
    network, method = Attending().train(training), METHODS[name]()
    losses = method.losses(method.build(network), batch())
    losses.total.backward()
    assert all(losses.parts[part] > 0 for part in PARTS[name])
    gradient = network.encoder.layers[0].self_attn.in_proj_weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("name", METHODS)
def test_multi_label_in_bfloat16(name: str) -> None:
    method = METHODS[name](ClassificationLoss("multilabel"))
    network = method.build(build_backbone("convnet", 3))
    labels = torch.randint(2, (20, 3)).float()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(network, batch()._replace(labels=labels))
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    for part in PARTS[name]:
        assert losses.parts[part].dtype == torch.float32
        assert losses.parts[part] > 0
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())
