"""Backgrounds of earlier batches are kept and drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from faster_isnet import NO_MASK
from faster_isnet.methods.swap.backgrounds import swap_backgrounds
from faster_isnet.methods.swap.pool import BackgroundPool


def numbered(*numbers: int) -> Tensor:
    return torch.tensor(numbers).float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def drawn(pool: BackgroundPool) -> set[int]:
    return set(pool.draw(numbered(*[-1] * 200)).flatten().int().tolist())


def test_the_last_backgrounds_are_kept() -> None:
    pool = BackgroundPool(4)
    lends = torch.tensor([True, False, True])
    assert drawn(pool) == {-1}
    pool.add(numbered(1, 2, 3), lends)
    assert drawn(pool) == {1, 3}
    pool.add(numbered(4, 5, 6), lends)
    assert drawn(pool) == {1, 3, 4, 6}
    pool.add(numbered(7, 8, 9), lends)
    assert drawn(pool) == {4, 6, 7, 9}
    pool.add(numbered(*range(10, 20)), torch.ones(10, dtype=torch.bool))
    assert drawn(pool) == {16, 17, 18, 19}


def test_nothing_is_drawn_of_a_pool_without_a_background_of_this_shape() -> None:
    pool = BackgroundPool(2)
    pool.add(numbered(1, 2), torch.zeros(2, dtype=torch.bool))
    assert drawn(pool) == {-1}
    pool.add(numbered(1, 2), torch.ones(2, dtype=torch.bool))
    larger = torch.rand(3, 1, 4, 4)
    assert torch.equal(pool.draw(larger), larger)
    pool.add(larger, torch.ones(3, dtype=torch.bool))
    assert drawn(pool) == {-1}


def test_a_single_image_is_given_a_background_of_earlier_batches() -> None:
    pool = BackgroundPool(8)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    given = set()
    for number in range(30):
        image = numbered(number)
        swapped = swap_backgrounds(image, mask, 1.0, pool=pool)
        assert swapped[0, 0, 0, 0] == number
        background = int(swapped[0, 0, 1, 1])
        assert max(0, number - 8) <= background < max(number, 1)
        given.add(background)
    assert len(given) > 10


def test_images_without_a_mask_are_not_kept() -> None:
    pool = BackgroundPool(8)
    masks = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]).repeat(3, 1, 1, 1)
    masks[1] = NO_MASK
    swap_backgrounds(numbered(1, 2, 3), masks, 1.0, pool=pool)
    assert drawn(pool) == {1, 3}
