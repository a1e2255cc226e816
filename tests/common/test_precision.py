"""Training and explaining in half precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet, ISNetLoss
from faster_isnet.common.precision import as_autocast_would, at_least_float32
from faster_isnet.models import build_backbone
from faster_isnet.relevance.linear_maps import Convolution

HALVES = [torch.bfloat16, torch.float16]


def similarity(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    masks = torch.zeros(8, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    return torch.rand(8, 3, 32, 32), torch.randint(3, (8,)), masks


def gradients(net: ISNet, dtype: torch.dtype | None) -> Tensor:
    images, labels, masks = batch()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        parts = ISNetLoss(0.5)(net.explain(images), labels, masks)
    assert parts.total.dtype == torch.float32
    parts.total.backward()
    return torch.cat([parameter.grad.flatten() for parameter in net.parameters()])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("input_rule", ["zb", None])
@pytest.mark.parametrize("training", [False, True])
def test_heatmaps_are_close_to_full_precision(
    dtype: torch.dtype, input_rule: str | None, training: bool
) -> None:
    model = build_backbone("convnet", 3).train(training)
    explainer = Explainer(model, input_rule=input_rule, layers=["block3"])
    images, *_ = batch()
    full = explainer(images, target=1)
    with torch.autocast("cpu", dtype):
        half = explainer(images, target=1)
    assert half.heatmap.dtype == half.quantity.dtype == torch.float32
    assert half.layers["block3"].dtype == torch.float32
    assert similarity(half.heatmap, full.heatmap) > 0.98
    assert similarity(half.layers["block3"], full.layers["block3"]) > 0.98


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("variant", ["selective", "original"])
def test_gradients_are_close_to_full_precision(dtype: torch.dtype, variant: str) -> None:
    """With a large ε: the smaller it is the more a heatmap's gradient depends on the last digits.

    With 1e-2 it is enough to round the weights to bfloat16 and compute in float32.
    """
    torch.manual_seed(1)
    net = ISNet(build_backbone("convnet", 3), variant, epsilon=1.0).train()
    assert similarity(gradients(copy.deepcopy(net), dtype), gradients(net, None)) > 0.9


class Strided(nn.Module):
    """A network whose strided first layer may be kept out of autocast, as some do."""

    def __init__(self, full_stem: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.full_stem = full_stem
        self.conv, self.norm = nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.BatchNorm2d(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        on = torch.is_autocast_enabled("cpu") and not self.full_stem
        with torch.autocast("cpu", enabled=on):
            x = F.relu(self.norm(self.conv(x)))
        return self.out(x.mean((2, 3)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("full_stem", [False, True])
@pytest.mark.parametrize("target", [0, "all-logits"])
def test_zb_is_in_full_precision(
    dtype: torch.dtype, full_stem: bool, target: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtypes, adjoint = set(), Convolution.adjoint

    def noted(self: Convolution, g: Tensor, *arguments: Any) -> Tensor:
        found = adjoint(self, g, *arguments)
        dtypes.update(t.dtype for t in (g, found))
        return found

    monkeypatch.setattr(Convolution, "adjoint", noted)
    model, (images, *_) = Strided(full_stem), batch()
    full = Explainer(model, input_rule="zb")(images, target).heatmap
    with torch.autocast("cpu", dtype):
        half = Explainer(model, input_rule="zb")(images, target, differentiable=True).heatmap
    assert dtypes == {torch.float32}
    assert similarity(half.detach(), full) > 0.98
    half.square().sum().backward()
    assert model.conv.weight.grad.isfinite().all()
    assert model.conv.weight.grad.any()


def transformer(spelling: str) -> nn.Module:
    """Build a vision transformer whose attention is fused or made of products and a softmax."""
    torch.manual_seed(1)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        **{"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 48, "num_classes": 3},
    )
    for block in model.blocks:
        block.attn.fused_attn = spelling == "fused"
        block.attn.qkv.weight.data.mul_(5)  # so that attention chooses
    return model


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("spelling", ["fused", "written out"])
@pytest.mark.parametrize("composite", ["flex", "cp-lrp"])
def test_attention_is_close_to_full_precision(
    dtype: torch.dtype, spelling: str, composite: str
) -> None:
    net = ISNet(transformer(spelling), composite=composite, epsilon=1.0)
    images, *_ = batch()
    full = net.explain(images)
    with torch.autocast("cpu", dtype):
        half = net.explain(images)
    assert half.heatmap.dtype == torch.float32
    assert similarity(half.heatmap.detach(), full.heatmap.detach()) > 0.99
    halves = gradients(copy.deepcopy(net), dtype)
    assert halves.isfinite().all()
    assert similarity(halves, gradients(net, None)) > 0.9


def test_attention_scores_do_not_overflow() -> None:
    """Products of queries and keys may be beyond float16's 65,504 before they are scaled."""

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).mT  # [B, pixels, channels]
            many = 60 * x.repeat(1, 1, 32).half()
            y = F.scaled_dot_product_attention(many, many, x.repeat(1, 1, 32).half(), scale=1e-5)
            return y.mean(1).float()

    half = Explainer(Attention(), epsilon=0.0)(batch()[0][:, :, :4, :4], 0, differentiable=True)
    assert half.heatmap.isfinite().all()
    assert half.heatmap.any()


def test_double_precision_stays() -> None:
    x = torch.ones(2, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert as_autocast_would(x) == (x,)
    assert at_least_float32(x) is x


def test_rules_for_layers_need_full_precision() -> None:
    explainer = Explainer(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "epsilon")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RuntimeError, match=r"'epsilon' needs full precision.*enabled=False"),
    ):
        explainer(torch.rand(2, 3, 2, 2))
