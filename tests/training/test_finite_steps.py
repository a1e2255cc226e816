"""A training step that is not finite stops before it changes the weights."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.methods import Standard
from faster_isnet.methods.base import Losses
from faster_isnet.training.finite_steps import FiniteSteps
from faster_isnet.training.lit_classifier import LitClassifier

BRIGHT = 100.0


class Infinite(torch.autograd.Function):
    """An identity whose gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.full_like(g, torch.inf)


class Network(nn.Module):
    """A network whose loss is finite, and whose gradient is not where an image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(x.flatten(1).clamp(max=1))
        return Infinite.apply(y) if bool((x >= BRIGHT).any()) else y  # type: ignore[no-any-return]


class Lit(LitClassifier):
    """Keeps the weights that each batch finds."""

    def __init__(self) -> None:
        super().__init__(Network(), Standard())
        self.found: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        self.found.append(next(self.parameters()).detach().clone())
        return super().training_step(batch, batch_idx)


def batches(*bad: int) -> DataLoader[Any]:
    x, y = torch.rand(32, 3, 2, 2), torch.randint(0, 4, (32,))
    for index in bad:
        x[8 * index, 0, 0, 0] = BRIGHT
    return DataLoader(TensorDataset(x, y), 8)


def fit(lit: LitClassifier, data: DataLoader[Any], **options: Any) -> None:
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = silent | {"enable_model_summary": False, "accelerator": "cpu"} | options
    lightning.Trainer(max_epochs=1, **options).fit(lit, data)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("accumulate", "bad", "where"),
    [
        (1, 2, "batch 2 of epoch 0"),
        (2, 0, "batch 0 of epoch 0 to batch 1 of epoch 0"),
        (2, 3, "batch 2 of epoch 0 to batch 3 of epoch 0"),
    ],
)
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(
    precision: Any, accumulate: int, bad: int, where: str
) -> None:
    lit = Lit()
    what = "the gradient's largest element is (inf|nan)"
    with pytest.raises(FloatingPointError, match=f"^{where}: {what}"):
        fit(lit, batches(bad), accumulate_grad_batches=accumulate, precision=precision)
    assert torch.equal(lit.found[-1], next(lit.parameters()))
    assert torch.equal(lit.found[0], lit.found[-1]) == (bad < 2)


def test_a_scaler_leaves_out_infinite_gradients_itself() -> None:
    lit, scaler = Lit(), torch.amp.GradScaler("cpu", init_scale=2.0**8)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)  # type: ignore[arg-type]
    fit(lit, batches(1), plugins=[plugin])
    assert scaler.get_scale() == 2.0**7
    kept = [torch.equal(before, now) for before, now in zip(lit.found, lit.found[1:], strict=False)]
    assert kept == [False, True, False]


@pytest.mark.parametrize("margin", [10.0, 95.0, 510.0, 1e7])
@pytest.mark.parametrize("variant", ["selective", "stochastic", "original", "dual"])
def test_a_network_that_is_sure_of_itself_trains_on(variant: str, margin: float) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    x, mask = torch.rand(8, 3, 8, 8), torch.zeros(8, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    with torch.no_grad():
        y = model(x)
        factor = margin / (y.amax(1) - y.amin(1)).mean()
        model[-1].weight.mul_(factor)
        model[-1].bias.mul_(factor)
    lit = LitISNet(ISNet(model, variant), ISNetLoss(cut_low=0.1))
    fit(lit, DataLoader(TensorDataset(x, torch.arange(8) % 3, mask), 4))
    assert all(bool(each.isfinite().all()) for each in lit.parameters())


def losses(classification: float, heatmap: float) -> Losses:
    tensors = torch.tensor(classification), torch.tensor(heatmap)
    return Losses(sum(tensors), torch.zeros(2, 2), tensors[0], {"heatmap": tensors[1]})  # type: ignore[arg-type]


def test_the_losses_and_the_first_batch_that_is_wrong_are_named() -> None:
    steps = FiniteSteps()
    for number, heatmap in enumerate([1.0, torch.nan, torch.inf]):
        steps.keep(losses(1.0, heatmap), f"batch {number}")
    with pytest.raises(FloatingPointError) as error:
        steps.check([torch.zeros(3)])
    assert str(error.value).startswith(
        "batch 1: the heatmap loss is nan and the total loss is nan. "
    )
    steps.check([])  # what was wrong is not said twice
    steps.keep(losses(1.0, 1.0), "batch 3")
    steps.check([torch.full((3,), 1e30)])  # whose square is not finite


def test_what_is_on_an_accelerator_is_read_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, nothing = FiniteSteps(), torch.zeros((), device="meta")  # it has no values to read
    for number in range(2):
        steps.keep(Losses(nothing, nothing, nothing), f"batch {number}")
    read: list[int] = []
    monkeypatch.setattr(Tensor, "tolist", lambda each: read.append(each.numel()) or [0.0] * 5)
    steps.check([torch.zeros(3, device="meta"), torch.zeros(4, 5, device="meta")])
    assert read == [5]  # two losses of two batches, and the gradient
