from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from faster_isnet.common.checks import NO_MASK
from faster_isnet.data.digits import BIASES
from faster_isnet.data.marks import MARK_KINDS, SHAPES
from faster_isnet.data.planting import PlantedDataset, Planting
from faster_isnet.data.seeded_sampling import SeededIndex
from noise_images import Made, box, noise, patchy

kinds = st.sampled_from(sorted(MARK_KINDS))
seeds = st.integers(0, 2**40)
sides = st.integers(56, 90)
classes = st.integers(2, 12)
quick = settings(max_examples=25)


class TestPlant:
    @quick
    @given(kind=kinds, height=sides, width=sides, seed=seeds, k=classes, opacity=st.floats(0.01, 1))
    def test_foreground_is_untouched_and_the_range_kept(
        self, kind, height, width, seed, k, opacity
    ):
        planting = Planting(kind, opacity=opacity, seed=seed)
        image, mask = noise(3, height, width), patchy(height, width, seed)
        for label in range(k):
            planted = planting.plant(image, mask, label, k)
            changed = (planted != image).any(0)
            assert not changed[mask[0] == 1].any()
            assert changed.any()
            assert planted.dtype == image.dtype
            assert planted.min() >= 0
            assert planted.max() <= 1
        assert torch.equal(image, noise(3, height, width))  # not in place

    @quick
    @given(kind=kinds, height=sides, width=sides, seed=seeds, k=classes)
    def test_marks_of_all_classes_differ_and_fit_in_where_there_is_room(
        self, kind, height, width, seed, k
    ):
        planting = Planting(kind, size=0.15, seed=seed)
        side = round(0.15 * min(height, width))
        grey, mask = torch.full((1, height, width), 0.47), box(height, width, side)
        planted = torch.stack([planting.plant(grey, mask, label, k) for label in range(k)])
        assert len(planted.unique(dim=0)) == k
        whole = torch.stack(
            [planting.plant(grey, torch.zeros_like(mask), label, k) for label in range(k)]
        )
        # As many pixels as without a mask: nothing of a mark was cut off.
        assert torch.equal((planted != grey).flatten(1).sum(1), (whole != grey).flatten(1).sum(1))

    @pytest.mark.parametrize("kind", MARK_KINDS)
    @pytest.mark.parametrize(("side", "size"), [(64, 0.125), (200, 0.15)])
    def test_marks_differ_clearly_at_all_sizes(self, kind, side, size):
        k = 8
        grey = torch.full((1, side, side), 0.5)
        marks = [Planting(kind, size).plant(grey, None, label, k) - grey for label in range(k)]
        pixels = round(size * side) ** 2
        for i, one in enumerate(marks):
            for other in marks[:i]:
                assert (one - other).abs().sum() > 0.05 * pixels

    @quick
    @given(kind=kinds, seed=seeds, k=classes)
    def test_opacity_blends(self, kind, seed, k):
        image, mask = noise(3, 64, 64), box(64, 64, 12)
        opaque = Planting(kind, seed=seed).plant(image, mask, 0, k)
        half = Planting(kind, opacity=0.5, seed=seed).plant(image, mask, 0, k)
        torch.testing.assert_close(half, (image + opaque) / 2)

    @pytest.mark.parametrize("ground", [0.0, 1.0])
    @pytest.mark.parametrize("kind", MARK_KINDS)
    def test_marks_are_visible_on_any_background(self, kind, ground):
        image = torch.full((1, 64, 64), ground)
        for label in range(6):
            changed = (Planting(kind, 0.2).plant(image, None, label, 6) - image).abs()
            assert changed.max() > 0.9

    @pytest.mark.parametrize("kind", MARK_KINDS)
    def test_the_kind_alone_tells_classes_apart(self, kind):
        """All but the position lie in the same place; the position has the same mark."""
        grey = torch.full((1, 64, 96), 0.47)
        boxes, contents = set(), set()
        for label in range(5):
            planted = Planting(kind, 0.25).plant(grey, None, label, 5)
            rows, columns = (planted != grey)[0].nonzero().T
            window = np.s_[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            boxes.add((int(rows.min()), int(columns.min())))
            contents.add(planted[window].numpy().tobytes())
        assert (len(boxes), len(contents)) == ((5, 1) if kind == "position" else (1, 5))

    @pytest.mark.parametrize("kind", MARK_KINDS)
    def test_the_seed_chooses_which_class_has_which_mark(self, kind):
        grey = torch.full((1, 64, 64), 0.47)
        first = {
            Planting(kind, seed=seed).plant(grey, None, 0, 5).numpy().tobytes()
            for seed in range(20)
        }
        assert len(first) >= 5
        again = [Planting(kind, seed=3).plant(grey, None, 2, 5) for _ in range(2)]
        assert torch.equal(*again)

    @pytest.mark.parametrize("kind", MARK_KINDS)
    def test_no_mask_and_one_without_foreground_are_alike(self, kind):
        image, planting = noise(3, 64, 64), Planting(kind, seed=1)
        bare = planting.plant(image, None, 1, 3)
        for value in (0.0, NO_MASK):
            assert torch.equal(bare, planting.plant(image, torch.full((1, 64, 64), value), 1, 3))

    @pytest.mark.parametrize("kind", MARK_KINDS)
    def test_all_foreground_gets_no_mark(self, kind):
        image = noise(3, 64, 64)
        planted = Planting(kind).plant(image, torch.ones(1, 64, 64), 1, 3)
        assert torch.equal(planted, image)

    def test_the_mark_is_placed_in_the_only_free_position(self):
        image, mask = noise(1, 64, 64), torch.ones(1, 64, 64)
        mask[:, 30:40, 20:30] = 0
        planted = Planting("texture", 10 / 64).plant(image, mask, 1, 3)
        assert torch.equal((planted != image), mask == 0)

    @quick
    @given(seed=seeds, k=classes, cut=st.integers(0, 60))
    def test_positions_stay_each_class_s_own(self, seed, k, cut):
        """Wherever the foreground pushes a mark: its class's free place is the nearest of all."""
        planting = Planting("position", size=0.13, seed=seed)
        grey, mask = torch.full((1, 64, 64), 0.47), torch.zeros(1, 64, 64)
        mask[:, :cut, 10:50] = 1

        def places(mask):
            marks = [planting.plant(grey, mask, label, k) for label in range(k)]
            return [(mark != grey)[0].nonzero().double() for mark in marks]

        free = places(None)
        corners = torch.stack([pixels.amin(0) for pixels in free])
        whole = [
            (label, pixels.amin(0))
            for label, pixels in enumerate(places(mask))
            if len(pixels) == len(free[label])  # nothing is cut off
        ]
        assert whole
        for label, corner in whole:
            distances = (corners - corner).norm(dim=1)
            assert distances[label] == distances.min()


class TestPlantedDataset:
    @quick
    @given(kind=kinds, seed=seeds, k=classes)
    def test_marks_by_bias(self, kind, seed, k):
        made, planting = Made(6, k), Planting(kind, seed=seed)
        biased, unbiased, deceiving = (PlantedDataset(made, planting, bias, k) for bias in BIASES)
        for index in range(6):
            image, label, mask, *_ = made[index]
            marked = [planting.plant(image, mask, other, k) for other in range(k)]
            assert torch.equal(unbiased[index][0], image)
            assert torch.equal(biased[index][0], marked[label])
            shown = [torch.equal(deceiving[index][0], mark) for mark in marked]
            assert sum(shown) == 1
            assert not shown[label]
            assert torch.equal(deceiving[index][0], deceiving[index - 6][0])
            for planted in (biased, unbiased, deceiving):
                _, same_label, same_mask, attribute = planted[index]
                assert same_label == label
                assert torch.equal(same_mask, mask)
                assert attribute.dtype == torch.int64
            attributes = [int(planted[index][3]) for planted in (biased, unbiased, deceiving)]
            assert attributes == [label, -1, shown.index(True)]

    def test_deceiving_marks_are_uniform_over_the_other_classes(self):
        k, n = 4, 1200
        data = PlantedDataset(Made(n, k), Planting(seed=5), "deceiving", k)
        seen = np.array([data._marked_class(0, index) for index in range(n)])
        counts = np.bincount(seen, minlength=k)
        assert counts[0] == 0
        chi2 = ((counts[1:] - n / 3) ** 2 / (n / 3)).sum()
        assert chi2 < 13.8  # 2 degrees of freedom: one draw in a thousand is above

    @pytest.mark.parametrize("kind", MARK_KINDS)
    def test_a_linear_probe_reads_the_background_and_is_deceived(self, kind):
        k, n = 4, 120

        def background(bias):
            data = PlantedDataset(Made(n, k), Planting(kind, 0.18), bias, k)
            return np.stack([(image * (1 - mask)).flatten().numpy() for image, _, mask, _ in data])

        labels = np.arange(n) % k
        train, test = np.s_[: n // 2], np.s_[n // 2 :]
        biased = background("biased")
        probe = LogisticRegression(max_iter=200).fit(biased[train], labels[train])
        assert probe.score(biased[test], labels[test]) > 0.95
        assert probe.score(background("deceiving")[test], labels[test]) < 0.05
        assert probe.score(background("unbiased")[test], labels[test]) < 0.6  # by chance 0.25

    def test_labels_may_be_tensors(self):
        image, mask = noise(3, 64, 64), box(64, 64, 12)
        one, other = (
            PlantedDataset([(image, label, mask)], Planting(), "biased", 3)
            for label in (2, torch.tensor(2))
        )
        assert torch.equal(one[0][0], other[0][0])

    def test_python_indexing(self):
        data = PlantedDataset(Made(3, 2), Planting(), "biased", 2)
        assert len(data) == len(list(data)) == 3
        assert torch.equal(data[-1][0], data[2][0])
        with pytest.raises(IndexError):
            data[3]


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"kind": "shap"}, ValueError, "unknown kind 'shap'; did you mean 'shape'?"),
            ({"kind": 3}, TypeError, "kind must be a string"),
            ({"size": 0}, ValueError, "size must be a number in (0, 0.5], got 0"),
            ({"size": 0.6}, ValueError, "size must be a number in (0, 0.5]"),
            ({"opacity": 0}, ValueError, "opacity must be a number in (0, 1]"),
            ({"opacity": float("nan")}, ValueError, "opacity must be a number"),
            ({"seed": -1}, ValueError, "seed must be a number in [0, inf)"),
            ({"correlation": 95}, ValueError, "correlation must be a number in [0, 1], got 95"),
            ({"correlation": "all"}, TypeError, "correlation must be a number in [0, 1]"),
            ({"amplitude": 0}, ValueError, "amplitude must be a number in (0, 0.5], got 0"),
            ({"amplitude": 0.2}, ValueError, "amplitude is of stripes, but kind is 'shape'"),
            ({"kind": "stripes", "opacity": 0.5}, ValueError, "opacity is of squares, but kind"),
        ],
    )
    def test_of_the_planting(self, change, error, message):
        with pytest.raises(error, match=re.escape(message)):
            Planting(**change)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"image": torch.zeros(3, 64, 64).byte()}, TypeError, "floating point in [0, 1]"),
            ({"image": torch.zeros(1, 3, 64, 64)}, ValueError, "must be [C, H, W]"),
            ({"mask": torch.zeros(1, 32, 64)}, ValueError, "mask must be [1, 64, 64]"),
            ({"mark_class": 3}, ValueError, "mark_class must be in 0 to 2, got 3"),
            ({"mark_class": -1}, ValueError, "mark_class must be in 0 to 2, got -1"),
            ({"num_classes": 1}, ValueError, "num_classes must be a number in [2"),
            ({"image": torch.zeros(3, 40, 64), "mask": None}, ValueError, "give a size of 0.2 "),
            ({"num_classes": len(SHAPES) + 1}, ValueError, "there are 12 shapes, but 13 classes"),
        ],
    )
    def test_of_an_image(self, change, error, message):
        arguments = {
            "image": torch.zeros(3, 64, 64),
            "mask": torch.zeros(1, 64, 64),
            "mark_class": 0,
            "num_classes": 3,
        } | change
        with pytest.raises(error, match=re.escape(message)):
            Planting().plant(**arguments)

    @pytest.mark.parametrize(
        ("kind", "k", "message"),
        [
            ("position", 30, "room for 21 marks of 10 pixels, but there are 30 classes"),
            ("text", 27, "there are 26 letters, but 27 classes"),
        ],
    )
    def test_more_classes_than_marks(self, kind, k, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            Planting(kind).plant(torch.zeros(3, 64, 64), None, 0, k)

    def test_the_size_that_is_advised_works(self):
        for side in range(16, 70):
            image = torch.zeros(1, side, side)
            with pytest.raises(ValueError, match=r"size of [\d.]+ or more") as refused:
                Planting(size=0.1).plant(image, None, 0, 2)
            advised = float(re.search(r"size of ([\d.]+) or more", str(refused.value))[1])
            assert Planting(size=advised).plant(image, None, 0, 2).any()

    @pytest.mark.parametrize(
        ("label", "error", "message"),
        [
            (3, ValueError, "item 0 has the label 3, but there are 3 classes"),
            (-1, ValueError, "item 0 has the label -1"),
            (torch.tensor([1.0, 0.0, 1.0]), TypeError, "a mark is of one class, but item 0"),
            (1.7, TypeError, "has the label 1.7"),
        ],
    )
    def test_of_a_label(self, label, error, message):
        items = [(torch.zeros(3, 64, 64), label, torch.zeros(1, 64, 64))]
        with pytest.raises(error, match=re.escape(message)):
            PlantedDataset(items, Planting(), "deceiving", 3)[0]

    def test_of_the_dataset(self):
        with pytest.raises(ValueError, match="did you mean 'deceiving'"):
            PlantedDataset(Made(2, 2), Planting(), "deceving", 2)
        with pytest.raises(ValueError, match="num_classes must be a number in"):
            PlantedDataset(Made(2, 2), Planting(), "biased", 1)


def test_the_seed_of_an_index_reaches_the_augmentation() -> None:
    class Asked(Made):
        def __getitem__(self, index):
            self.index = index
            return super().__getitem__(index)

    made = Asked(4, 2)
    _ = PlantedDataset(made, Planting(), "biased", 2)[SeededIndex(1, seed=9)]
    assert (made.index, made.index.seed) == (1, 9)
