"""A training that would not be what its user thinks it is stops, and tells why."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.models import build_backbone
from faster_isnet.training.lit_classifier import LitClassifier

Item = tuple[Tensor, ...]


def samples(masked: int = 8) -> list[Item]:
    """Return eight samples, of which the first have a mask, and the others -1 everywhere."""
    mask = torch.ones(1, 24, 24)
    mask[:, :12] = 0
    none = torch.full_like(mask, -1)
    labels = [torch.tensor(number % 3) for number in range(8)]
    return [
        (torch.rand(3, 24, 24), label, mask if number < masked else none)
        for number, label in enumerate(labels)
    ]


def lit(loss: ISNetLoss | None = None, swapped: float = 1.0, **network: Any) -> LitISNet:
    net = ISNet(build_backbone("convnet", 3), **network)
    return LitISNet(net, loss or ISNetLoss(), swapped_backgrounds=swapped)


def fit(
    model: LitClassifier, data: list[Item], val: list[Item] | None = None, **options: Any
) -> lightning.Trainer:
    shown = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet = dict.fromkeys(shown, False)
    trainer = lightning.Trainer(**{**quiet, "accelerator": "cpu", "max_epochs": 1, **options})
    trainer.fit(model, DataLoader(data, 4), None if val is None else DataLoader(val, 4))
    return trainer


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("filled", [False, True])
def test_an_epoch_without_any_mask_is_refused(calibrated: bool, filled: bool) -> None:
    loss = ISNetLoss(cut_low="auto") if calibrated else ISNetLoss()
    data = samples(0) if filled else [item[:2] for item in samples()]
    with pytest.raises(ValueError, match="none of the 8 samples of the first epoch has a mask"):
        fit(lit(loss), data, max_epochs=2)


def test_a_batch_without_masks_is_allowed() -> None:
    trainer = fit(lit(), samples(4))  # the second batch has none
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train/heatmap"] > 0


def test_no_mask_is_needed_without_a_heatmap_loss_and_swapped_backgrounds() -> None:
    trainer = fit(lit(ISNetLoss(0), 0.0), [item[:2] for item in samples()])
    assert trainer.global_step == 2


@pytest.mark.parametrize("monitor", ["val/los", "val_loss", "val/acuracy"])
def test_a_mistyped_monitor_is_refused_before_the_training(monitor: str) -> None:
    model = lit()
    before = [each.clone() for each in model.parameters()]
    with pytest.raises(ValueError, match=f"EarlyStopping monitors '{monitor}'.*did you mean 'val/"):
        fit(model, samples(), samples(), callbacks=[EarlyStopping(monitor)])
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("monitor", ["val/heatmap", "train/accuracy"])
def test_what_is_logged_can_be_monitored(monitor: str) -> None:
    stop = EarlyStopping(monitor, stopping_threshold=-1.0, patience=1)
    assert fit(lit(), samples(), samples(), callbacks=[stop], max_epochs=2).current_epoch >= 1


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_weights_in_half_precision_are_refused(precision: str, variant: str) -> None:
    with pytest.raises(ValueError, match=f"'{variant}' cannot be trained with precision"):
        fit(lit(variant=variant), samples(), precision=precision)


def test_rules_for_layers_refuse_autocast() -> None:
    with pytest.raises(ValueError, match=r"'bf16-mixed'.*rules for layers.*give '32-true' or '64"):
        fit(lit(variant="dual"), samples(), precision="bf16-mixed")
    trainer = fit(lit(ISNetLoss(0), variant="dual"), samples(), precision="bf16-mixed")
    assert trainer.global_step == 2  # no heatmap, no rules


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_double_precision_trains_and_calibrates(variant: str) -> None:
    torch.manual_seed(0)
    model, data = lit(ISNetLoss(cut_low="auto"), 0.0, variant=variant), samples()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    single = fit(model, data).callback_metrics["train/loss"]
    model = lit(ISNetLoss(cut_low="auto"), 0.0, variant=variant)
    model.load_state_dict(state)
    double = fit(model, data, precision="64-true").callback_metrics["train/loss"]
    assert next(model.parameters()).dtype == torch.float64
    torch.testing.assert_close(single.double(), double.double(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("named", [False, True])
def test_predict_takes_the_batches_of_fit(named: bool) -> None:
    data: list[Any] = samples()
    if named:
        data = [dict(zip(("image", "label", "mask"), item, strict=True)) for item in data]
    model = lit().eval()
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    found = trainer.predict(model, DataLoader(data, 4))
    assert found is not None
    with torch.no_grad():
        expected = model(torch.stack([item[0] for item in samples_of(data)]))
    torch.testing.assert_close(torch.cat(list(found)), expected)  # type: ignore[arg-type]


def samples_of(data: list[Any]) -> list[Item]:
    return [tuple(item.values()) if isinstance(item, dict) else item for item in data]
