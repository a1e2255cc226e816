"""How much of the relevance lies inside and outside of a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faster_isnet.evaluation import (
    background_area,
    background_share,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
)


@given(st.integers(1, 3), st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_shares_of_mask_and_complement_are_one(batch: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    heatmaps = scale * torch.randn(batch, 2, 3, 5, 4, generator=generator)
    masks = (torch.rand(batch, 1, 5, 4, generator=generator) < 0.5).float()
    outside, inside = background_share(heatmaps, masks), background_share(heatmaps, 1 - masks)
    torch.testing.assert_close(outside + inside, torch.ones(batch))
    assert ((outside >= 0) & (outside <= 1)).all()
    torch.testing.assert_close(background_share(heatmaps / scale, masks), outside)


@given(st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_the_area_is_what_a_uniform_heatmap_has_in_the_background(seed: int, size: float) -> None:
    heatmaps, masks = random_case(seed)
    area = background_area(heatmaps, masks)
    torch.testing.assert_close(background_share(torch.full_like(heatmaps, -size), masks), area)
    assert ((area >= 0) & (area < 1)).all()
    with pytest.raises(ValueError, match="batch and size"):
        background_area(heatmaps, masks[:1])


def test_a_heatmap_without_relevance_has_none_in_the_background() -> None:
    assert background_share(torch.zeros(2, 1, 3, 4, 4), torch.ones(2, 1, 4, 4)).tolist() == [0, 0]


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"heatmaps' batch and size, got \[2, 1, 4, 5\]"):
        background_share(torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 5))


def random_case(seed: int, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    heatmaps = torch.randn(batch, 2, 3, 5, 4, generator=generator, dtype=torch.float64)
    masks = (torch.rand(batch, 1, 5, 4, generator=generator) < 0.5).double()
    masks[:, :, 0, 0] = 1
    return heatmaps, masks


@given(st.integers(0, 2**16))
def test_mass_and_rank_as_the_paper_writes_them(seed: int) -> None:
    heatmaps, masks = random_case(seed)
    mass, rank = (f(heatmaps, masks) for f in (relevance_mass_accuracy, relevance_rank_accuracy))
    for b in range(3):
        inside = set(masks[b, 0].flatten().nonzero().flatten().tolist())
        masses, ranks = [], []
        for k in range(2):
            pooled = heatmaps[b, k].sum(0).flatten().clamp(min=0).tolist()
            masses.append(sum(pooled[p] for p in inside) / sum(pooled))
            highest = sorted(range(20), key=lambda p: -pooled[p])[: len(inside)]
            if pooled[highest[-1]] > 0:  # else ties
                ranks.append(len(inside & set(highest)) / len(inside))
        assert float(mass[b]) == pytest.approx(sum(masses) / 2)
        if len(ranks) == 2:
            assert float(rank[b]) == pytest.approx(sum(ranks) / 2)


def test_rank_takes_equal_pixels_as_the_mean_over_their_orders() -> None:
    heatmap = torch.tensor([[[[5.0, 2.0, 2.0, 2.0, -1.0]]]])
    mask = torch.tensor([[[[1.0, 1.0, 0.0, 0.0, 1.0]]]])
    # Of the highest three the first is inside, and two of three equal ones, of which one is inside.
    assert relevance_rank_accuracy(heatmap, mask).item() == pytest.approx((1 + 2 / 3) / 3)
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(4000):
        shaken = heatmap.numpy()[0, 0, 0] + 1e-6 * generator.random(5)
        hits.append(np.isin(np.argsort(-shaken)[:3], [0, 1, 4]).mean())
    assert np.mean(hits) == pytest.approx((1 + 2 / 3) / 3, abs=0.01)


def test_rank_looks_at_the_order_alone() -> None:
    heatmaps, masks = random_case(1)
    heatmaps = heatmaps.sum(2, keepdim=True).exp()
    expected = relevance_rank_accuracy(heatmaps, masks)
    torch.testing.assert_close(relevance_rank_accuracy(heatmaps**3, masks), expected)


def test_nothing_positive_hits_nothing_and_no_foreground_is_not_hit() -> None:
    against, mask = -torch.ones(1, 1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    assert relevance_mass_accuracy(against, mask).tolist() == [0]
    for measure in (relevance_mass_accuracy, relevance_rank_accuracy):
        assert measure(-against, 0 * mask).tolist() == [0]
        assert measure(-against, mask).tolist() == [1]
        with pytest.raises(ValueError, match="heatmaps' batch and size"):
            measure(against, torch.ones(1, 1, 4, 5))
