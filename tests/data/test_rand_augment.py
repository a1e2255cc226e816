"""RandAugment is torchvision's, with masks that go along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from faster_isnet.data import rand_augment
from faster_isnet.data.dataset import Augmentation, ImageDataset
from faster_isnet.data.rand_augment import RandAugment
from faster_isnet.data.samples import Sample
from faster_isnet.data.seeded_sampling import SeededSampler

ONLY = {"rotation": 0.0, "translation": 0.0, "scaling": 0.0, "brightness": 0.0, "contrast": 0.0}


def disc(size: int = 48) -> Tensor:
    """A white disc on black, ``[1, H, W]``, that no change moves out of the image."""
    places = torch.arange(size) - 0.5 * size
    return (places[:, None].square() + places.square() < 81).float()[None]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_images_are_those_of_torchvision(channels: int, magnitude: int) -> None:
    ours = RandAugment(2, magnitude)
    theirs = v2.RandAugment(2, magnitude, interpolation=InterpolationMode.BILINEAR)
    for seed in range(40):
        image = tv_tensors.Image(torch.rand(channels, 20, 30))
        torch.manual_seed(seed)
        found = ours(image, tv_tensors.Mask(torch.ones(1, 20, 30)))[0]
        torch.manual_seed(seed)
        # Rounding moves a few pixels over an edge between two levels.
        assert (found - theirs(image)).abs().mean() < 1e-4, seed


def test_torchvisions_own_leaves_no_masks_along() -> None:
    """If this fails, RandAugment of torchvision can replace ours."""
    with pytest.raises(TypeError, match="Mask are not supported"):
        v2.RandAugment()(tv_tensors.Image(disc()), tv_tensors.Mask(disc()))


@pytest.mark.parametrize("moves", [True, False])
def test_the_mask_stays_on_what_it_marks(moves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image is its own mask, so that both agree after all changes that are not of colours."""
    operations = [each for each in rand_augment._OPERATIONS if each.moves is moves]
    monkeypatch.setattr(rand_augment, "_OPERATIONS", operations)
    augment, moved = RandAugment(2, 15), 0
    for seed in range(60):
        torch.manual_seed(seed)
        image, mask = augment(tv_tensors.Image(disc()), tv_tensors.Mask(disc()))
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        moved += not torch.equal(mask, disc())
        if moves:  # but for the edge, which the image has smooth
            assert ((image > 0.5) != (mask == 1)).float().mean() < 0.01, seed
    assert moved > 50 if moves else moved == 0


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder: Path = tmp_path_factory.mktemp("noise")
    rng, found = np.random.default_rng(0), []
    Image.fromarray((disc()[0].numpy() * 255).astype(np.uint8)).save(folder / "mask.png")
    for i in range(6):
        pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        found.append(Sample(folder / f"{i}.png", 0, folder / "mask.png"))
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_data_sets_have_it_whatever_the_number_of_workers(
    samples: list[Sample], channels: int
) -> None:
    augmentation = Augmentation(rand_augment=2, magnitude=12, **ONLY)
    data = ImageDataset(samples, (24, 24), channels, augmentation=augmentation)
    plain = ImageDataset(samples, (24, 24), channels)
    found = []
    for workers in (0, 2):
        torch.manual_seed(1)
        loader = DataLoader(
            data, 6, sampler=SeededSampler(SequentialSampler(data)), num_workers=workers
        )
        images, _, masks = next(iter(loader))
        assert images.shape == (6, channels, 24, 24)
        assert images.amin() >= 0
        assert images.amax() <= 1
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
        found.append((images, masks))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert sum(not torch.equal(image, plain[i][0]) for i, image in enumerate(found[0][0])) >= 4


def test_without_it_the_same_seed_augments_as_before(samples: list[Sample]) -> None:
    names = [type(each).__name__ for each in Augmentation().build().transforms]
    assert names == ["RandomAffine", "RandomHorizontalFlip", "RandomVerticalFlip", "ColorJitter"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rand_augment": -1}, "augmentation.rand_augment must be a number"),
        ({"rand_augment": 1.5}, "rand_augment must be a whole number of changes, got 1.5"),
        ({"rand_augment": 2, "magnitude": 31}, r"augmentation.magnitude must be .* \[0, 30\]"),
        ({"magnitude": 5}, "magnitude=5 is the strength of rand_augment, of which there is none"),
    ],
)
def test_other_values_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)  # type: ignore[arg-type]
