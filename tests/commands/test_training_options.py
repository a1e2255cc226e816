"""Losses, optimisers and schedules on the command line and in YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from faster_isnet.commands.training import RunCLI
from faster_isnet.methods import Mixing
from faster_isnet.training.image_classifier import ImageClassifier


class Instantiated(RunCLI):
    """The command line, which builds everything and trains nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def model_of(images: Path, *words: str) -> ImageClassifier:
    data = ["--data.source", str(images), "--data.size", "24", "--model.backbone", "convnet"]
    model: Any = Instantiated(["fit", *data, *words]).model
    assert isinstance(model, ImageClassifier)
    return model


def test_an_optimiser_and_a_schedule_by_class(images: Path) -> None:
    words = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.3"]
    words += ["--model.optimizer.nesterov", "true", "--model.optimizer.momentum", "0.5"]
    words += ["--model.schedule", "torch.optim.lr_scheduler.StepLR"]
    words += ["--model.schedule.step_size", "2", "--model.schedule_interval", "step"]
    configured: Any = model_of(images, *words).configure_optimizers()
    group = configured["optimizer"].param_groups[0]
    assert (group["lr"], group["nesterov"], group["momentum"]) == (0.3, True, 0.5)
    scheduler = configured["lr_scheduler"]
    assert isinstance(scheduler["scheduler"], StepLR)
    assert (scheduler["scheduler"].step_size, scheduler["interval"]) == (2, "step")


CLASSIFICATION = {
    "class_path": "ClassificationLoss",
    "init_args": {
        "function": {"class_path": "torch.nn.MultiMarginLoss", "init_args": {"margin": 0.5}}
    },
}
LOSS = {"class_path": "ISNetLoss", "init_args": {"classification": CLASSIFICATION}}


@pytest.mark.parametrize(
    ("method", "options"),
    [("standard", {"classification": CLASSIFICATION}), ("isnet", {"loss": LOSS})],
)
def test_a_file_describes_them_with_a_loss_of_a_class(
    method: str, options: dict[str, Any], images: Path, tmp_path: Path
) -> None:
    schedules = "torch.optim.lr_scheduler"
    config = {
        "method": {"class_path": method, "init_args": options},
        "model": {
            "optimizer": {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 0.3}},
            "schedule": {
                "class_path": f"{schedules}.ReduceLROnPlateau",
                "init_args": {"patience": 3},
            },
            "schedule_monitor": "val/accuracy",
        },
    }
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(config))
    lit = model_of(images, "--config", str(tmp_path / "options.yaml"))
    function = lit.method.classification.function
    assert isinstance(function, nn.MultiMarginLoss)
    assert function.margin == 0.5
    configured: Any = lit.configure_optimizers()
    assert type(configured["optimizer"]) is torch.optim.RMSprop
    scheduler = configured["lr_scheduler"]
    assert isinstance(scheduler["scheduler"], ReduceLROnPlateau)
    assert scheduler["monitor"] == "val/accuracy"


@pytest.mark.parametrize(
    "words",
    [["--method", "standard", "--method.classification"], ["--method.loss.classification"]],
)
def test_a_function_and_options_of_the_loss(words: list[str], images: Path) -> None:
    *method, where = words
    option = f"{where}.function"
    lit = model_of(images, *method, option, "torch.nn.functional.multi_margin_loss")
    assert lit.method.classification.function is F.multi_margin_loss
    options = [f"{where}.label_smoothing", "0.1", f"{where}.focusing", "2"]
    classification = model_of(images, *method, *options).method.classification
    assert (classification.label_smoothing, classification.focusing) == (0.1, 2)


def test_augmentation_and_mixing(images: Path) -> None:
    assert model_of(images).method.mixing is None
    words = ["--data.augmentation.rand_augment", "2", "--data.augmentation.magnitude", "12"]
    words += ["--model.mixing", "cutmix", "--model.mixing_alpha", "0.5"]
    assert model_of(images, *words).method.mixing == Mixing("cutmix", 0.5)
    with pytest.raises(ValueError, match="mixing='mixup' is not for method 'gain'"):
        model_of(images, "--method", "gain", "--model.mixing", "mixup")


def test_what_there_is_not(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--model.schedule", "cosin"], "cosin"),
        (["--method.loss.classification.function", "torch.nn.functional.los"], "no attribute 'los"),
    ):
        with pytest.raises(SystemExit):
            model_of(images, *words)
        assert message in capsys.readouterr().err


def test_random_weights_are_not_frozen(images: Path) -> None:
    with pytest.raises(ValueError, match=r"would keep random weights.*--model\.pretrained"):
        model_of(images, "--model.frozen_epochs", "2")
    assert model_of(
        images, "--model.backbone_learning_rate_factor", "0.5", "--model.head", "classifier"
    )
