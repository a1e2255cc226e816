"""Whole networks have one explanation, however they spell their attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet import ISNet, ISNetLoss
from faster_isnet.relevance import Composite, build_composite

FUSED = F.scaled_dot_product_attention
NETWORKS = {
    "ViT-B/16": lambda: timm.create_model("vit_base_patch16_224", img_size=64, num_classes=3),
    "Swin-T": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, num_classes=3
    ),
    "hybrid": lambda: timm.create_model("coatnet_nano_rw_224", img_size=64, num_classes=3),
}


def written_out(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    """Attention by products and a softmax."""
    scores = q @ k.mT * _scale(q, options)
    return torch.softmax(scores if attn_mask is None else scores + attn_mask, -1) @ v


def by_module(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    """Attention by the function of ``nn.MultiheadAttention``, which projects nothing here."""
    width = q.shape[-1]
    eye, zero = torch.eye(width, dtype=q.dtype), torch.zeros(width, dtype=q.dtype)
    q = q * (_scale(q, options) * math.sqrt(width))
    mask = None if attn_mask is None else attn_mask.expand(*q.shape[:-1], k.shape[-2])
    y, _ = F.multi_head_attention_forward(
        *(t.flatten(0, -3).transpose(0, 1) for t in (q, k, v)),
        embed_dim_to_check=width,
        num_heads=1,
        in_proj_weight=torch.cat([eye] * 3),
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=eye,
        out_proj_bias=zero,
        need_weights=False,
        attn_mask=None if mask is None else mask.flatten(0, -3),
    )
    return y.transpose(0, 1).reshape(q.shape)


def _scale(q: Tensor, options: dict[str, Any]) -> float:
    assert not options.get("is_causal")
    assert not options.get("dropout_p")
    scale = options.get("scale")
    return q.shape[-1] ** -0.5 if scale is None else float(scale)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "composite"),
    [*((name, "flex") for name in NETWORKS), ("Swin-T", "cp-lrp"), ("hybrid", "cp-lrp")],
)
def test_the_spellings_agree(name: str, composite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS[name]().double().eval()
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    images, masks = torch.rand(2, 3, 64, 64).double(), torch.zeros(2, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1
    rules = build_composite(composite, 1e-2)  # while torch is as it is
    results = []
    for spelling in (FUSED, written_out, by_module):
        calls = list[Any]()
        monkeypatch.setattr(F, "scaled_dot_product_attention", _spelled(spelling, calls))
        results.append(_heatmap_and_gradients(network, rules, images, masks))
        assert len(calls) >= 4
    heatmap, gradients = results[0]
    for other, others in results[1:]:
        assert _difference(other, heatmap) < 1e-6
        for a, b in zip(others, gradients, strict=True):
            assert _difference(a, b) < 1e-6


def _spelled(spelling: Callable[..., Tensor], calls: list[Any]) -> Callable[..., Tensor]:
    """Return what models call in place of the fused function; ``spelling`` itself calls that."""
    within = False

    def call(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal within
        if within:
            return FUSED(*args, **kwargs)
        calls.append(spelling)
        within = True
        try:
            return spelling(*args, **kwargs)
        finally:
            within = False

    return call


def _heatmap_and_gradients(
    network: nn.Module, composite: Composite, images: Tensor, masks: Tensor
) -> tuple[Tensor, list[Tensor]]:
    net = ISNet(network, composite=composite)
    net.zero_grad()
    explanation = net.explain(images)
    ISNetLoss()(explanation, torch.tensor([0, 1]), masks).heatmap.backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    return explanation.heatmap.detach(), gradients


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-9))
