"""What version 0.1 wrote is read: run folders, checkpoints, calibrations, evaluations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.cli import main
from faster_isnet.methods import ISNetMethod
from faster_isnet.methods.isnet.calibration import Calibration
from faster_isnet.models import build_backbone
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.image_classifier import ImageClassifier

OLD = Path(__file__).parents[1] / "runs_of_0_1"
EXPECTED = json.loads((OLD / "expected.json").read_text())
IMAGE = torch.linspace(0, 1, 3 * 24 * 24).reshape(1, 3, 24, 24)


@pytest.fixture
def run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old run beside data like those it was trained on."""
    shutil.copytree(OLD / "run-isnet", tmp_path / "run-isnet")
    shutil.copytree(OLD / "run-standard", tmp_path / "run-standard")
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(images.with_name(name))
    monkeypatch.chdir(tmp_path)
    return Path("run-isnet")


def test_a_checkpoint_of_fit_gives_the_same_classifier() -> None:
    path = OLD / "run-isnet" / "checkpoints" / "best.ckpt"
    lit = ImageClassifier.load_from_checkpoint(path).eval()
    expected = torch.tensor(EXPECTED["logits"])
    torch.testing.assert_close(lit(IMAGE)[0], expected)
    assert isinstance(lit.method, ISNetMethod)
    assert lit.net.layers == ("block1", "block2")
    assert {k: list(v) for k, v in lit.method.loss.cuts.low.items()} == EXPECTED["cut_low"]
    assert lit.milestone_factor == 0.5
    assert lit.method.heatmap_weight_schedule == {0: 0.2, 1: 0.5}
    for model in (
        load_backbone_weights(path, build_backbone("convnet", 3)),
        ImageClassifier.load_deployed(path).deployed,
    ):
        torch.testing.assert_close(model.eval()(IMAGE)[0], expected)


def test_a_checkpoint_of_python_is_resumed_from() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
    )
    net = ISNet(model, "stochastic")
    lit = LitISNet.load_from_checkpoint(
        OLD / "lit-isnet.ckpt", net=net, criterion=ISNetLoss(0.5, cut_low="auto")
    )
    assert lit.criterion.cuts is not None
    kept = torch.load(OLD / "lit-isnet.ckpt", weights_only=True)
    assert kept["cuts"]["low"] == dict(lit.criterion.cuts.low)
    assert torch.equal(model[0].weight, kept["state_dict"]["net.backbone.0.weight"])


def test_training_goes_on_with_the_old_configuration(run: Path) -> None:
    words = ["--config", str(run / "config.yaml"), "--trainer.max_epochs", "3"]
    assert main(["fit", *words, "--ckpt_path", "last"]) == 0
    assert not (run / "masks").exists()  # images without a mask stay what they were in it
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 2
    cuts = checkpoint["method_state"]["cuts"]["low"]
    assert {k: list(v) for k, v in cuts.items()} == EXPECTED["cut_low"]
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.0005)  # halved after the first epoch, once
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["method"]["init_args"]["deep_supervision"] == ["block1", "block2"]
    assert "variant" not in config["model"]


@pytest.mark.parametrize(
    "command",
    [
        ["validate", "--config", "run-isnet/config.yaml"],
        ["test", "run-isnet"],
        ["compare", "run-isnet"],
        ["explain", "run-isnet/checkpoints/best.ckpt", "images/dark/1.png"],
        ["export", "run-isnet/checkpoints/best.ckpt", "--formats", "state_dict"],
        ["calibrate", "--config", "run-isnet/config.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_commands_read_the_old_run(command: list[str], run: Path) -> None:
    assert main(command) == 0


def test_an_old_calibration_is_read(run: Path) -> None:
    file = OLD / "run-standard" / "calibration.json"
    config = ["--config", "run-standard/config.yaml", "--method.calibration", str(file)]
    words = ["--method.loss.heatmap_weight", "0.5", "--out", "new", "--trainer.max_epochs", "1"]
    assert main(["fit", *config, *words, "--missing_masks", "keep"]) == 0
    lit = ImageClassifier.load_from_checkpoint("new/checkpoints/last.ckpt")
    assert lit.method.loss.cuts == Calibration.load(file).cuts
