from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faster_isnet.common.checks import NO_MASK
from faster_isnet.data import BIASES, BiasedDigits, BiasedDigitsData, WorseMasks
from faster_isnet.data.digits import (
    BORDER,
    DIGIT,
    NUM_CLASSES,
    STRIPE_AMPLITUDE,
    STRIPE_PERIOD,
)
from faster_isnet.data.marks import stripes
from made_up_digits import made_up, marked_classes, same

frames = st.integers(44, 90)
seeds = st.integers(0, 2**40)
quick = settings(max_examples=25)


def shown_classes(digits: BiasedDigits) -> list[int]:
    """The class whose mark, or whose stripes, each image has."""
    if digits.clue == "mark":
        return [marked_classes(digits, image)[0] for image, _, _, _ in digits]
    shown = []
    for image, _, mask, _ in digits:
        background = (image[0] - image[0][mask[0] == 0].mean()) * (mask[0] == 0)
        energies = []
        for label in range(NUM_CLASSES):
            waves = [
                torch.from_numpy(
                    stripes(digits.frame, digits.frame, STRIPE_PERIOD, label, NUM_CLASSES, phase)
                )
                for phase in (0, 0.25)
            ]
            energies.append(sum(float((background * wave).sum()) ** 2 for wave in waves))
        shown.append(max(range(NUM_CLASSES), key=energies.__getitem__))
    return shown


class TestStripes:
    @quick
    @given(frame=frames, seed=seeds, augment=st.booleans())
    def test_the_background_alone_has_stripes(self, frame, seed, augment):
        options = {"frame": frame, "seed": seed, "augment": augment, "clue": "stripes"}
        sets = [BiasedDigits(*made_up(), bias=bias, **options) for bias in ("unbiased", "biased")]
        for index in range(NUM_CLASSES):
            samples = []
            for digits in sets:
                torch.manual_seed(seed + index)
                samples.append(digits[index])
            (plain, _, mask, _), (striped, _, same_mask, _) = samples
            assert torch.equal(mask, same_mask)
            inside = (mask == 1).expand_as(plain)
            assert torch.equal(plain[inside], striped[inside])
            change = (striped - plain)[~inside]
            assert (change != 0).float().mean() > 0.99
            assert 0.9 * STRIPE_AMPLITUDE < change.abs().max() <= STRIPE_AMPLITUDE + 1e-6
            assert torch.equal(striped[0], striped[2])

    @pytest.mark.parametrize("frame", [44, 48, 64])
    def test_their_direction_is_that_of_the_class(self, frame):
        digits, labels = made_up(60)
        shown = {
            bias: shown_classes(
                BiasedDigits(digits, labels, bias=bias, frame=frame, clue="stripes")
            )
            for bias in ("biased", "deceiving")
        }
        assert shown["biased"] == labels.tolist()
        wrong = zip(shown["deceiving"], labels.tolist(), strict=True)
        assert not any(one == other for one, other in wrong)

    def test_phases_are_random(self):
        digits = BiasedDigits(torch.zeros(200, DIGIT, DIGIT), torch.zeros(200).long())
        plain = BiasedDigits(digits.digits, digits.labels, bias="unbiased")
        striped = BiasedDigits(digits.digits, digits.labels, clue="stripes")
        first = torch.stack([striped[i][0][0, 0, 0] - plain[i][0][0, 0, 0] for i in range(200)])
        assert len(first.unique()) > 190
        assert abs(first.mean()) < 0.03  # of a standard deviation of 0.15 / sqrt(2 · 200)


class TestCorrelation:
    @pytest.mark.parametrize("clue", ["mark", "stripes"])
    def test_the_share_of_true_marks_is_the_same_images_at_each_access(self, clue):
        digits, labels = made_up(300)
        options = {"clue": clue, "seed": 4}
        shown = {
            (share, augment): shown_classes(
                BiasedDigits(digits, labels, correlation=share, augment=augment, **options)
            )
            for share in (0.0, 0.8, 1.0)
            for augment in (False, True)
        }
        own = labels.tolist()
        agree = {
            share: sum(a == b for a, b in zip(shown[share, False], own, strict=True))
            for share in (0.0, 0.8, 1.0)
        }
        assert agree[1.0] == 300
        assert agree[0.0] == 0
        assert abs(agree[0.8] - 240) < 3.3 * (300 * 0.8 * 0.2) ** 0.5
        for share in (0.0, 0.8, 1.0):
            assert shown[share, False] == shown[share, True]
        for one, low, high in zip(own, shown[0.0, False], shown[0.8, False], strict=True):
            assert high in (one, low)  # the other class is the same at all correlations

    def test_nothing_but_the_mark_depends_on_it(self):
        digits, labels = made_up(40)
        always, never = (BiasedDigits(digits, labels, correlation=share) for share in (1, 0))
        for pair in zip(always, never, strict=True):
            (one, label, mask, shown), (other, same_label, same_mask, other_shown) = pair
            assert (label, mask.tolist()) == (same_label, same_mask.tolist())
            assert shown == label != other_shown
            assert torch.equal(
                one[:, BORDER:-BORDER, BORDER:-BORDER], other[:, BORDER:-BORDER, BORDER:-BORDER]
            )


