"""Frozen backbones keep weights and statistics, and a run that stops goes on as it would have."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.methods import ISNetMethod, Standard, method_names
from faster_isnet.models import build_backbone
from faster_isnet.models.heads import head_names
from faster_isnet.training.convergence import ConvergenceChecks
from faster_isnet.training.frozen_backbone import Backbone
from faster_isnet.training.image_classifier import ImageClassifier
from faster_isnet.training.lit_classifier import LitClassifier

SIDE = 16
NEED_ATTRIBUTES = {"group-dro", "last-layer", "rr-clarc"}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.25), nn.Linear(16, 2)),
    )


def loader(count: int = 8) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, 1, SIDE, SIDE)
    masks[..., 4:12, 4:12] = 1
    images = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(count) % 2, masks), 4)


def lit(method: str = "isnet", **options: Any) -> LitClassifier:
    options = {"learning_rate": 0.01, "weight_decay": 0.1} | options
    if method == "isnet":
        return LitISNet(ISNet(network()), ISNetLoss(cut_low=0.1), **options)
    made = method_names()[method]()
    made.image_shape = (3, SIDE, SIDE)
    return LitClassifier(network(), made, **options)


def fit(module: LitClassifier, epochs: int, path: str | None = None, **options: Any) -> None:
    torch.manual_seed(1)
    lightning.Trainer(
        **{"max_epochs": epochs, "logger": False, "enable_checkpointing": False, **options},
        **{"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"},
    ).fit(module, loader(), loader(), ckpt_path=path)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    now = module.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, now[name])}


class Snapshots(lightning.Callback):
    """Keep the state after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.states.append(state(pl_module.net))


def test_frozen_weights_and_statistics_are_bit_equal_and_then_they_move():
    module, seen = lit(frozen_epochs=2, schedule="constant"), Snapshots()
    start = state(module.net)
    fit(module, 3, callbacks=[seen])
    backbone = [name for name in start if not name.startswith("backbone.7")]
    assert len(backbone) == 7
    for name, value in start.items():
        kept = [torch.equal(value, each[name]) for each in seen.states]
        assert kept == ([True, True, False] if name in backbone else [False] * 3), name


@pytest.mark.parametrize("epochs", [0, -1])
def test_of_no_and_of_all_epochs(epochs: int):
    module = lit(frozen_epochs=epochs)
    start = state(module.net)
    fit(module, 2)
    head = {"backbone.7.weight", "backbone.7.bias"}
    assert changed(start, module.net) == (head if epochs else set(start))
    assert all(p.requires_grad for p in module.parameters())  # the next training is of all


@pytest.mark.parametrize("method", sorted(set(method_names()) - NEED_ATTRIBUTES))
def test_every_method_trains_what_is_not_frozen(method: str):
    module = lit(method, frozen_epochs=-1)
    part = {id(p) for p in module._backbone.parameters}
    moves = [p for p in module.parameters() if p.requires_grad and id(p) not in part]
    before, frozen = [p.clone() for p in moves], [p.clone() for p in module._backbone.parameters]
    fit(module, 1)
    assert not any(torch.equal(*pair) for pair in zip(before, moves, strict=True))
    assert all(map(torch.equal, frozen, module._backbone.parameters))


