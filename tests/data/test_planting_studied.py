from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from faster_isnet.common.checks import NO_MASK
from faster_isnet.data.digits import BIASES
from faster_isnet.data.marks import STRIPES, most_directions
from faster_isnet.data.planting import KINDS, PlantedDataset, Planting
from noise_images import Made, noise, patchy

seeds = st.integers(0, 2**40)
sides = st.integers(56, 90)
classes = st.integers(2, 12)
quick = settings(max_examples=25)


def shown_direction(image: Tensor, mask: Tensor, size: float, k: int) -> int:
    """Find the direction of stripes in the background by the energy at their frequencies."""
    side = min(image.shape[1:])
    background = (image.mean(0) - image[:, mask[0] == 0].mean()) * (mask[0] == 0)
    y, x = torch.meshgrid(*(torch.arange(n).double() for n in image.shape[1:]), indexing="ij")
    angles = torch.arange(k).double()[:, None, None] * torch.pi / k
    across = x * angles.cos() + y * angles.sin()
    waves = torch.exp(2j * torch.pi * across / (size * side))
    return int((background * waves).sum((1, 2)).abs().argmax())


class TestStripes:
    """Stripes all over the background, whose direction is that of the class."""

    @quick
    @given(
        height=sides,
        width=sides,
        seed=seeds,
        k=classes,
        amplitude=st.floats(0.05, 0.5),
        index=st.integers(0, 10**6),
    )
    def test_all_of_the_background_changes_and_nothing_else(
        self, height, width, seed, k, amplitude, index
    ):
        planting = Planting(STRIPES, amplitude=amplitude, seed=seed)
        image, mask = noise(3, height, width), patchy(height, width, seed)
        for label in range(k):
            planted = planting.plant(image, mask, label, k, index)
            foreground = (mask == 1).expand_as(image)
            assert torch.equal(planted[foreground], image[foreground])
            # All but the pixels at which the wave is about 0 or the image at its bound.
            assert (planted != image)[~foreground].float().mean() > 0.9
            assert (planted - image).abs().max() <= amplitude + 1e-6
            assert planted.dtype == image.dtype
            assert planted.min() >= 0
            assert planted.max() <= 1
        assert torch.equal(image, noise(3, height, width))  # not in place

    def test_a_sinusoid_of_the_period_and_the_amplitude(self):
        grey, labels = torch.full((3, 60, 80), 0.5), range(4)
        planted = [Planting(STRIPES, 0.2, amplitude=0.3).plant(grey, None, k, 4) for k in labels]
        for image in planted:
            assert image.max() - 0.5 == pytest.approx(0.3, abs=0.01)
            assert 0.5 - image.min() == pytest.approx(0.3, abs=0.01)
            assert torch.equal(image[0], image[2])
        upright = [image for image in planted if torch.allclose(image[0, 0], image[0, 7])]
        assert len(upright) == 1  # of the directions 0, 45, 90 and 135 degrees
        wave = upright[0][0, 0]
        assert torch.allclose(wave[12:], wave[:-12], atol=1e-5)  # 0.2 of 60 pixels
        assert not torch.allclose(wave[6:], wave[:-6], atol=0.1)

    def test_the_index_decides_the_phase_whatever_the_class(self):
        grey, planting = torch.full((1, 60, 60), 0.5), Planting(STRIPES, seed=3)
        corners = {
            index: [planting.plant(grey, None, k, 5, index)[0, 0, 0].item() for k in range(5)]
            for index in range(40)
        }
        assert all(len(set(values)) == 1 for values in corners.values())
        assert len({values[0] for values in corners.values()}) == 40
        phases = np.array([values[0] for values in corners.values()])
        assert phases.min() < 0.4
        assert phases.max() > 0.6

    @pytest.mark.parametrize("size", [0.08, 0.15, 0.3, 0.5])
    def test_as_many_directions_as_are_allowed_are_told_apart(self, size):
        k = most_directions(size)
        data = PlantedDataset(Made(2 * k, k, side=96), Planting(STRIPES, size), "biased", k)
        order = np.random.default_rng(0).permutation(k)  # of the seed, so which class has which
        found = [shown_direction(image, mask, size, k) for image, _, mask, _ in data]
        assert found == [*order, *order]

    def test_more_classes_than_directions_are_refused_and_the_advice_works(self):
        image = torch.zeros(1, 400, 500)
        for size in (0.05, 0.15, 0.5):
            k = most_directions(size) + 1
            with pytest.raises(ValueError, match=f"have {k - 1} directions.* {k} class") as refused:
                Planting(STRIPES, size).plant(image, None, 0, k)
            advised = float(re.search(r"size of ([\d.]+) or less", str(refused.value))[1])
            assert Planting(STRIPES, advised).plant(image, None, 0, k).any()

    def test_stripes_of_too_few_pixels_are_refused_and_the_advice_works(self):
        for side in range(8, 40):
            image = torch.zeros(1, side, side + 3)
            with pytest.raises(ValueError, match="they need 4") as refused:
                Planting(STRIPES, 3.9 / side).plant(image, None, 0, 2)
            advised = float(re.search(r"size of ([\d.]+) or more", str(refused.value))[1])
            assert Planting(STRIPES, advised).plant(image, None, 0, 2).any()
        with pytest.raises(ValueError, match="use larger images"):
            Planting(STRIPES).plant(torch.zeros(1, 7, 7), None, 0, 2)

    def test_no_mask_is_all_background_and_all_foreground_gets_no_stripes(self):
        image, planting = noise(3, 64, 64), Planting(STRIPES, seed=1)
        bare = planting.plant(image, None, 1, 3)
        assert (bare != image).float().mean() > 0.9
        for value in (0.0, NO_MASK):
            assert torch.equal(bare, planting.plant(image, torch.full((1, 64, 64), value), 1, 3))
        assert torch.equal(planting.plant(image, torch.ones(1, 64, 64), 1, 3), image)

    def test_the_three_biases(self):
        k, size = 4, 0.15
        for bias in BIASES:
            data = PlantedDataset(Made(24, k), Planting(STRIPES, seed=2), bias, k)
            of_class = np.random.default_rng(2).permutation(k).tolist()
            right = [
                shown_direction(image, mask, size, k) == of_class[label]
                for image, label, mask, _ in data
            ]
            if bias == "unbiased":
                assert torch.equal(data[5][0], Made(24, k)[5][0])
            else:
                assert right == [bias == "biased"] * 24


