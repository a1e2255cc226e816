"""C1 and C2 by layer and heatmap."""

from __future__ import annotations

import pytest
import torch

from faster_isnet import Explanation, ISNetLoss
from faster_isnet.methods.isnet.cuts import Cuts


def test_a_number_is_for_all() -> None:
    cuts = Cuts.of(1.0, 25.0)
    assert cuts.for_heatmaps("anything", 3) == ((1.0,) * 3, (25.0,) * 3)


def test_one_for_each_heatmap_and_layer() -> None:
    cuts = Cuts.of({"image": [1, 2], "layer1": 3}, {"image": 9, "layer1": [4, 5]})
    assert cuts.for_heatmaps("image", 2) == ((1, 2), (9, 9))
    assert cuts.for_heatmaps("layer1", 2) == ((3, 3), (4, 5))


@pytest.mark.parametrize(
    ("low", "high", "error", "message"),
    [
        (0, 1, ValueError, r"cut_low must be a number in \(0, inf\)"),
        (2, 1, ValueError, r"cut_high must be a number in \[2, inf\), got 1"),
        ([1, 5], [2, 4], ValueError, r"cut_high must be a number in \[5, inf\), got 4"),
        ([1, 2], [3, 4, 5], ValueError, "as many values as there are heatmaps"),
        ({"a": 1}, {"b": 2}, ValueError, "no C1 or C2 for layer"),
        (1, None, TypeError, "cut_high must be a number"),
    ],
)
def test_bad_cuts(low: object, high: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Cuts.of(low, high)


def test_cuts_for_other_layers_or_heatmaps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no C1 or C2 for layer 'layer2', only for .*'image'"):
        Cuts.of({"image": 1}, 2).for_heatmaps("layer2", 1)
    with pytest.raises(ValueError, match="'image' has 3 heatmaps a sample, but C1 or C2"):
        Cuts.of([1, 2], [3, 4]).for_heatmaps("image", 3)


def test_each_heatmap_of_a_layer_has_its_cuts() -> None:
    """Two equal heatmaps, one within its range and one below it."""
    heatmap, mask = torch.zeros(1, 2, 3, 4, 4), torch.ones(1, 1, 4, 4)
    heatmap[..., 0, 0] = 1.0  # Σ|h| = 3
    explanation = Explanation(torch.zeros(1, 2), heatmap, {}, torch.zeros(1, 2))
    loss = ISNetLoss(1.0, cut_low=[2.0, 6.0], cut_high=[4.0, 8.0])
    total = loss(explanation, torch.tensor([0]), mask).heatmap
    torch.testing.assert_close(total, torch.tensor((0 + (3 / 6 - 1) ** 2) / 2))
    same = ISNetLoss(1.0, cut_low={"image": [2.0, 6.0]}, cut_high={"image": [4.0, 8.0]})
    torch.testing.assert_close(same(explanation, torch.tensor([0]), mask).heatmap, total)


def test_the_loss_needs_calibrated_cuts() -> None:
    heatmap, mask = torch.ones(1, 1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    explanation = Explanation(torch.zeros(1, 2), heatmap, {}, torch.zeros(1, 1))
    loss = ISNetLoss(cut_low="auto")
    with pytest.raises(RuntimeError, match="C1 and C2 are not known yet"):
        loss(explanation, torch.tensor([0]), mask)
    loss.cuts = Cuts.of(1, 2)
    assert loss(explanation, torch.tensor([0]), mask).total.isfinite()
