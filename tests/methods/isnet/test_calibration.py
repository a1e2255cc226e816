"""Calibration of C1 and C2."""

from __future__ import annotations

import copy
from pathlib import Path

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import Calibration, CutCalibration, ISNet, ISNetLoss, LitISNet, calibrate
from faster_isnet.methods.isnet.calibration import LayerRelevance


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(54, 3),
    )


def data(samples: int = 12) -> list[Tensor]:
    masks = torch.zeros(samples, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    return [torch.rand(samples, 3, 8, 8), torch.arange(samples) % 3, masks]


def loader(batch_size: int = 4) -> DataLoader:
    return DataLoader(TensorDataset(*data()), batch_size)


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_it_is_the_mean_and_deviation_of_the_absolute_relevance(variant: str) -> None:
    net, images = ISNet(network(), variant, deep_supervision=["3"]), data()[0]
    found = calibrate(net, [(images[:5],), (images[5:],)])
    explanation = net.eval().explain(images)
    for name, relevance in [("image", explanation.heatmap), ("3", explanation.layers["3"])]:
        sizes = relevance.abs().flatten(2).sum(2).double()
        layer = found.layers[name]
        torch.testing.assert_close(torch.tensor(layer.mean), sizes.mean(0).float())
        torch.testing.assert_close(torch.tensor(layer.std), sizes.std(0).float())
    assert found.samples == 12
    assert list(found.cuts.low) == ["image", "3"]
    assert len(found.cuts.low["image"]) == (2 if variant == "dual" else 1)


class Tokens(nn.Module):
    """Maps ``[B, C, H, W]`` to tokens, behind one that does not depend on the image."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0), value=0.5)


def test_relevance_of_a_class_token_is_not_counted() -> None:
    """C1 and C2 are of what the loss sees."""
    model = nn.Sequential(nn.Conv2d(3, 5, 2, 2), Tokens(), nn.Flatten(), nn.Linear(85, 3))
    net, images = ISNet(model, deep_supervision=["0", "1"], input_rule=None), data()[0]
    layers = calibrate(net, [(images,)]).layers
    assert layers["1"].mean == pytest.approx(layers["0"].mean)


def test_layers_of_another_network_are_calibrated() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 3)),
    )
    lit = LitISNet(ISNet(model, deep_supervision=True), ISNetLoss(cut_low="auto"))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lit, loader())
    assert lit.net.layers == ("1", "3")
    assert lit.criterion.cuts is not None
    assert list(lit.criterion.cuts.low) == ["image", "1", "3"]


def test_it_leaves_the_classifier_as_it_was() -> None:
    net = ISNet(network()).train()
    net.backbone[2].eval()
    before = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    calibrate(net, loader())
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    ("mean", "std", "low", "high"),
    [(10.0, 1.0, 7.0, 13.0), (10.0, 5.0, 2.0, 25.0), (10.0, 100.0, 2.0, 50.0)],
)
def test_cuts_by_the_formula(mean: float, std: float, low: float, high: float) -> None:
    """C1 = max(m/5, m − 3s), C2 = min(25·C1, m + 3s)."""
    layer = LayerRelevance((mean,), (std,))
    assert layer.cut_low == pytest.approx((low,))
    assert layer.cut_high == pytest.approx((high,))


def test_a_result_can_be_saved_loaded_and_printed(tmp_path: Path) -> None:
    found = calibrate(ISNet(network(), "dual", deep_supervision=["3"]), loader())
    found.save(tmp_path / "cuts.json")
    loaded = Calibration.load(tmp_path / "cuts.json")
    assert loaded == found
    assert loaded.cuts == found.cuts
    lines = str(found).splitlines()
    assert lines[0] == "Σ|h| over 12 samples"
    assert [line.split()[:2] for line in lines[2:]] == [
        *(["image", "1"], ["image", "2"], ["3", "1"], ["3", "2"])
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layers": {"a": 1}, "samples": 2}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cuts.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"cuts.json holds no calibration"):
        Calibration.load(path)


def test_too_little_to_calibrate_on() -> None:
    images = data()[0]
    with pytest.raises(ValueError, match="needs at least 2 samples, got 1"):
        calibrate(ISNet(network()), [(images[:1],)])
    with pytest.raises(ValueError, match="needs at least 2 samples, got 0"):
        calibrate(ISNet(network()), [])
    dead = network()
    nn.init.zeros_(dead[-1].weight)
    with pytest.raises(ValueError, match="no relevance arrives at 'image'"):
        calibrate(ISNet(dead), [(images,)])


def _trainer(path: Path, **options: object) -> lightning.Trainer:
    return lightning.Trainer(
        default_root_dir=path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_auto_trains_a_plain_classifier_first_and_starts_afresh(
    tmp_path: Path, variant: str
) -> None:
    """With no learning steps afterwards the weights are those from before."""
    net = ISNet(network(), variant)
    before = copy.deepcopy(net.state_dict())
    lit = LitISNet(net, ISNetLoss(cut_low="auto"), learning_rate=0.05, calibration_epochs=2)
    trainer = _trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    seen: list[dict[str, Tensor]] = []

    class See(lightning.Callback):
        def on_train_batch_start(self, trainer: object, pl_module: LitISNet, *_: object) -> None:
            seen.append(copy.deepcopy(pl_module.net.state_dict()))

    trainer.callbacks.append(See())
    trainer.fit(lit, loader(), loader())
    assert all(torch.equal(v, before[k]) for k, v in seen[0].items())
    (callback,) = (c for c in trainer.callbacks if isinstance(c, CutCalibration))
    assert callback.epochs == 2
    assert callback.calibration is not None
    assert callback.calibration.samples == 12
    assert lit.criterion.cuts == callback.calibration.cuts
    assert trainer.callback_metrics["val/heatmap"] > 0


def test_a_resumed_run_keeps_its_cuts(tmp_path: Path) -> None:
    def lit() -> LitISNet:
        return LitISNet(ISNet(network()), ISNetLoss(cut_low="auto"), calibration_epochs=1)

    first = lit()
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    _trainer(tmp_path, max_epochs=1, callbacks=[checkpoint]).fit(first, loader())
    second = lit()
    trainer = _trainer(tmp_path, max_epochs=2, enable_checkpointing=False)
    trainer.fit(second, loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert second.criterion.cuts == first.criterion.cuts
    assert all(c.calibration is None for c in trainer.callbacks if isinstance(c, CutCalibration))


def test_numbers_are_not_calibrated() -> None:
    assert LitISNet(ISNet(network()), ISNetLoss(cut_low=1.0)).method.callbacks() == []
    plain = LitISNet(ISNet(network()), ISNetLoss(0.0, cut_low="auto"))
    assert plain.method.callbacks() == []


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="epochs must be a number in"):
        CutCalibration(0)
    with pytest.raises(ValueError, match="unknown cut_low 'automatic'; did you mean 'auto'"):
        ISNetLoss(cut_low="automatic")