class TestCorrelation:
    """Of training images, some have the mark of another class."""

    @staticmethod
    def shown(correlation: float, n: int = 2000, k: int = 4, seed: int = 0) -> np.ndarray:
        planting = Planting(correlation=correlation, seed=seed)
        data = PlantedDataset(Made(n, k), planting, "biased", k)
        return np.array([data._marked_class(index % k, index) for index in range(n)])

    @pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8, 0.95, 1.0])
    def test_the_share_of_true_marks(self, correlation):
        own = np.arange(2000) % 4
        share = (self.shown(correlation) == own).mean()
        spread = np.sqrt(correlation * (1 - correlation) / 2000)
        assert abs(share - correlation) <= 3.3 * spread  # exact at 0 and 1

    def test_other_marks_are_uniform_over_the_other_classes(self):
        steps = (self.shown(0.0) - np.arange(2000)) % 4
        counts = np.bincount(steps, minlength=4)
        assert counts[0] == 0
        assert ((counts[1:] - 2000 / 3) ** 2 / (2000 / 3)).sum() < 13.8  # 1 in 1000 is above

    @quick
    @given(one=st.floats(0, 1), other=st.floats(0, 1), seed=seeds)
    def test_lower_correlations_keep_the_other_marks(self, one, other, seed):
        low, high = (self.shown(value, n=60, seed=seed) for value in sorted((one, other)))
        false = high != np.arange(60) % 4
        assert np.array_equal(low[false], high[false])

    def test_the_seed_and_the_index_decide(self):
        assert np.array_equal(self.shown(0.5), self.shown(0.5))
        assert np.array_equal(self.shown(0.5, n=50), self.shown(0.5)[:50])
        assert not np.array_equal(self.shown(0.5), self.shown(0.5, seed=1))

    @pytest.mark.parametrize("kind", KINDS)
    def test_images_have_the_mark_that_was_drawn(self, kind):
        k, made = 3, Made(12, 3)
        data = PlantedDataset(made, Planting(kind, correlation=0.5), "biased", k)
        for index in range(12):
            image, label, mask, _ = made[index]
            marked = data._marked_class(label, index)
            expected = data.planting.plant(image, mask, marked, k, index)
            assert torch.equal(data[index][0], expected)

    @pytest.mark.parametrize("bias", ["unbiased", "deceiving"])
    def test_other_biases_do_not_depend_on_it(self, bias):
        one, other = (
            PlantedDataset(Made(12, 3), Planting(correlation=value), bias, 3)
            for value in (1.0, 0.3)
        )
        assert all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))
