from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from faster_isnet.common.checks import NO_MASK
from faster_isnet.data.dataset import Augmentation, ImageDataset
from faster_isnet.data.masks import Boxes, grow
from faster_isnet.data.samples import Sample
from faster_isnet.data.seeded_sampling import SeededIndex
from faster_isnet.data.worse_masks import WorseMasks

quick = settings(max_examples=25)
STILL = Augmentation(0, 0, 0, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def square(tmp_path_factory) -> Sample:
    """A white square on black, and the square as its mask."""
    folder: Path = tmp_path_factory.mktemp("square")
    pixels = np.zeros((60, 80), np.uint8)
    pixels[15:40, 20:50] = 255
    Image.fromarray(pixels).save(folder / "image.png")
    return Sample(folder / "image.png", 1, folder / "image.png")


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> Sample:
    path = tmp_path_factory.mktemp("coloured") / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return Sample(path, (0, 1, 1))


def get(sample: Sample, *args: object, **options: object) -> tuple[Tensor, Tensor, Tensor]:
    return ImageDataset([sample], *args, **options)[0]


@quick
@given(
    size=st.tuples(st.integers(4, 90), st.integers(4, 90)),
    channels=st.sampled_from([1, 3]),
    strong=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shapes_types_and_ranges(square, coloured, size, channels, strong, seed):
    torch.manual_seed(seed)
    augmentation = Augmentation(180, 0.5, 0.5, 0.5, 0.5, 1, 1) if strong else None
    dataset = ImageDataset([square, coloured], size, channels, 2.0, augmentation)
    for image, label, mask in (dataset[0], dataset[1]):
        assert image.shape == (channels, *size)
        assert mask.shape == (1, *size)
        assert type(image) is type(mask) is Tensor
        assert image.dtype == mask.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1
        assert set(mask.unique().tolist()) in ({0.0, 1.0}, {1.0}, {NO_MASK})
        assert label.dtype == (torch.float32 if label.dim() else torch.int64)
    assert dataset[0][1].item() == 1
    assert dataset[1][1].tolist() == [0, 1, 1]
    assert (dataset[1][2] == NO_MASK).all()


@quick
@given(
    size=st.tuples(st.integers(30, 60), st.integers(30, 60)),
    seed=st.integers(0, 10**6),
    rotation=st.floats(0, 180),
    translation=st.floats(0, 0.3),
    scaling=st.floats(0, 0.4),
)
def test_image_and_mask_move_together(square, size, seed, rotation, translation, scaling):
    torch.manual_seed(seed)
    augmentation = Augmentation(rotation, translation, scaling, 0.5, 0.5, 0, 0)
    image, _, mask = get(square, size, 1, augmentation=augmentation)
    # The image is the mask, but for two pixels at the border: resizing and moving each round.
    if mask.max() == 1:
        disagree = (image > 0.5) != (mask == 1)
        framed = F.pad(mask, (2, 2, 2, 2))  # the border may lie on the frame's edge
        near_border = F.max_pool2d(framed, 5, 1) != -F.max_pool2d(-framed, 5, 1)
        assert not (disagree & ~near_border).any()
    else:
        assert (image > 0.5).sum() <= 5


@quick
@given(seed=st.integers(0, 10**6))
def test_the_mask_changes_nothing_in_the_image(square, seed):
    pictures = []
    for sample in (square, replace(square, mask=None)):
        torch.manual_seed(seed)
        pictures.append(get(sample, (30, 30), augmentation=Augmentation())[0])
    assert torch.equal(*pictures)


class TestWorseMasks:
    """Masks that are made worse: where in the order of changes, and what they leave alone."""

    @quick
    @given(seed=st.integers(0, 10**6), margin=st.sampled_from([0.0, 2.0]))
    def test_only_the_given_mask_changes(self, square, seed, margin):
        worse = WorseMasks(grow=0.1, shift=0.1)
        plain, given_worse = (
            ImageDataset([square], (40, 50), 3, margin, Augmentation(), masks)
            for masks in (None, worse)
        )
        index = SeededIndex(0, seed=seed)
        image, label, mask = plain[index]
        (same_image, same_label, worse_mask), exact = given_worse.item_and_exact_mask(index)
        assert torch.equal(image, same_image)
        assert label == same_label
        assert torch.equal(exact, mask)
        assert not torch.equal(worse_mask, mask)
        assert all(map(torch.equal, given_worse[index], (same_image, same_label, worse_mask)))

    def test_masks_are_changed_before_margin_and_augmentation(self, square):
        """The mask of a flipped image is its worse mask, flipped."""
        worse = WorseMasks(shift=0.2, seed=1)
        size, margin = (40, 40), 3.0
        exact = get(square, size)[2]
        changed = grow(worse.worsen(exact, square.name), margin)
        assert torch.equal(get(square, size, 3, margin, worse_masks=worse)[2], changed)
        flip = replace(STILL, horizontal_flip=1.0)
        flipped = get(square, size, 3, margin, flip, worse)[2]
        assert torch.equal(flipped, changed.flip(-1))

    def test_missing_masks_are_no_masks_but_known_exactly(self, square, coloured):
        samples = [square, replace(square, label=0), coloured]
        dataset = ImageDataset(
            samples[:1] + samples[2:], (30, 30), worse_masks=WorseMasks(missing=1)
        )
        (_, _, mask), exact = dataset.item_and_exact_mask(0)
        assert (mask == NO_MASK).all()
        assert torch.equal(exact, get(square, (30, 30))[2])
        assert all((each == NO_MASK).all() for each in (dataset[1][2], dataset[-1][2]))

    def test_draws_are_by_names_in_the_folder(self, square, tmp_path):
        """Data that were moved have the same masks; other names have others."""
        worse, places = WorseMasks(shift=0.3), []
        for path in (tmp_path / "one" / "a.png", tmp_path / "two" / "a.png", tmp_path / "b.png"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(square.image.read_bytes())
            sample = Sample(path, 1, path)
            places.append(get(sample, (40, 40), worse_masks=worse, folder=path.parent)[2])
        assert torch.equal(places[0], places[1])
        assert not torch.equal(places[0], places[2])

    def test_a_distance_below_a_pixel_is_named(self, square):
        with pytest.raises(ValueError, match=r"worse_masks.grow 0.02 is less than a pixel"):
            get(square, (20, 30), worse_masks=WorseMasks(grow=0.02))


def test_the_generator_decides(square):
    dataset = ImageDataset([square], (30, 30), augmentation=Augmentation())
    torch.manual_seed(0)
    first, second = dataset[0][0], dataset[0][0]
    torch.manual_seed(0)
    assert torch.equal(dataset[0][0], first)
    assert not torch.equal(first, second)


def test_no_strength_changes_nothing(square, coloured):
    for sample in (square, coloured):
        plain, still = get(sample, (30, 40)), get(sample, (30, 40), augmentation=STILL)
        assert all(torch.allclose(one, other) for one, other in zip(plain, still, strict=True))


@pytest.mark.parametrize("name", ["horizontal_flip", "vertical_flip"])
def test_flips(square, name):
    image, _, mask = get(square, (60, 80), augmentation=replace(STILL, **{name: 1.0}))
    plain, _, plain_mask = get(square, (60, 80))
    axis = -1 if name == "horizontal_flip" else -2
    assert torch.allclose(image, plain.flip(axis))
    assert torch.equal(mask, plain_mask.flip(axis))


def test_nothing_is_mirrored_unless_asked_for(square):
    """The square is left of the middle, and no rotation brings it to the right."""
    dataset = ImageDataset([square], (60, 80), augmentation=Augmentation())
    for seed in range(20):
        torch.manual_seed(seed)
        mask = dataset[0][2][0]
        assert mask[:, :40].sum() > mask[:, 40:].sum()


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_colours_leave_the_mask(coloured, name):
    sample = replace(coloured, mask=Boxes(((3, 4, 10, 10),)))
    torch.manual_seed(0)
    image, _, mask = get(sample, (20, 30), augmentation=replace(STILL, **{name: 0.5}))
    plain, _, plain_mask = get(sample, (20, 30))
    assert (image - plain).abs().mean() > 0.01
    assert torch.equal(mask, plain_mask)


def test_channels(square, coloured):
    grey, colour = get(square, (60, 80))[0], get(coloured, (20, 30))[0]
    assert torch.equal(grey[0], grey[2])
    assert torch.equal(grey[0], square.read_image()[0])
    assert torch.equal(colour, coloured.read_image())
    luminance = torch.tensor([0.2989, 0.587, 0.114])  # ITU-R BT.601
    one = get(coloured, (20, 30), channels=1)[0]
    assert torch.allclose(one[0], (colour * luminance[:, None, None]).sum(0), atol=1e-3)


def test_the_margin_is_in_pixels_of_the_given_size(square):
    wide = get(square, (30, 40), mask_margin=3)[2]
    narrow = get(square, (30, 40))[2]
    rows, columns = ((mask[0].any(axis).sum()) for mask, axis in ((wide, 1), (wide, 0)))
    assert (rows, columns) == (narrow[0].any(1).sum() + 6, narrow[0].any(0).sum() + 6)
    shrunk = get(square, (30, 40), mask_margin=-2)[2]
    assert shrunk[0].any(0).sum() == narrow[0].any(0).sum() - 4


def test_a_mask_without_foreground_is_none(square, tmp_path):
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "empty.png")
    empty = replace(square, mask=tmp_path / "empty.png")
    assert (get(empty, (30, 30))[2] == NO_MASK).all()
    lost = replace(square, mask=Boxes(((0, 0, 1, 1),)))
    assert (get(lost, (4, 4))[2] == NO_MASK).all()


class TestFaults:
    def test_a_sample_without_a_label(self, square):
        with pytest.raises(ValueError, match=r"1 samples have no label, for example .*image.png"):
            ImageDataset([square, replace(square, label=None)], (8, 8))

    def test_a_broken_file(self, square, tmp_path):
        (tmp_path / "broken.png").write_text("no image")
        dataset = ImageDataset([replace(square, image=tmp_path / "broken.png")], (8, 8))
        with pytest.raises(ValueError, match=r"cannot read .*broken.png"):
            dataset[0]

    @pytest.mark.parametrize("options", [{"size": (0, 8)}, {"channels": 2}, {"mask_margin": -9}])
    def test_numbers(self, square, options):
        with pytest.raises(ValueError, match=rf"{next(iter(options))} must be"):
            ImageDataset([square], **({"size": (8, 8)} | options))

    @pytest.mark.parametrize(
        "options", [{"rotation": 181}, {"scaling": 1}, {"horizontal_flip": 2}, {"contrast": -1}]
    )
    def test_strengths(self, options):
        with pytest.raises(ValueError, match=rf"augmentation.{next(iter(options))} must be"):
            Augmentation(**options)
