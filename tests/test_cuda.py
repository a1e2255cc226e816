"""Training and explaining on a CUDA device, where there is one."""

from __future__ import annotations

import copy
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import Explainer, Explanation, ISNet, ISNetLoss, LitISNet, calibrate
from faster_isnet.methods.isnet.network import VARIANTS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Its draws are those of the device's own generator.
VARIANTS_WITHOUT_DRAWS = [name for name in VARIANTS if name != "stochastic"]


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.GroupNorm(2, 8), nn.GELU()),
        *(nn.Flatten(), nn.Linear(32, 4)),
    ).double()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(6, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    return torch.rand(6, 3, 8, 8, dtype=torch.float64), torch.randint(0, 4, (6,)), masks


def step(model: nn.Module, variant: str, tensors: Any) -> tuple[Explanation, list[Tensor]]:
    """Return what a training step explains, and the gradients of its loss."""
    low, high = [-1.0, -2.0, 0.0], [1.0, 2.0, 3.0]
    net = ISNet(model, variant, ["3"], input_low=low, input_high=high)
    criterion = ISNetLoss(cut_low=0.1, gwrp_decay=0.9, class_weights=[1.0, 2.0, 1.0, 0.5])
    images, labels, masks = tensors
    explanation = net.explain(images)
    criterion(explanation, labels, masks).total.backward()
    return explanation, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", VARIANTS_WITHOUT_DRAWS)
def test_a_step_is_the_cpus(variant: str, training: bool) -> None:
    model, tensors = network().train(training), batch()
    there = step(copy.deepcopy(model).cuda(), variant, [t.cuda() for t in tensors])
    here = step(model, variant, tensors)
    for ours, theirs in zip(_tensors(*there), _tensors(*here), strict=True):
        assert ours.is_cuda
        torch.testing.assert_close(ours.cpu(), theirs)


@pytest.mark.parametrize("composite", ["flex", "zplus", "alpha2-beta1", "epsilon-gamma-box"])
@pytest.mark.parametrize("target", [None, 1, "all-classes"])
def test_an_explanation_is_the_cpus(composite: str, target: Any) -> None:
    model, (images, _, _) = network().eval(), batch()
    here = Explainer(model, composite)(images, target)
    there = Explainer(copy.deepcopy(model).cuda(), composite)(images.cuda(), target)
    torch.testing.assert_close(there.heatmap.cpu(), here.heatmap)


def test_the_stochastic_variant_draws_on_the_device() -> None:
    explanation, gradients = step(network().cuda(), "stochastic", [t.cuda() for t in batch()])
    assert all(tensor.is_cuda and tensor.isfinite().all() for tensor in gradients)
    assert explanation.quantity.is_cuda


def test_calibration_is_the_cpus() -> None:
    net, (images, _, _) = ISNet(network(), "dual"), batch()
    here = calibrate(net, [(images,)])
    there = calibrate(net.cuda(), [(images.cuda(),)])
    torch.testing.assert_close(there.layers["image"].mean, here.layers["image"].mean)


def test_lightning_trains_and_calibrates() -> None:
    images, labels, masks = batch()
    data = DataLoader(TensorDataset(images.float(), labels, masks), 3)
    lit = LitISNet(ISNet(network().float()), ISNetLoss(cut_low="auto"), calibration_epochs=1)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="gpu", devices=1, logger=False, enable_checkpointing=False
    )
    trainer.fit(lit, data, data)
    assert lit.criterion.cuts is not None
    assert trainer.callback_metrics["val/heatmap"].isfinite()


def _tensors(explanation: Explanation, gradients: list[Tensor]) -> list[Tensor]:
    return [explanation.logits, explanation.heatmap, *explanation.layers.values(), *gradients]
