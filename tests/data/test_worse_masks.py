from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from faster_isnet.common.checks import NO_MASK
from faster_isnet.data.masks import Boxes, grow, shrink
from faster_isnet.data.samples import Sample
from faster_isnet.data.worse_masks import WorseMasks, removed_masks

quick = settings(max_examples=40)
names = st.text(max_size=8)
sides = st.tuples(st.integers(10, 40), st.integers(10, 40))
shares = st.sampled_from([0.0, 0.1, 0.25, 0.5])
seeds = st.integers(0, 2**40)
changes = st.builds(
    WorseMasks,
    grow=shares,
    boxes=st.booleans(),
    shift=shares,
    missing=st.floats(0, 1),
    seed=seeds,
) | st.builds(WorseMasks, shrink=shares, boxes=st.booleans(), shift=shares, seed=seeds)


def blobs(size: tuple[int, int], seed: int, share: float = 0.5) -> Tensor:
    """A mask of smooth random parts, or of single pixels; it is never without foreground."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random(size), seed % 3)
    return torch.from_numpy(noise >= np.quantile(noise, 1 - share)).float()[None]


class TestWorsen:
    @quick
    @given(worse=changes, size=sides, seed=seeds, share=st.floats(0, 1), name=names)
    def test_a_mask_stays_a_mask_with_foreground(self, worse, size, seed, share, name):
        mask = blobs(size, seed, share)
        before = mask.clone()
        worsened = worse.worsen(mask, name)
        assert worsened.shape == mask.shape
        assert worsened.dtype == mask.dtype
        assert set(worsened.unique().tolist()) <= {0.0, 1.0}
        assert worsened.any()
        assert torch.equal(mask, before)  # not in place

    @quick
    @given(size=sides, seed=seeds, name=names)
    def test_by_default_nothing_changes(self, size, seed, name):
        mask = blobs(size, seed)
        assert torch.equal(WorseMasks(seed=seed).worsen(mask, name), mask)
        assert str(WorseMasks()) == "unchanged"

    @pytest.mark.parametrize("value", [0.0, NO_MASK])
    @pytest.mark.parametrize("change", [{"grow": 0.3}, {"shrink": 0.3}, {"boxes": True}])
    def test_what_has_no_foreground_stays_without(self, change, value):
        mask = torch.full((1, 20, 20), value)
        assert torch.equal(WorseMasks(**change, shift=0.2).worsen(mask, "a"), mask)

    @pytest.mark.parametrize("size", [(40, 60), (60, 40)])
    def test_distances_are_shares_of_the_shorter_side(self, size):
        mask = blobs(size, 5)
        assert torch.equal(WorseMasks(grow=0.1).worsen(mask, "a"), grow(mask, 4))
        assert torch.equal(WorseMasks(shrink=0.1).worsen(mask, "a"), shrink(mask, 4))
        both = WorseMasks(grow=0.2, shrink=0.1).worsen(mask, "a")
        assert torch.equal(both, shrink(grow(mask, 8), 4))

    def test_each_connected_part_gets_its_box(self):
        mask = torch.zeros(1, 12, 12)
        mask[0, 1, 1] = mask[0, 2, 2] = mask[0, 3, 3] = 1  # a diagonal is one part
        mask[0, 6, 8] = mask[0, 7, 8] = mask[0, 7, 10] = 1  # two parts
        expected = torch.zeros(1, 12, 12)
        expected[0, 1:4, 1:4] = expected[0, 6:8, 8] = expected[0, 7, 10] = 1
        assert torch.equal(WorseMasks(boxes=True).worsen(mask, "a"), expected)

    @quick
    @given(size=sides, seed=seeds)
    def test_a_box_covers_its_part_and_boxes_of_boxes_stay(self, size, seed):
        mask, worse = blobs(size, seed), WorseMasks(boxes=True)
        boxed = worse.worsen(mask, "a")
        assert (boxed >= mask).all()
        one = torch.zeros(1, *size)
        one[:, 2:5, 3:7] = 1
        assert torch.equal(worse.worsen(one, "a"), one)

    @quick
    @given(seed=seeds, name=names)
    def test_a_shift_is_of_its_distance_and_in_the_direction_of_the_name(self, seed, name):
        point = torch.zeros(1, 60, 60)
        point[:, 30, 30] = 1
        worse = WorseMasks(shift=0.2, seed=seed)
        moved = worse.worsen(point, name)
        assert moved.sum() == 1
        row, column = (moved[0].nonzero()[0] - 30).tolist()
        assert abs(np.hypot(row, column) - 12) < 0.71  # rounded to whole pixels
        assert torch.equal(worse.worsen(point, name), moved)

    def test_directions_are_uniform(self):
        point = torch.zeros(1, 60, 60)
        point[:, 30, 30] = 1
        worse, n = WorseMasks(shift=0.4, seed=2), 400
        moves = torch.stack(
            [worse.worsen(point, f"{i}.png")[0].nonzero()[0] - 30 for i in range(n)]
        ).double()
        angles = torch.atan2(moves[:, 0], moves[:, 1])
        counts = torch.histc(angles, 8, -np.pi, np.pi)
        assert ((counts - n / 8) ** 2 / (n / 8)).sum() < 24.4  # 7 degrees of freedom: 1 in 1000

    @pytest.mark.parametrize("corner", [(0, 0), (0, 19), (19, 0), (19, 19)])
    def test_what_would_leave_the_image_is_shifted_less(self, corner):
        mask = torch.zeros(1, 20, 20)
        mask[0][corner] = 1
        for name in range(20):
            assert WorseMasks(shift=0.5).worsen(mask, str(name)).sum() == 1

    def test_the_order_is_grown_then_boxed_then_shifted(self):
        mask = torch.zeros(1, 40, 40)
        mask[0, 20, 20] = 1
        worsened = WorseMasks(grow=0.1, boxes=True, shift=0.1).worsen(mask, "a")
        assert worsened.sum() == 9 * 9
        rows, columns = worsened[0].nonzero().T
        assert (rows.max() - rows.min(), columns.max() - columns.min()) == (8, 8)

    def test_another_process_draws_the_same(self):
        """Python's own hashes of texts differ from process to process."""
        code = (
            "from faster_isnet.data import WorseMasks; import torch\n"
            "mask = torch.zeros(1, 30, 30); mask[:, 15, 15] = 1\n"
            "worse = WorseMasks(shift=0.3, missing=0.5, seed=4)\n"
            "print(*worse.worsen(mask, 'a.png')[0].nonzero()[0].tolist(),"
            " *sorted(worse.removed({str(i): i % 2 for i in range(12)})))"
        )
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        mask = torch.zeros(1, 30, 30)
        mask[:, 15, 15] = 1
        worse = WorseMasks(shift=0.3, missing=0.5, seed=4)
        removed = sorted(worse.removed({str(i): i % 2 for i in range(12)}))
        place = worse.worsen(mask, "a.png")[0].nonzero()[0].tolist()
        assert other == [*map(str, place), *removed]