def test_relevance_of_frozen_weights_gives_the_head_the_same_gradient():
    images, labels, masks = next(iter(loader()))
    gradients = []
    for frozen in (False, True):
        net = ISNet(network().eval(), deep_supervision=["2"])
        if frozen:
            Backbone(net, images=images).freeze()
        loss = ISNetLoss(1.0, cut_low=0.1)
        explained = net.explain(images)
        loss(explained, labels, masks).total.backward()
        gradients.append(net.backbone[7].weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("stopped_after", [1, 2, 3])
def test_a_resumed_training_is_the_same(tmp_path: Path, stopped_after: int):
    options = {"frozen_epochs": 2, "backbone_learning_rate_factor": 0.5}
    whole = lit(**options)
    keeps = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fit(whole, 4, callbacks=[keeps], enable_checkpointing=True)
    resumed = lit(**options)
    fit(resumed, 4, str(tmp_path / f"epoch={stopped_after - 1}.ckpt"))
    assert not changed(state(whole.net), resumed.net)


def test_the_backbone_has_a_learning_rate_of_its_own():
    module = lit("standard", backbone_learning_rate_factor=0.1, optimizer="sgd")
    trainer = lightning.Trainer(max_epochs=1, fast_dev_run=True, accelerator="cpu")
    trainer.fit(module, loader())
    others, backbone = trainer.optimizers[0].param_groups
    assert (len(others["params"]), len(backbone["params"])) == (2, 4)
    assert backbone["lr"] == pytest.approx(0.1 * others["lr"])


def test_only_dropout_before_the_head_is_on_while_frozen():
    module = network().train()
    backbone = Backbone(module, images=torch.rand(1, 3, SIDE, SIDE))
    backbone.freeze()
    assert [module[each].training for each in (1, 3, 6, 7)] == [False, False, True, True]
    backbone.unfreeze()
    assert all(each.training for each in module.modules())


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", ["fc"]),
        ("mobilenet_v3_small", ["classifier.3", "classifier.2"]),
        ("squeezenet1_1", ["classifier.1", "classifier.0"]),
        ("timm:deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
        ("timm:resnet18", ["fc"]),
    ],
)
def test_the_head_of_networks_with_a_normalisation_before_them(name: str, head: list[str]):
    whole = nn.Sequential(nn.Identity(), build_backbone(name, 2))
    found = head_names(whole, torch.rand(1, 3, 224, 224))
    assert found[: len(head)] == [f"1.{each}" for each in head]


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 2, 3), nn.Sequential(nn.Linear(2, 2), nn.Softplus())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(self.body(x).mean((2, 3)))] * 2, 1)


def test_a_head_that_cannot_be_told_is_named():
    with pytest.raises(ValueError, match=r"head of TwoBranches.*head=…"):
        LitClassifier(TwoBranches(), Standard(), frozen_epochs=1)
    named = LitClassifier(TwoBranches(), Standard(), frozen_epochs=1, head="head")
    assert len(named._backbone.parameters) == 2
    with pytest.raises(ValueError, match=r"head is 'fc', but TwoBranches has no such module"):
        LitClassifier(TwoBranches(), Standard(), frozen_epochs=1, head="fc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen_epochs": -2}, "frozen_epochs must be"),
        ({"backbone_learning_rate_factor": 0}, "backbone_learning_rate_factor must be"),
        ({"head": "7"}, "head='7' is of frozen_epochs"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        lit(**options)


def test_ddp_must_look_for_weights_without_gradient():
    with pytest.raises(ValueError, match="ddp_find_unused_parameters_true"):
        fit(lit("standard", frozen_epochs=1), 1, strategy="ddp", devices=1)


def test_the_log_says_what_is_frozen_until_when(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "faster_isnet")
    fit(lit("standard", frozen_epochs=1), 2)
    told = [each for each in caplog.messages if "rozen" in each]
    assert told == [
        "Frozen until epoch 1: 120 parameters of the backbone, and the statistics of its batch "
        "norms; trained are 34 others, the head's (7, 6) among them",
        "Unfrozen in epoch 1: 154 parameters are trained",
    ]
    caplog.clear()
    fit(lit("standard", frozen_epochs=3), 2)
    assert "epoch 3, which is after the last of this training's 2" in caplog.text


@dataclass
class _At:
    """A trainer in an epoch."""

    current_epoch: int
    callback_metrics: dict[str, Tensor]
    fast_dev_run: bool = False
    is_global_zero: bool = True


def test_a_head_alone_is_not_blamed_for_relevance_that_hardly_falls(
    caplog: pytest.LogCaptureFixture,
):
    for epochs, blamed in ((0, True), (-1, False), (1, False)):
        caplog.clear()
        checks = ConvergenceChecks(ISNetMethod(), epochs)
        for epoch in range(3):
            metrics = {"train/heatmap": torch.tensor(1.0)}
            checks.on_train_epoch_end(_At(epoch, metrics), None)
        checks.on_train_end(_At(3, metrics), None)
        assert ("heatmap loss of the last epoch" in caplog.text) == blamed


def test_a_checkpoint_is_built_again(tmp_path: Path):
    module = ImageClassifier(
        ["a", "b"],
        (3, SIDE, SIDE),
        "convnet",
        method=Standard(),
        frozen_epochs=1,
        backbone_learning_rate_factor=0.5,
    )
    keeps = ModelCheckpoint(tmp_path, "last")
    fit(module, 1, callbacks=[keeps], enable_checkpointing=True)
    again = ImageClassifier.load_from_checkpoint(tmp_path / "last.ckpt")
    assert (again.frozen_epochs, again.backbone_learning_rate_factor) == (1, 0.5)
    assert not changed(state(module.net), ImageClassifier.load_deployed(tmp_path / "last.ckpt").net)
