"""Backgrounds are swapped, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from faster_isnet import NO_MASK
from faster_isnet.methods.swap.backgrounds import FILLS, swap_backgrounds
from faster_isnet.methods.swap.pool import BackgroundPool


def batch(count: int, *size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    masks = (torch.rand(count, 1, *size, generator=rng) < 0.5).float()
    masks.flatten(1)[:, 0] = 1  # no mask is without foreground
    return torch.rand(count, 3, *size, generator=rng), masks


def corner_masks(count: int, size: int) -> Tensor:
    """Return masks whose foreground is one pixel."""
    masks = torch.zeros(count, 1, size, size)
    masks[..., 0, 0] = 1
    return masks


def numbered(count: int, size: int) -> Tensor:
    """Return images of one value each: their number."""
    return torch.arange(float(count)).reshape(count, 1, 1, 1).expand(count, 1, size, size)


@given(
    st.integers(2, 6),
    st.sampled_from([(7,), (9, 12), (4, 5, 6)]),
    st.integers(0, 99),
    st.sampled_from(FILLS),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_foregrounds_stay_and_values_stay_in_range(
    count: int, size: tuple[int, ...], seed: int, fill: str, plain: float
) -> None:
    if fill == "inpaint":
        pytest.importorskip("cv2")
        size = (9, 12)
    images, masks = batch(count, *size, seed=seed)
    images = 4 * images - 2
    swapped = swap_backgrounds(images, masks, 1.0, plain, fill, BackgroundPool(5))
    foreground = masks.expand_as(images) == 1
    assert torch.equal(swapped[foreground], images[foreground])
    assert swapped.min() >= images.min() - 1e-6
    assert swapped.max() <= images.max() + 1e-6


def test_every_background_is_given_to_one_image() -> None:
    lent = swap_backgrounds(numbered(8, 4), corner_masks(8, 4), 1.0)[:, 0, 1:, 1:]
    lenders = lent[:, 0, 0]
    assert (lent == lenders[:, None, None]).all()
    assert sorted(lenders.tolist()) == list(range(8))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_an_image_is_given_its_own_background_as_often_as_any_other(count: int) -> None:
    """Else the batch's backgrounds tell which class an image does not have."""
    images, masks = numbered(count, 2), corner_masks(count, 2)
    lenders = [swap_backgrounds(images, masks, 1.0)[:, 0, 1, 1] for _ in range(1000)]
    numbers = torch.stack(lenders).long()
    for image in range(count):
        shares = numbers[:, image].bincount(minlength=count) / 1000
        assert shares.tolist() == pytest.approx([1 / count] * count, abs=0.06)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("pool", [None, BackgroundPool(4)])
def test_a_foreground_is_not_lent(fill: str, pool: BackgroundPool | None) -> None:
    """The other image's object is filled by what surrounds it, or by another background."""
    if fill == "inpaint":
        pytest.importorskip("cv2")
    images, masks = torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    masks[0, :, 2:6, 2:6] = masks[1, :, 9:13, 9:13] = 1
    images[masks == 1] = 1.0
    for _ in range(4):
        assert torch.equal(swap_backgrounds(images, masks, 1.0, fill=fill, pool=pool), images)


def test_a_hole_is_filled_with_the_same_place_of_another_background() -> None:
    """Rows of different values: in a hole are those of one image, in their places."""
    images = numbered(5, 16) * 100 + torch.arange(16.0)[:, None]
    masks = torch.zeros(5, 1, 16, 16)
    for image in range(5):
        masks[image, :, 3 * image : 3 * image + 2, 4:8] = 1
    swapped = swap_backgrounds(images, masks, 1.0, fill="image")
    different = 0
    for image in range(5):
        (lender,) = (swapped[image, 0, :, 15] // 100).unique().int().tolist()
        if lender == image:
            continue
        hole = swapped[image, 0, 3 * lender : 3 * lender + 2, 4:8]
        filler = int(hole[0, 0] // 100)
        if filler != lender:  # which has nothing there itself
            assert torch.equal(hole, images[filler, 0, 3 * lender : 3 * lender + 2, 4:8])
            different += 1
    assert different


def test_a_quarter_of_the_backgrounds_are_plain_by_default() -> None:
    images, masks = torch.rand(600, 1, 24, 24), corner_masks(600, 24)
    noise = swap_backgrounds(images, masks, 1.0)[..., 1:, 1:].diff(dim=-1).std((1, 2, 3))
    assert (noise < 0.15).float().mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("plain", [0.0, 0.4, 1.0])
def test_the_share_of_plain_backgrounds(plain: float) -> None:
    """A smooth background has no noise."""
    images, masks = torch.rand(600, 1, 24, 24), corner_masks(600, 24)
    backgrounds = swap_backgrounds(images, masks, 1.0, plain)[..., 1:, 1:]
    noise = backgrounds.diff(dim=-1).std((1, 2, 3))
    assert (noise < 0.15).float().mean() == pytest.approx(plain, abs=0.06)
    assert (noise[noise > 0.15] > 0.3).all()


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
    changed = [
        (swap_backgrounds(images, masks, 1.0) != images).flatten(1).any(1) for _ in range(20)
    ]
    assert torch.stack(changed).any(0).tolist() == [True] * 3 + [False] * 4 + [True]


def test_what_does_not_fit_is_refused() -> None:
    images, masks = batch(2, 4, 6)
    with pytest.raises(ValueError, match="masks must have the images' size"):
        swap_backgrounds(images, masks.mT, 1.0)
    with pytest.raises(ValueError, match="masks must hold 0 and 1 only"):
        swap_backgrounds(images, 0.5 * masks, 1.0)
    with pytest.raises(ValueError, match="unknown fill 'blurr'; did you mean 'blur'"):
        swap_backgrounds(images, masks, 1.0, fill="blurr")
    with pytest.raises(ValueError, match=r"plain must be a number in \[0, 1\], got 2"):
        swap_backgrounds(images, masks, 1.0, plain=2)


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
