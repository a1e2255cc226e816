"""LitISNet out of its checkpoint alone, for every variant, option and calibration."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.methods import ClassificationLoss, Standard
from faster_isnet.methods.isnet.network import VARIANTS
from faster_isnet.models import build_backbone
from faster_isnet.training.image_classifier import ImageClassifier
from faster_isnet.training.lit_classifier import LitClassifier


def data(n: int = 4) -> DataLoader[Any]:
    masks = torch.zeros(n, 1, 16, 16)
    masks[..., 4:12, 4:12] = 1
    return DataLoader(TensorDataset(torch.rand(n, 3, 16, 16), torch.arange(n) % 3, masks), 4)


def save(lit: lightning.LightningModule, path: Path, steps: int = 1) -> Path:
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lit, data())
    trainer.save_checkpoint(path / "a.ckpt")
    return path / "a.ckpt"


def same_outputs(ours: LitISNet, theirs: LitISNet) -> bool:
    x = torch.rand(2, 3, 16, 16)
    torch.manual_seed(0)
    a = ours.eval().net.explain(x)
    torch.manual_seed(0)
    b = theirs.eval().net.explain(x)
    return torch.equal(a.logits, b.logits) and torch.equal(a.heatmap, b.heatmap)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_is_enough_for_every_variant(variant: str, tmp_path: Path) -> None:
    net = ISNet(build_backbone("convnet", 3), variant, epsilon=0.05)
    lit = LitISNet(net, ISNetLoss(0.4, cut_low=0.1), schedule="cosine", supervised_part=0.5)
    again = LitISNet.load_from_checkpoint(save(lit, tmp_path))
    assert (again.net.variant, again.schedule) == (variant, "cosine")
    assert (again.method.supervised_part, again.criterion.heatmap_weight) == (0.5, 0.4)
    assert same_outputs(again, lit)


def test_a_checkpoint_has_the_layers_that_were_found(tmp_path: Path) -> None:
    lit = LitISNet(ISNet(build_backbone("convnet", 3), deep_supervision=True))
    again = LitISNet.load_from_checkpoint(save(lit, tmp_path))
    assert again.net.layers == lit.net.layers == ("block1", "block2", "block5")
    assert same_outputs(again, lit)


def test_options_of_the_loss_and_calibrated_cuts_are_kept(tmp_path: Path) -> None:
    loss = ISNetLoss(
        cut_low="auto",
        gwrp_decay=0.8,
        foreground="l2",
        classification=ClassificationLoss(class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1),
    )
    net = ISNet(build_backbone("convnet", 3), deep_supervision=["block5"], ignore_classes=[1])
    lit = LitISNet(net, loss, calibration_epochs=1)
    again = LitISNet.load_from_checkpoint(save(lit, tmp_path))
    assert again.criterion.cuts == loss.cuts is not None
    assert again.method.callbacks() == []
    assert (again.criterion.gwrp_decay, again.criterion.foreground) == (0.8, "l2")
    assert again.criterion.classification.class_weights.tolist() == [1, 2, 3]
    assert again.net.layers == ("block5",)
    assert same_outputs(again, lit)
    x, y, masks = next(iter(data()))
    ours, theirs = (each.criterion(each.net.explain(x), y, masks) for each in (again, lit))
    torch.testing.assert_close(ours.total, theirs.total)


def test_cuts_that_were_set_by_hand_are_kept(tmp_path: Path) -> None:
    lit = LitISNet(ISNet(build_backbone("convnet", 3)))
    lit.criterion.cuts = ISNetLoss(cut_low=0.25, cut_high=3).cuts
    again = LitISNet.load_from_checkpoint(save(lit, tmp_path))
    assert again.criterion.cuts == lit.criterion.cuts


def by_hand() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3))


def test_a_network_built_by_hand_is_asked_for(tmp_path: Path) -> None:
    lit = LitISNet(ISNet(by_hand(), "dual"), ISNetLoss(0.3))
    path = save(lit, tmp_path)
    with pytest.raises(
        TypeError, match=r"does not keep net.*load_from_checkpoint\(path, net=\.\.\.\)"
    ):
        LitISNet.load_from_checkpoint(path)
    again = LitISNet.load_from_checkpoint(path, net=ISNet(by_hand(), "dual"))
    assert again.criterion.heatmap_weight == 0.3
    assert same_outputs(again, lit)
    with pytest.raises(ValueError, match=r"(?s)a.ckpt' do not fit.*size mismatch"):
        LitISNet.load_from_checkpoint(path, net=ISNet(by_hand()[:3].append(nn.Linear(784, 2))))


def test_what_the_file_cannot_keep_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classification = ClassificationLoss(function=nn.functional.multi_margin_loss)
    lit = LitISNet(
        ISNet(build_backbone("convnet", 3)),
        ISNetLoss(0.3, classification=classification),
        optimizer=partial(torch.optim.RMSprop, lr=0.01),
    )
    path = save(lit, tmp_path)
    with caplog.at_level(logging.WARNING):
        again = LitISNet.load_from_checkpoint(path)
    assert "['criterion.classification.function', 'optimizer']" in caplog.text
    assert again.criterion.heatmap_weight == 0.3
    caplog.clear()
    LitISNet.load_from_checkpoint(path, optimizer="adam", criterion=ISNetLoss())
    assert not caplog.records


def test_arguments_that_are_given_go_before_those_of_the_file(tmp_path: Path) -> None:
    path = save(LitISNet(ISNet(build_backbone("convnet", 3)), weight_decay=0.5), tmp_path)
    again = LitISNet.load_from_checkpoint(path, criterion=ISNetLoss(0.1), weight_decay=0.25)
    assert (again.criterion.heatmap_weight, again.weight_decay) == (0.1, 0.25)


@pytest.mark.parametrize("class_path", ["os.system", "colorsys.Rgb", "fractions.Fraction"])
def test_a_hostile_recipe_builds_and_imports_nothing(
    class_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fractions
    import sys

    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.setattr(fractions.Fraction, "__new__", lambda *_, **__: pytest.fail("built"))
    path = save(LitISNet(ISNet(build_backbone("convnet", 3))), tmp_path)
    content = torch.load(path, weights_only=True)
    net = content["recipe"]["init_args"]["net"]
    net["init_args"]["epsilon"] = {
        "class_path": class_path,
        "init_args": {"command": f"touch {tmp_path}/ran"},
    }
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"'{class_path}' is not known here"):
        LitISNet.load_from_checkpoint(path)
    assert "colorsys" not in sys.modules
    assert [each.name for each in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_file_that_holds_code_is_not_read(tmp_path: Path) -> None:
    path = save(LitISNet(ISNet(build_backbone("convnet", 3))), tmp_path)
    content = torch.load(path, weights_only=True)
    torch.save(content | {"extra": partial(print, "ran")}, path)
    with pytest.raises(ValueError, match="without running code"):
        LitISNet.load_from_checkpoint(path)
    with pytest.raises(ValueError, match="weights_only=False would run code"):
        LitISNet.load_from_checkpoint(path, weights_only=False)


def test_a_checkpoint_of_another_class_is_refused(tmp_path: Path) -> None:
    lit = ImageClassifier(["a", "b", "c"], (3, 16, 16), "convnet", method=Standard())
    path = save(lit, tmp_path)
    with pytest.raises(ValueError, match=r"written by .*\.ImageClassifier .*its own class"):
        LitISNet.load_from_checkpoint(path)


def test_the_standard_classifier_too(tmp_path: Path) -> None:
    lit = LitClassifier(build_backbone("convnet", 3), Standard(), learning_rate=0.1)
    again = LitClassifier.load_from_checkpoint(save(lit, tmp_path))
    assert isinstance(again.method, Standard)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(again.eval()(x), lit.eval()(x))


def test_the_devices_of_the_weights_and_the_module_are_the_same(tmp_path: Path) -> None:
    path = save(LitISNet(ISNet(build_backbone("convnet", 3))), tmp_path)
    assert LitISNet.load_from_checkpoint(path).device.type == "cpu"
    again = LitISNet.load_from_checkpoint(path, map_location="meta")
    assert {each.device.type for each in again.parameters()} == {"meta"}
