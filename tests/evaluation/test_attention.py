"""Where a model's relevance lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from faster_isnet import Explainer
from faster_isnet.common.checks import NO_MASK
from faster_isnet.evaluation import (
    Predictions,
    attention_scores,
    background_share,
    mean_background_share,
    measure_attention,
    worst,
)
from faster_isnet.evaluation.measures import MEASURES, AttentionMeasure, of_type


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
    assert found["background_share"][2] == pytest.approx(expected, rel=1e-4)
    other = measure_attention(reader(), masked_batches((12,)), NAMES, "lowest-eta")
    assert not np.allclose(other["background_share"], found["background_share"])


def test_no_masks_at_all_and_a_wrong_number_of_names() -> None:
    batches = [(x, y, torch.full_like(m, NO_MASK)) for x, y, m in masked_batches((12,))]
    found = measure_attention(reader(), batches, NAMES)
    assert len(found) == 0
    assert "background_share" in found
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
            "background_share": [0.1, 0.2, 0.6],
            "mass_accuracy": [0.5, 0.7, 0.9],
            "rank_accuracy": 1.0,
        }
    )
    found = attention_scores(table, of_images(NAMES))
    assert found.images == 3
    share = found.overall["background_share"]
    assert (share.value, share.low, share.high) == pytest.approx((0.3, 0.1, 0.6))
    assert found.classes["a"].scores["background_share"].value == pytest.approx(0.2)
    assert found.classes["b"].scores["mass_accuracy"].value == pytest.approx(0.7)
    assert found.classes["c"].images == 0
    assert found.classes["c"].scores["rank_accuracy"].value is None
    assert list(worst(table, 2)["name"]) == ["5.png", "0.png"]


def test_attention_is_resampled_by_groups() -> None:
    """Ten images alike in each of six groups are no surer than six images."""
    shares = np.linspace(0, 1, 6).repeat(10)
    names = [str(i) for i in range(60)]
    columns = [measure.name for measure in of_type(MEASURES, AttentionMeasure)]
    table = pd.DataFrame({"name": names, **dict.fromkeys(columns, shares)})
    alone = of_images(names)
    grouped = replace(alone, groups=[str(i // 10) for i in range(60)])
    wide, narrow = (
        found.high - found.low
        for found in (
            attention_scores(table, p).overall["background_share"] for p in (grouped, alone)
        )
    )
    assert wide > 2 * narrow


def test_the_worst_of_equals_come_in_order() -> None:
    """Of so many that an unstable sort would show."""
    table = pd.DataFrame({"name": range(200), "background_share": np.arange(200) % 2})
    assert list(worst(table, 100)["name"]) == list(range(1, 200, 2))


def test_names_must_be_known_and_differ() -> None:
    table = measure_attention(reader(), masked_batches((12,)), NAMES)
    with pytest.raises(ValueError, match=r"no prediction for '2\.png'"):
        attention_scores(table, of_images(NAMES[:2]))
    with pytest.raises(ValueError, match="two images have the same name"):
        attention_scores(table, of_images(["0.png", *NAMES]))
