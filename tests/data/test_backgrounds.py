"""Replaced backgrounds: what stays, what goes, and that no foreground is seen in them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faster_isnet.common.checks import NO_MASK
from faster_isnet.data.backgrounds import BACKGROUNDS, ReplacedBackground


def items(count: int = 8, classes: int = 2, size: int = 24) -> list:
    """Images of noise with a square each in another place."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(count):
        mask = torch.zeros(1, size, size)
        mask[:, 2 + i : 12 + i, 4:14] = 1
        image = torch.rand(3, size, size, generator=generator)
        made.append((image, torch.tensor(i % classes), mask))
    return made


def labels(made: list) -> list[int]:
    return [int(label) for _, label, _ in made]


@pytest.mark.parametrize("kind", BACKGROUNDS)
class TestAll:
    def test_the_foreground_stays_and_the_background_goes(self, kind):
        made = items()
        replaced = ReplacedBackground(made, kind, labels(made))
        assert len(replaced) == 8
        for (image, label, mask), (before, same_label, same_mask) in zip(
            replaced, made, strict=True
        ):
            inside = (same_mask == 1).expand_as(image)
            assert torch.equal(image[inside], before[inside])
            assert (image[~inside] != before[~inside]).float().mean() > 0.99
            assert image.min() >= 0
            assert image.max() <= 1
            assert label == same_label
            assert torch.equal(mask, same_mask)

    def test_random_values_depend_only_on_seed_and_item(self, kind):
        made = items()
        one, again = (ReplacedBackground(made, kind, labels(made)) for _ in range(2))
        backwards = [again[i][0] for i in reversed(range(8))][::-1]
        assert all(torch.equal(one[i][0], backwards[i]) for i in range(8))
        assert torch.equal(one[-1][0], one[7][0])
        with pytest.raises(IndexError):
            one[8]

    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=5)
    def test_no_foreground_is_seen_in_a_background(self, kind, seed):
        """Whatever the foregrounds are, the backgrounds stay the same."""
        made = items()
        generator = torch.Generator().manual_seed(seed)
        other = [
            (torch.where(mask == 1, torch.rand(3, 24, 24, generator=generator), image), y, mask)
            for image, y, mask in made
        ]
        for a, b in zip(
            ReplacedBackground(made, kind, labels(made)),
            ReplacedBackground(other, kind, labels(made)),
            strict=True,
        ):
            outside = (a[2] != 1).expand_as(a[0])
            torch.testing.assert_close(a[0][outside], b[0][outside], rtol=0, atol=1e-6)

    def test_faults(self, kind):
        made = items()
        with pytest.raises(ValueError, match="7 labels for 8 images"):
            ReplacedBackground(made, kind, labels(made)[1:])
        with pytest.raises(ValueError, match="seed must be"):
            ReplacedBackground(made, kind, labels(made), seed=-1)
        made[0] = (*made[0][:2], torch.full_like(made[0][2], NO_MASK))
        with pytest.raises(ValueError, match="item 0 has no mask"):
            ReplacedBackground(made, kind, [0] + [1] * 7)[0]


def marked(count: int, classes: list) -> list:
    """Images whose background has a grey level of their own."""
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:8, 4:8] = 1
    return [
        (torch.full((1, 16, 16), (i + 1) / (count + 1)), torch.tensor(classes[i]), mask)
        for i in range(count)
    ]


def donors(made: list, classes: list, seed: int) -> list[int]:
    replaced = ReplacedBackground(made, "other image", classes, seed)
    return [round(float(image[0, 0, 0]) * (len(made) + 1)) - 1 for image, _, _ in replaced]


def test_the_other_image_is_of_another_class_and_any_of_them():
    classes = [0, 1, 2, 0, 1, 2, 0, 0]
    made = marked(8, classes)
    drawn = [donors(made, classes, seed) for seed in range(60)]
    for i in range(8):
        found = {each[i] for each in drawn}
        assert found == {j for j in range(8) if classes[j] != classes[i]}


def test_among_images_of_one_class_the_other_is_another():
    made = marked(5, [1] * 5)
    drawn = [donors(made, [1] * 5, seed) for seed in range(60)]
    for i in range(5):
        assert {each[i] for each in drawn} == set(range(5)) - {i}


def test_multi_label_combinations_are_classes():
    classes = [(0, 1), (0, 1), (1, 1)]
    made = marked(3, classes)
    assert all(donors(made, classes, seed)[:2] == [2, 2] for seed in range(9))


def test_what_each_kind_is():
    made = items(size=60)
    zeros, noise, blur = (
        ReplacedBackground(made, kind, labels(made))[0] for kind in ("zeros", "noise", "blur")
    )
    outside = made[0][2][0] != 1
    another = ReplacedBackground(made, "noise", labels(made))[1][0]
    assert (another[:, -1] != noise[0][:, -1]).all()  # the last row is background in both
    assert (zeros[0][:, outside] == 0).all()
    assert torch.equal(noise[0][0, outside], noise[0][2, outside])
    assert noise[0][0, outside].mean() == pytest.approx(0.5, abs=0.03)
    assert noise[0][0, outside].std() == pytest.approx(12**-0.5, abs=0.03)
    # Blurred noise is its mean, nearly; a blurred constant is that constant.
    assert blur[0][:, outside].std() < 0.1 * made[0][0][:, outside].std()
    even = [(torch.where(made[0][2] == 1, 1.0, 0.25).expand(3, -1, -1), 0, made[0][2])]
    constant = ReplacedBackground(even, "blur", [0])[0][0]
    torch.testing.assert_close(constant[:, outside], torch.full_like(constant[:, outside], 0.25))


def test_faults():
    with pytest.raises(ValueError, match="unknown background 'white'"):
        ReplacedBackground(items(), "white", [0] * 8)
    with pytest.raises(ValueError, match="needs two images, got 1"):
        ReplacedBackground(items(1), "other image", [0])