class TestRemoved:
    @quick
    @given(
        counts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
        missing=st.floats(0, 1),
        seed=seeds,
    )
    def test_the_share_is_exact_and_stratified(self, counts, missing, seed):
        labels = {f"{c}/{i}": c for c, count in enumerate(counts) for i in range(count)}
        removed = WorseMasks(missing=missing, seed=seed).removed(labels)
        assert removed <= labels.keys()
        assert len(removed) == round(missing * len(labels))
        of_class = Counter(labels[name] for name in removed)
        # The cut lies where the whole share is: all classes are cut within an image of it.
        cuts = [(of_class[c] - 1, of_class[c] + 1, count) for c, count in enumerate(counts)]
        low = max(least / count for least, _, count in cuts)
        high = min(most / count for _, most, count in cuts)
        assert low <= high
        for c, count in enumerate(counts):
            assert abs(of_class[c] - missing * count) <= 1 + len(counts) * count / len(labels)

    @pytest.mark.parametrize("missing", [0.2, 0.5, 0.8])
    def test_labels_of_one_image_each_are_missing_in_proportion(self, missing):
        """As the rare combinations of multi-label data; they are not all kept, nor all removed."""
        labels = {f"rare/{i}": i for i in range(100)} | {f"common/{i}": -1 for i in range(300)}
        removed = WorseMasks(missing=missing).removed(labels)
        rare = sum(name.startswith("rare") for name in removed)
        assert abs(rare - 100 * missing) < 3.3 * (100 * missing * (1 - missing)) ** 0.5

    @quick
    @given(one=st.floats(0, 1), other=st.floats(0, 1), seed=seeds)
    def test_more_missing_keeps_what_is_missing(self, one, other, seed):
        labels = {str(i): i % 3 for i in range(50)}
        few, many = (
            WorseMasks(missing=share, seed=seed).removed(labels) for share in sorted((one, other))
        )
        assert few <= many

    def test_seeds_and_names_decide_not_the_order(self):
        labels = {str(i): i % 3 for i in range(60)}
        worse = WorseMasks(missing=0.5, seed=1)
        assert worse.removed(labels) == worse.removed(dict(reversed(labels.items())))
        assert worse.removed(labels) != WorseMasks(missing=0.5, seed=2).removed(labels)

    def test_labels_of_several_classes_are_strata(self):
        labels = {str(i): (i % 2, i // 2 % 2) for i in range(80)}
        removed = WorseMasks(missing=0.5).removed(labels)
        assert set(Counter(labels[name] for name in removed).values()) <= {9, 10, 11}

    def test_samples_are_known_by_their_names_in_the_folder(self):
        """Data in another folder have the same masks missing; samples without a mask do not."""
        worse, box = WorseMasks(missing=0.5), Boxes(((0, 0, 2, 2),))

        def missing(root: str) -> list[str]:
            samples = [
                Sample(Path(root, f"{i}.png"), i % 2, box if i < 20 else None) for i in range(30)
            ]
            return [Path(name).name for name in removed_masks(worse, samples, root)]

        assert missing("/here") == missing("/far/away/there")
        assert len(missing("/here")) == 10
        assert all(int(name.split(".")[0]) < 20 for name in missing("/here"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grow": -0.1}, ValueError, "worse_masks.grow must be a number in [0, 0.5], got -0.1"),
        ({"shrink": 0.6}, ValueError, "worse_masks.shrink must be a number in [0, 0.5]"),
        ({"shift": float("nan")}, ValueError, "worse_masks.shift must be a number in [0, 0.5]"),
        ({"missing": 50}, ValueError, "worse_masks.missing must be a number in [0, 1], got 50"),
        ({"seed": -1}, ValueError, "worse_masks.seed must be a number in [0, inf)"),
        ({"grow": "much"}, TypeError, "worse_masks.grow must be a number"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        WorseMasks(**change)


@pytest.mark.parametrize("name", ["grow", "shrink", "shift"])
def test_less_than_a_pixel_is_refused_and_the_advice_works(name):
    for side in (16, 30, 64, 224):
        mask = blobs((side, side + 7), side)
        with pytest.raises(ValueError, match=f"worse_masks.{name} .* less than a pixel") as refused:
            WorseMasks(**{name: 0.9 / side}).worsen(mask, "a")
        advised = float(re.search(r"give ([\d.]+) or more", str(refused.value))[1])
        assert not torch.equal(WorseMasks(**{name: advised}).worsen(mask, "a"), mask)
