"""Where a model looks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from faster_isnet import Explainer
from faster_isnet.evaluation import background_share, mean_background_share


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
