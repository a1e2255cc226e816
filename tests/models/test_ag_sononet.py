"""The attention-gated Sononet: its gates, its size, its relevance, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet, ISNetLoss
from faster_isnet.models import build_backbone
from faster_isnet.models.ag_sononet import AGSononet, GridAttention


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 80), (65, 33)])
def test_it_maps_images_of_any_size_to_logits(size: tuple[int, int]) -> None:
    model = build_backbone("ag-sononet-8", 3).train()
    assert model(torch.rand(2, 3, *size)).shape == (2, 3)


@pytest.mark.parametrize(("name", "width"), [("ag-sononet", 16), ("ag-sononet-8", 8)])
def test_it_is_the_papers_of_13_convolutions(name: str, width: int) -> None:
    model = build_backbone(name, 3)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 13
    assert convolutions[0].out_channels == width
    assert max(m.out_channels for m in convolutions) == 8 * width
    assert model.classifier.in_features == (4 + 8 + 8) * width


def test_weights_of_places_are_a_share_each() -> None:
    gate = GridAttention(4, 6).double()
    maps = torch.rand(3, 4, 8, 8, dtype=torch.float64)
    weights = gate(maps, torch.rand(3, 6, 2, 2, dtype=torch.float64))
    assert weights.shape == (3, 1, 8, 8)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum((1, 2, 3)), torch.ones(3, dtype=torch.float64))


def test_the_score_is_the_papers() -> None:
    gate = GridAttention(2, 2).double()
    maps, gating = (torch.rand(1, 2, 3, 3, dtype=torch.float64) for _ in range(2))
    theta, phi, psi = (m.weight[:, :, 0, 0] for m in (gate.theta, gate.phi, gate.psi))
    summed = torch.einsum("oc,bchw->bohw", theta, maps) + torch.einsum("oc,bchw->bohw", phi, gating)
    scores = torch.einsum("oc,bchw->bohw", psi, summed.relu())
    expected = (scores - scores.min()) / (scores - scores.min()).sum()
    torch.testing.assert_close(gate(maps, gating), expected, atol=1e-4, rtol=0)


def test_where_all_scores_are_equal_so_are_the_weights() -> None:
    gate = GridAttention(2, 2)
    nn.init.zeros_(gate.psi.weight)
    for dtype in (torch.float32, torch.float16):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            weights = gate(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 1, 1))
        torch.testing.assert_close(weights, torch.full((1, 1, 4, 4), 1 / 16))


def test_relevance_is_conserved_and_every_function_is_known() -> None:
    support = Explainer.supports(build_backbone("ag-sononet-8", 3), 48)
    assert not support.unknown
    assert not support.approximate
    assert support.error < 1e-4


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_an_isnet_of_it_takes_a_step(variant: str) -> None:
    net = ISNet(build_backbone("ag-sononet-8", 3), variant, deep_supervision=True)
    loss = ISNetLoss(0.5, cut_low=1.0, cut_high=2.0)
    masks = torch.zeros(4, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    parts = loss(net.explain(torch.rand(4, 3, 32, 32)), torch.arange(4) % 3, masks)
    parts.total.backward()
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    attention = net.backbone.attention4.psi.weight.grad
    assert bool(attention.abs().sum() > 0)


@pytest.mark.slow
def test_it_attends_to_what_tells_the_class() -> None:
    """A square of one of two textures somewhere in noise: the weights find it without masks."""
    model = AGSononet(2, width=4)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(150):
        images, labels, _ = squares(32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images, labels, inside = squares(100)
    model.eval()
    weights: list[Tensor] = []
    model.attention3.register_forward_hook(lambda *call: weights.append(call[2]))
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean()
    inside = nn.functional.adaptive_avg_pool2d(inside, weights[0].shape[2:])
    assert accuracy > 0.9
    share = (weights[0] * inside).sum((1, 2, 3)).mean()
    assert share > 2 * inside.mean()


def squares(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of 32 x 32 pixels, with a striped square of 10 x 10, upright or lying, in noise."""
    images, labels = torch.rand(count, 1, 32, 32), torch.randint(2, (count,))
    inside = torch.zeros_like(images)
    stripes = (torch.arange(10) % 2).float().expand(10, 10)
    for image, place, label in zip(images, inside, labels, strict=True):
        row, column = torch.randint(22, (2,)).tolist()
        image[0, row : row + 10, column : column + 10] = stripes.T if label else stripes
        place[0, row : row + 10, column : column + 10] = 1
    return images.expand(-1, 3, -1, -1), labels, inside