class TestWorseMasks:
    @pytest.mark.parametrize("augment", [False, True])
    def test_masks_are_worse_and_images_as_they_were(self, augment):
        digits, labels = made_up(100)
        worse = WorseMasks(grow=0.05, shift=0.1, missing=0.4, seed=2)
        exact, given = (
            BiasedDigits(digits, labels, augment=augment, seed=3, worse_masks=masks)
            for masks in (None, worse)
        )
        missing = set()
        for index in range(100):
            samples = []
            for each in (exact, given):
                torch.manual_seed(index)
                samples.append(each[index])
            (image, _, mask, _), (same_image, _, worse_mask, _) = samples
            assert torch.equal(image, same_image)
            if (worse_mask == NO_MASK).all():
                missing.add(index)
            else:
                assert torch.equal(worse_mask, worse.worsen(mask, f"3/{index}"))
                assert not torch.equal(worse_mask, mask)
        assert len(missing) == 40
        assert labels[sorted(missing)].bincount().tolist() == pytest.approx([4] * 10, abs=1)

    def test_what_is_missing_differs_between_training_and_validation(self):
        data = BiasedDigitsData(
            train_size=100, val_size=100, worse_masks=WorseMasks(missing=0.5), augment=False
        )
        parts = [data.train_dataloader().dataset, data.val_dataloader().dataset]
        missing = [[bool((mask == NO_MASK).all()) for _, _, mask, _ in part] for part in parts]
        assert [sum(each) for each in missing] == [50, 50]
        assert missing[0] != missing[1]


def as_before(digits: BiasedDigits, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and a mask as they were made before there were stripes and correlations."""
    digit, label = digits.digits[index], int(digits.labels[index])
    entropy: int | tuple[int, int] = (digits.seed, index)
    if digits.augment:
        digit = digits._random_affine(digit[None])[0].clamp(0, 1)
        entropy = int(torch.randint(2**63 - 1, ()))
    rng = np.random.default_rng(entropy)
    top, left = rng.integers(BORDER, digits.frame - BORDER - DIGIT + 1, size=2).tolist()
    box = np.s_[:, top : top + DIGIT, left : left + DIGIT]
    noise = rng.uniform(0.15, 0.40, size=(6, 6)).astype(np.float32)
    weights = torch.nn.functional.interpolate(torch.eye(6)[None], digits.frame, mode="linear")
    weights = weights[0].numpy()
    image = np.stack(3 * [weights.T @ noise @ weights])
    image[box] = np.maximum(image[box], digit.numpy())
    other = (label + int(rng.integers(1, NUM_CLASSES))) % NUM_CLASSES
    if digits.bias != "unbiased":
        row, column = digits.slots[other if digits.bias == "deceiving" else label]
        image[:, row : row + 6, column : column + 6] = [[[1.0]], [[0.75]], [[0.0]]]
    mask = np.zeros((1, digits.frame, digits.frame), dtype=np.float32)
    mask[box] = 1
    return torch.from_numpy(image), torch.from_numpy(mask)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("bias", BIASES)
def test_by_default_images_are_what_they_always_were(bias, augment):
    """Published figures were measured on them: bit for bit, and as many random numbers drawn."""
    digits = BiasedDigits(*made_up(30), bias=bias, seed=7, augment=augment)
    for index in range(30):
        torch.manual_seed(index)
        image, _, mask, _ = digits[index]
        after = torch.rand(1)
        torch.manual_seed(index)
        assert all(map(torch.equal, as_before(digits, index), (image, mask)))
        assert torch.equal(torch.rand(1), after)


def test_only_training_and_validation_have_imperfect_marks_and_masks():
    options = {"clue": "stripes", "train_size": 100, "val_size": 100, "test_size": 50}
    plain = BiasedDigitsData(**options)
    hard = BiasedDigitsData(
        **options, correlation=0.0, worse_masks=WorseMasks(boxes=True, grow=0.1)
    )
    for bias in BIASES:
        assert all(map(same, plain.test_sets[bias], hard.test_sets[bias]))
    for one, other in (
        (plain.train_dataloader().dataset, hard.train_dataloader().dataset),
        (plain.val_dataloader().dataset, hard.val_dataloader().dataset),
    ):
        assert (one.correlation, other.correlation) == (1, 0)
        assert other.worse_masks == hard.worse_masks
        assert other[3][2].sum() > one[3][2].sum()
        assert one.clue == other.clue == "stripes"
