"""Where a model looks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from faster_isnet import Explainer
from faster_isnet.common.checks import NO_MASK
from faster_isnet.evaluation import (
    Predictions,
    attention_scores,
    background_share,
    mean_background_share,
    measure_attention,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    worst,
)
from faster_isnet.evaluation.attention import MEASURES


@given(st.integers(1, 3), st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_shares_of_mask_and_complement_are_one(batch: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    heatmaps = scale * torch.randn(batch, 2, 3, 5, 4, generator=generator)
    masks = (torch.rand(batch, 1, 5, 4, generator=generator) < 0.5).float()
    outside, inside = background_share(heatmaps, masks), background_share(heatmaps, 1 - masks)
    torch.testing.assert_close(outside + inside, torch.ones(batch))
    assert ((outside >= 0) & (outside <= 1)).all()
    torch.testing.assert_close(background_share(heatmaps / scale, masks), outside)


def test_a_heatmap_without_relevance_has_none_in_the_background() -> None:
    assert background_share(torch.zeros(2, 1, 3, 4, 4), torch.ones(2, 1, 4, 4)).tolist() == [0, 0]


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"heatmaps' batch and size, got \[2, 1, 4, 5\]"):
        background_share(torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 5))


def test_a_model_that_reads_the_left_half_has_its_relevance_there() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    weight = torch.rand(3, 4, 4) + 0.1
    weight[:, :, 2:] = 0
    model[1].weight.data = weight.flatten(1)
    left = torch.zeros(5, 1, 4, 4)
    left[..., :2] = 1
    images, labels = torch.rand(5, 1, 4, 4), torch.zeros(5)
    explainer = Explainer(model)
    # Batches of different sizes count by their samples.
    batches = [(images[:3], labels, left[:3]), (images[3:], labels, 1 - left[3:])]
    assert mean_background_share(explainer, batches) == pytest.approx(2 / 5)


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


def reader(classes: int = 3) -> Explainer:
    torch.manual_seed(0)
    return Explainer(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, classes))
    )


def masked_batches(sizes: tuple[int, ...]) -> list[tuple[torch.Tensor, ...]]:
    """Twelve images in batches of these sizes; those of even number have a mask."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, 1, 4, 4, generator=generator)
    masks = (torch.rand(12, 1, 4, 4, generator=generator) < 0.5).float()
    masks[1::2] = NO_MASK
    return list(zip(*(t.split(sizes) for t in (images, torch.zeros(12), masks)), strict=True))


NAMES = [f"{i}.png" for i in range(12)]


def test_images_without_a_mask_are_left_out_however_they_are_batched() -> None:
    found = measure_attention(reader(), masked_batches((12,)), NAMES)
    assert list(found["name"]) == NAMES[::2]
    assert found.notna().all().all()
    ((images, _, masks),) = masked_batches((12,))
    assert list(found["predicted"]) == reader().model(images[::2]).argmax(1).tolist()
    for sizes in ((1,) * 12, (5, 7)):
        again = measure_attention(reader(), masked_batches(sizes), NAMES)
        pd.testing.assert_frame_equal(again, found, rtol=1e-4)
    heatmap = reader()(images[4:5], "highest-log-odds").heatmap
    expected = float(background_share(heatmap, masks[4:5]))
    assert found["background share"][2] == pytest.approx(expected, rel=1e-4)
    other = measure_attention(reader(), masked_batches((12,)), NAMES, "lowest-eta")
    assert not np.allclose(other["background share"], found["background share"])


def test_no_masks_at_all_and_a_wrong_number_of_names() -> None:
    batches = [(x, y, torch.full_like(m, NO_MASK)) for x, y, m in masked_batches((12,))]
    found = measure_attention(reader(), batches, NAMES)
    assert len(found) == 0
    assert "background share" in found
    for either in (batches, masked_batches((12,))):
        with pytest.raises(ValueError, match="11 names for 12 images"):
            measure_attention(reader(), either, NAMES[:-1])


def of_images(names: list[str]) -> Predictions:
    labels = np.arange(len(names)) % 2
    return Predictions(names, labels, np.full((len(names), 3), 1 / 3), ["a", "b", "c"])


def test_attention_is_averaged_over_all_and_by_class() -> None:
    table = pd.DataFrame(
        {
            "name": ["3.png", "0.png", "5.png"],
            "predicted": 0,
            "background share": [0.1, 0.2, 0.6],
            "mass accuracy": [0.5, 0.7, 0.9],
            "rank accuracy": 1.0,
        }
    )
    found = attention_scores(table, of_images(NAMES))
    assert json.loads(json.dumps(found)) == found
    assert found["images"] == 3
    assert found["background share"]["value"] == pytest.approx(0.3)
    assert found["background share"]["low"] == pytest.approx(0.1)
    assert found["background share"]["high"] == pytest.approx(0.6)
    assert found["classes"]["a"]["background share"]["value"] == pytest.approx(0.2)
    assert found["classes"]["b"]["mass accuracy"]["value"] == pytest.approx(0.7)
    assert found["classes"]["c"]["images"] == 0
    assert found["classes"]["c"]["rank accuracy"]["value"] is None
    assert list(worst(table, 2)["name"]) == ["5.png", "0.png"]


def test_attention_is_resampled_by_groups() -> None:
    """Ten images alike in each of six groups are no surer than six images."""
    shares = np.linspace(0, 1, 6).repeat(10)
    names = [str(i) for i in range(60)]
    table = pd.DataFrame({"name": names, **dict.fromkeys(MEASURES, shares)})
    alone = of_images(names)
    grouped = replace(alone, groups=[str(i // 10) for i in range(60)])
    wide, narrow = (
        found["high"] - found["low"]
        for found in (attention_scores(table, p)["background share"] for p in (grouped, alone))
    )
    assert wide > 2 * narrow


def test_the_worst_of_equals_come_in_order() -> None:
    """Of so many that an unstable sort would show."""
    table = pd.DataFrame({"name": range(200), "background share": np.arange(200) % 2})
    assert list(worst(table, 100)["name"]) == list(range(1, 200, 2))


def test_names_must_be_known_and_differ() -> None:
    table = measure_attention(reader(), masked_batches((12,)), NAMES)
    with pytest.raises(ValueError, match=r"no prediction for '2\.png'"):
        attention_scores(table, of_images(NAMES[:2]))
    with pytest.raises(ValueError, match="two images have the same name"):
        attention_scores(table, of_images(["0.png", *NAMES]))
