from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from faster_isnet.segmentation.shapes import Shape, ShapeRanges, clean, main_components

masks = arrays(
    np.float32,
    st.tuples(st.just(1), st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0.0, 1.0]),
).map(torch.from_numpy)
quick = settings(max_examples=60)


class TestClean:
    @quick
    @given(mask=masks, components=st.integers(1, 4))
    def test_keeps_the_largest_and_nothing_new_but_holes(self, mask, components):
        kept = clean(mask, components)
        labels, count = label(mask[0].numpy())
        sizes = sorted(np.bincount(labels.ravel())[1:], reverse=True)
        stay = (kept * mask)[0].numpy()
        assert stay.sum() >= sum(sizes[:components])
        assert label(kept[0].numpy())[1] <= min(components, count)
        # A component stays whole or goes whole.
        for number in range(1, count + 1):
            assert len(np.unique(stay[labels == number])) == 1
        assert kept.dtype == torch.float32
        assert kept.shape == mask.shape

    @quick
    @given(mask=masks, share=st.floats(0.01, 1))
    def test_main_components_hold_the_share_and_one_less_does_not(self, mask, share):
        count = main_components(mask, share)
        sizes = sorted(np.bincount(label(mask[0].numpy())[0].ravel())[1:], reverse=True)
        assert sum(sizes[:count]) >= share * sum(sizes)
        assert not count or sum(sizes[: count - 1]) < share * sum(sizes)

    @quick
    @given(mask=masks, components=st.integers(1, 4))
    def test_twice_is_once(self, mask, components):
        once = clean(mask, components)
        assert torch.equal(clean(once, components), once)

    @quick
    @given(mask=masks, components=st.integers(1, 4))
    def test_turning_changes_nothing(self, mask, components):
        sizes = np.bincount(label(mask[0].numpy())[0].ravel())[1:]
        if len(set(sizes)) < len(sizes):
            return  # of components of one size, the first stay
        turned = clean(mask.rot90(1, (1, 2)).contiguous(), components)
        assert torch.equal(turned, clean(mask, components).rot90(1, (1, 2)))

    def test_by_hand(self):
        mask = torch.tensor(
            [
                [
                    [1.0, 1, 1, 0, 0, 1],
                    [1.0, 0, 1, 0, 0, 1],
                    [1.0, 1, 1, 0, 0, 0],
                    [0.0, 0, 0, 0, 1, 0],
                ]
            ]
        )
        two = mask.clone()
        two[0, 1, 1], two[0, 3, 4] = 1, 0
        one = two.clone()
        one[0, :, 5] = 0
        assert torch.equal(clean(mask, 2), two)
        assert torch.equal(clean(mask, 1), one)


class TestShape:
    def test_by_hand(self):
        mask = torch.zeros(1, 10, 20)
        mask[0, 2:4, 0:4] = 1
        assert Shape.of(mask) == Shape(0.04, 1, 0.3, pytest.approx(0.1))
        mask[0, 9, 19] = 1
        assert Shape.of(mask).components == 2

    def test_the_middle_is_a_half_and_nothing_has_none(self):
        full, empty = Shape.of(torch.ones(1, 5, 8)), Shape.of(torch.zeros(1, 5, 8))
        assert full == Shape(1.0, 1, 0.5, 0.5)
        assert (empty.area, empty.components) == (0.0, 0)
        assert math.isnan(empty.row)
        assert math.isnan(empty.column)


class TestRanges:
    seen = ShapeRanges((0.2, 0.4), (1, 2), (0.4, 0.5), (0.5, 0.5))

    @quick
    @given(many=st.lists(masks, min_size=1, max_size=6))
    def test_nothing_that_was_seen_is_implausible(self, many):
        shapes = [Shape.of(mask) for mask in many]
        found = [shape for shape in shapes if shape.components]
        if not found:
            with pytest.raises(ValueError, match="no mask to train on has foreground"):
                ShapeRanges.of(shapes)
            return
        ranges = ShapeRanges.of(shapes)
        assert all(ranges.why_implausible(shape, tolerance=0) == "" for shape in found)

    @pytest.mark.parametrize(
        ("shape", "reason"),
        [
            (Shape(0.3, 2, 0.45, 0.5), ""),
            (Shape(0.181, 1, 0.31, 0.59), ""),  # within the tolerance of a tenth
            (Shape(0.439, 1, 0.59, 0.41), ""),
            (Shape(0.0, 0, math.nan, math.nan), "nothing was found"),
            (Shape(0.179, 1, 0.45, 0.5), "area 0.179, expected 0.2 to 0.4"),
            (Shape(0.441, 1, 0.45, 0.5), "area 0.441, expected 0.2 to 0.4"),
            (Shape(0.3, 1, 0.61, 0.5), "centre's row 0.61, expected 0.4 to 0.5"),
            (Shape(0.3, 1, 0.45, 0.39), "centre's column 0.39, expected 0.5 to 0.5"),
            (Shape(0.3, 3, 0.45, 0.5), "number of components 3, expected 1 to 2"),
            (
                Shape(0.1, 3, 0.45, 0.5),
                "area 0.1, expected 0.2 to 0.4; number of components 3, expected 1 to 2",
            ),
        ],
    )
    def test_reasons(self, shape, reason):
        assert self.seen.why_implausible(shape, tolerance=0.1) == reason
