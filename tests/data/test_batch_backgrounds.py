"""Backgrounds that are replaced batch by batch: what stays, and where others come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from faster_isnet import NO_MASK
from faster_isnet.common.batch import Batch
from faster_isnet.data.backgrounds import BACKGROUNDS, ReplacedBackground
from faster_isnet.data.batch_backgrounds import BatchBackgrounds


def grey(labels: list[int] | Tensor, first: float = 0.1, size: tuple[int, ...] = (8, 8)) -> Batch:
    """Images of noise whose background is of one grey each, from ``first`` in steps of 0.01."""
    labels = torch.as_tensor(labels)
    count = len(labels)
    ones = (1,) * len(size)
    masks = torch.zeros(count, 1, *size)
    masks[(..., *(slice(2, 6) for _ in size))] = 1
    levels = (first + 0.01 * torch.arange(count)).reshape(-1, 1, *ones)
    images = torch.where(masks == 1, torch.rand(count, 2, *size), levels)
    return Batch(images, labels, masks)


def lenders(images: Tensor, first: float = 0.1) -> list[int]:
    return [round((float(image[0, 0, 0]) - first) * 100) for image in images]


@pytest.mark.parametrize("size", [(8, 8), (8,), (8, 9, 10)])
def test_the_foreground_stays_and_the_background_goes(size: tuple[int, ...]) -> None:
    batch = grey([0, 1, 1, 0], size=size)
    batch = batch._replace(images=torch.rand_like(batch.images))
    found = dict(BatchBackgrounds().replaced(batch, 0))
    assert tuple(found) == BACKGROUNDS
    inside = (batch.masks == 1).expand_as(batch.images)
    for kind, replaced in found.items():
        assert torch.equal(replaced.images[inside], batch.images[inside])
        assert (replaced.images != batch.images)[~inside].float().mean() > 0.99, kind
        assert replaced.images.min() >= 0
        assert replaced.images.max() <= 1
        assert torch.equal(replaced.labels, batch.labels)
    assert (found["zeros"].images[~inside] == 0).all()
    noise = torch.where(inside, 0, found["noise"].images)
    assert torch.equal(noise[:, 0], noise[:, 1])
    assert not torch.equal(noise[0], noise[1])


def test_the_blur_is_that_of_a_test() -> None:
    batch = grey([0, 1, 1, 0], size=(20, 30))
    batch = batch._replace(images=torch.rand_like(batch.images))
    items = list(zip(*batch[:3], strict=True))
    of_a_test = ReplacedBackground(items, "blur", batch.labels.tolist())
    found = dict(BatchBackgrounds().replaced(batch, 0))["blur"]
    for ours, (theirs, *_) in zip(found.images, of_a_test, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_values_depend_on_the_batch_and_the_seed_alone() -> None:
    batch = grey([0, 1, 1, 0, 1, 1])
    before = torch.get_rng_state()
    one, again, other = (dict(BatchBackgrounds().replaced(batch, seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    for kind in BACKGROUNDS:
        assert torch.equal(one[kind].images, again[kind].images)
    assert not torch.equal(one["noise"].images, other["noise"].images)
    assert not torch.equal(one["other image"].images, other["other image"].images)


def test_another_images_background_has_another_label() -> None:
    labels = [0, 1, 2, 0, 1, 2, 0, 0]
    drawn: list[set[int]] = [set() for _ in labels]
    for seed in range(60):
        found = dict(BatchBackgrounds().replaced(grey(labels), seed))["other image"]
        for lent, whose in zip(drawn, lenders(found.images), strict=True):
            lent.add(whose)
    for label, lent in zip(labels, drawn, strict=True):
        assert lent == {j for j, other in enumerate(labels) if other != label}


def test_multi_label_combinations_are_labels() -> None:
    batch = grey(torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]]))
    found = dict(BatchBackgrounds().replaced(batch, 0))["other image"]
    assert lenders(found.images)[:2] == [2, 2]


def test_batches_of_one_label_borrow_from_others() -> None:
    """The first waits for another label, and gets its background once there is one."""
    backgrounds = BatchBackgrounds()
    first, second, third = grey([0, 0, 0], 0.1), grey([0, 0], 0.2), grey([1, 1, 1], 0.3)
    assert "other image" not in dict(backgrounds.replaced(first, 0))
    assert "other image" not in dict(backgrounds.replaced(second, 1))
    found = dict(backgrounds.replaced(third, 2))["other image"]
    # As many wait as a batch has: two of the second, then the whole of the third.
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    greys = found.images[:, 0, 0, 0]
    assert ((greys[:2] >= 0.3) & (greys[:2] < 0.33)).all()
    assert (greys[2:] < 0.3).all()
    again = dict(backgrounds.replaced(third, 3))["other image"]
    assert again.labels.tolist() == [1, 1, 1]


def test_what_is_kept_of_earlier_batches_is_bounded() -> None:
    backgrounds = BatchBackgrounds()
    for number in range(30):
        list(backgrounds.replaced(grey([0] * 10 + [number] * 10), number))
    kept = backgrounds._kept
    assert kept is not None
    assert len(kept.images) <= 64
    assert (kept.labels == 0).sum() <= 8
    assert kept.labels.max() == 29
    assert backgrounds._waiting is None or len(backgrounds._waiting.images) <= 20


def test_images_without_a_mask_are_left_out_and_lend_nothing() -> None:
    batch = grey([0, 1, 1])
    batch.masks[1] = NO_MASK
    for _, replaced in BatchBackgrounds().replaced(batch, 0):
        assert replaced.labels.tolist() == [0, 1]
        assert len(replaced.images) == 2
    found = dict(BatchBackgrounds().replaced(batch, 0))["other image"]
    assert lenders(found.images) == [2, 0]
    batch.masks[:] = NO_MASK
    assert not dict(BatchBackgrounds().replaced(batch, 0))
    assert not dict(BatchBackgrounds().replaced(batch._replace(masks=None), 0))


def test_a_lone_image_has_the_other_kinds() -> None:
    assert list(dict(BatchBackgrounds().replaced(grey([1]), 0))) == ["blur", "noise", "zeros"]


def test_images_of_another_size_borrow_nothing_from_each_other() -> None:
    backgrounds = BatchBackgrounds()
    list(backgrounds.replaced(grey([0]), 0))
    assert "other image" not in dict(backgrounds.replaced(grey([1], size=(9, 8)), 1))


def test_normalised_images_have_a_black_of_their_own() -> None:
    batch = grey([0, 1])
    scale, shift = (
        torch.tensor([4.0, 2.0])[:, None, None],
        torch.tensor([-2.0, -1.0])[:, None, None],
    )
    batch.images[0, :, 0, 0], batch.images[0, :, 0, 1] = 0, 1
    found = dict(BatchBackgrounds().replaced(batch, 0))
    scaled = batch._replace(images=batch.images * scale + shift)
    for kind, replaced in BatchBackgrounds().replaced(scaled, 0):
        torch.testing.assert_close(replaced.images, found[kind].images * scale + shift)


def test_masks_that_fit_no_image_are_refused() -> None:
    batch = grey([0, 1])
    with pytest.raises(ValueError, match="masks must have the images' size"):
        list(BatchBackgrounds().replaced(batch._replace(masks=batch.masks[..., 1:]), 0))
    with pytest.raises(ValueError, match="masks must hold 0 and 1 only"):
        list(BatchBackgrounds().replaced(batch._replace(masks=batch.masks / 2), 0))
