"""An ISNet made of names and numbers, and made again from its checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import normalize

from faster_isnet import ISNetLoss
from faster_isnet.methods import ISNetMethod, Method, Standard
from faster_isnet.methods.isnet.calibration import Calibration, LayerRelevance
from faster_isnet.models import CONVNET_BLOCKS, build_backbone
from faster_isnet.models.input_channels import IMAGENET_MEAN, IMAGENET_STD
from faster_isnet.training.image_classifier import ImageClassifier, Normalise

NAMES = ["cat", "dog"]
SHAPE = (3, 32, 32)


def small(method: Method | None = None, **options: object) -> ImageClassifier:
    return ImageClassifier(NAMES, SHAPE, "convnet", method=method, **options)


def checkpoint(lit: ImageClassifier, path: Path) -> Path:
    """Train for a step, and write a checkpoint."""
    data = TensorDataset(
        torch.rand(4, *SHAPE), torch.tensor([0, 1, 0, 1]), torch.ones(4, 1, 32, 32)
    )
    trainer = lightning.Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    trainer.fit(lit, DataLoader(data, 4))
    trainer.save_checkpoint(path)
    return path


def test_a_normalising_model_takes_images_in_0_1() -> None:
    x = torch.rand(2, *SHAPE)
    torch.testing.assert_close(
        Normalise(IMAGENET_MEAN, IMAGENET_STD)(x), normalize(x, IMAGENET_MEAN, IMAGENET_STD)
    )
    lit = small(normalise=True).eval()
    network = lit.net.backbone
    assert [name for name, _ in network.named_children()] == ["normalise", "network"]
    torch.testing.assert_close(lit(x), network.network(normalize(x, IMAGENET_MEAN, IMAGENET_STD)))
    assert not any(key.startswith("normalise") for key in network.state_dict())


def test_the_names_of_layers_follow_the_network_into_a_normalising_model() -> None:
    plain, normalising = (
        small(ISNetMethod(deep_supervision=list(CONVNET_BLOCKS)), normalise=normalise)
        for normalise in (False, True)
    )
    assert list(plain.net.layers) == list(CONVNET_BLOCKS)
    assert list(normalising.net.layers) == [f"network.{name}" for name in CONVNET_BLOCKS]
    explanation = normalising.net.explain(torch.rand(2, *SHAPE))
    assert set(explanation.layers) == set(normalising.net.layers)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_checkpoint_alone_makes_it_again(tmp_path: Path, normalise: bool) -> None:
    method = ISNetMethod(ISNetLoss(0.5, cut_low=0.5), variant="stochastic")
    lit = small(method, normalise=normalise)
    path = checkpoint(lit, tmp_path / "a.ckpt")
    again = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    assert (again.class_names, tuple(again.image_shape)) == (NAMES, SHAPE)
    assert (again.net.variant, again.method.loss.heatmap_weight) == ("stochastic", 0.5)
    assert again.method.loss.cuts == lit.method.loss.cuts
    x = torch.rand(2, *SHAPE)
    torch.testing.assert_close(again.eval()(x), lit.eval()(x), rtol=0, atol=0)


def test_pretrained_weights_are_fetched_for_the_first_one_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a checkpoint is made again from says that its own weights are enough."""
    asked = []
    build = "faster_isnet.training.image_classifier.build_backbone"

    def fake(
        name: str, classes: int, pretrained: bool, dropout: float, channels: int
    ) -> torch.nn.Module:
        asked.append(pretrained)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, classes))

    monkeypatch.setattr(build, fake)
    lit = small(ISNetMethod(ISNetLoss(0.0)), pretrained=True)
    assert [name for name, _ in lit.net.backbone.named_children()] == ["normalise", "network"]
    path = checkpoint(lit, tmp_path / "a.ckpt")
    again = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    assert asked == [True, False]
    x = torch.rand(2, *SHAPE)
    torch.testing.assert_close(again.eval()(x), lit.eval()(x), rtol=0, atol=0)


def test_cuts_come_from_a_calibration_and_stay_when_its_file_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    found = Calibration({"image": LayerRelevance((10.0,), (2.0,))}, samples=100)
    found.save(file)
    method = ISNetMethod(ISNetLoss(0.5), calibration=str(file), deep_supervision=False)
    lit = small(method)
    assert lit.method.loss.cuts == found.cuts
    path = checkpoint(lit, tmp_path / "a.ckpt")
    file.unlink()
    again = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    assert again.method.loss.cuts == found.cuts


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"pretrained": True}, 1e-3),
        ({"pretrained": True, "learning_rate": 0.3}, 0.3),
        ({"pretrained": True, "optimizer": partial(torch.optim.SGD, lr=0.4)}, 0.4),
        ({}, 2e-3),
        ({"optimizer": "sgd"}, 1e-2),
    ],
)
def test_pretrained_weights_have_a_learning_rate_of_their_own(
    options: dict[str, Any], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, classes: int, *, pretrained: bool, **more: Any) -> nn.Module:
        return build_backbone(name, classes, **more)  # nothing is downloaded

    monkeypatch.setattr("faster_isnet.training.image_classifier.build_backbone", build)
    lit = small(Standard(), schedule="constant", **options)
    made = lit.build_optimizer(lit.parameters())
    assert made.param_groups[0]["lr"] == rate
    kept = lit.recipe_arguments() | {"optimizer": options.get("optimizer", "adamw")}
    again = ImageClassifier(**kept)
    assert again.build_optimizer(again.parameters()).param_groups[0]["lr"] == rate
