"""Backgrounds are swapped, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from faster_isnet import NO_MASK
from faster_isnet.methods.swap.backgrounds import swap_backgrounds


def batch(count: int, *size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    masks = (torch.rand(count, 1, *size, generator=rng) < 0.5).float()
    masks.flatten(1)[:, 0] = 1  # no mask is without foreground
    return torch.rand(count, 3, *size, generator=rng), masks


@given(st.integers(2, 6), st.sampled_from([(7,), (9, 12), (4, 5, 6)]), st.integers(0, 99))
def test_foregrounds_stay_and_values_stay_in_range(
    count: int, size: tuple[int, ...], seed: int
) -> None:
    images, masks = batch(count, *size, seed=seed)
    swapped = swap_backgrounds(images, masks, 1.0)
    foreground = masks.expand_as(images) == 1
    assert torch.equal(swapped[foreground], images[foreground])
    assert swapped.min() >= images.min() - 1e-6
    assert swapped.max() <= images.max() + 1e-6


def test_every_background_is_that_of_one_other_image() -> None:
    masks = torch.zeros(8, 1, 4, 4)
    masks[..., 0, 0] = 1
    images = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 4, 4)
    lent = swap_backgrounds(images, masks, 1.0)[:, 0, 1:, 1:]
    lenders = lent[:, 0, 0]
    assert (lent == lenders[:, None, None]).all()
    assert sorted(lenders.tolist()) == list(range(8))
    assert (lenders != torch.arange(8)).all()


def test_a_foreground_is_not_lent() -> None:
    """The other image's object is filled by what surrounds it."""
    images, masks = torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    masks[0, :, 2:6, 2:6] = masks[1, :, 9:13, 9:13] = 1
    images[masks == 1] = 1.0
    swapped = swap_backgrounds(images, masks, 1.0)
    assert torch.equal(swapped, images)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_swapped_images(share: float) -> None:
    images, masks = batch(2000, 3)
    changed = (swap_backgrounds(images, masks, share) != images).flatten(1).any(1)
    possible = (masks == 0).flatten(1).any(1)
    assert changed[possible].float().mean() == pytest.approx(share, abs=0.04)


def test_an_image_that_is_all_foreground_lends_nothing() -> None:
    images, masks = batch(8, 4, 4)
    masks[0], masks[1:, ..., 0] = 1, 1
    images[0] = 7.0
    assert (swap_backgrounds(images, masks, 1.0)[1:] < 7.0).all()


def test_all_images_with_a_mask_are_swapped_whoever_has_none() -> None:
    images, masks = batch(8, 6, 6)
    masks[..., 0, 0], masks[..., 0, 1], masks[3:7] = 1, 0, NO_MASK
    changed = (swap_backgrounds(images, masks, 1.0) != images).flatten(1).any(1)
    assert changed.tolist() == [True] * 3 + [False] * 4 + [True]


def test_masks_that_do_not_fit_are_refused() -> None:
    images, masks = batch(2, 4, 6)
    with pytest.raises(ValueError, match="masks must have the images' size"):
        swap_backgrounds(images, masks.mT, 1.0)
    with pytest.raises(ValueError, match="masks must hold 0 and 1 only"):
        swap_backgrounds(images, 0.5 * masks, 1.0)


def test_images_without_a_mask_stay_and_lend_nothing() -> None:
    images, masks = batch(40, 6, 6)
    masks[::2] = NO_MASK
    images[::2] = 7.0
    swapped = swap_backgrounds(images, masks, 1.0)
    assert torch.equal(swapped[::2], images[::2])
    assert (swapped[1::2] < 7.0).all()


def test_without_masks_or_another_image_nothing_changes() -> None:
    images, masks = batch(3, 4, 4)
    assert torch.equal(swap_backgrounds(images, None, 1.0), images)
    assert torch.equal(swap_backgrounds(images[:1], masks[:1], 1.0), images[:1])
    assert torch.equal(swap_backgrounds(images, masks.squeeze(1) * 0 + NO_MASK, 1.0), images)


def test_it_depends_on_the_seed_alone() -> None:
    images, masks = batch(6, 5, 5)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(swap_backgrounds(images, masks, 0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
