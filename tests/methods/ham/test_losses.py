"""The losses of hierarchical attention mining, against the published formulas."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from faster_isnet.methods.ham.losses import mask_loss, outside_loss, soft_mask


def half(size: int = 4) -> Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., : size // 2] = 1
    return mask


def test_a_soft_mask_has_what_is_above_two_fifths_of_a_map() -> None:
    maps = torch.linspace(0, 5, 11).reshape(1, 1, 1, 11).expand(1, 1, 2, 11)
    found = soft_mask(maps, (2, 11))[0, 0, 0]
    assert (found[:4] < 0.01).all()
    assert found[4] == 0.5  # at 0.4
    assert (found[5:] > 0.99).all()


def test_a_soft_mask_has_the_images_size_and_knows_no_unit() -> None:
    maps = torch.rand(2, 3, 4, 5)
    found = soft_mask(maps, (16, 20))
    assert found.shape == (2, 3, 16, 20)
    torch.testing.assert_close(soft_mask(7 * maps, (16, 20)), found, atol=1e-3, rtol=0)


def test_a_map_of_nothing_attends_to_nothing_and_has_a_gradient() -> None:
    maps = torch.zeros(1, 1, 3, 3, requires_grad=True)
    found = soft_mask(maps, (6, 6))
    assert found.max() < 1e-6
    found.sum().backward()
    assert maps.grad is not None
    assert bool(maps.grad.isfinite().all())


def test_the_mask_loss_by_hand() -> None:
    masks = torch.cat([half(), half()])
    attended = torch.zeros(2, 2, 4, 4)
    attended[0, 0] = half()[0, 0]  # right: no error
    attended[1, 0, :, 2:] = 1  # wrong: all of 16 places
    attended[1, 1] = 1  # half of it
    weights = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    first = (0 + 16) / (16 + 16)  # the samples of a class together
    second = 8 / (16 + 8)
    loss = mask_loss(attended, masks, weights)
    torch.testing.assert_close(loss, torch.tensor((first + second) / 2))


def test_classes_that_do_not_occur_count_nowhere() -> None:
    attended, masks = torch.rand(3, 4, 6, 6), torch.ones(3, 1, 6, 6)
    weights = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])
    alone = mask_loss(attended[:, [0, 2]], masks, weights[:, [0, 2]])
    torch.testing.assert_close(mask_loss(attended, masks, weights), alone)
    assert mask_loss(attended, masks, torch.zeros(3, 4)) == 0
    assert outside_loss(attended, attended, torch.zeros(3, 4)) == 0


def test_the_share_outside_by_hand() -> None:
    inner = torch.tensor([[[[3.0, 1.0, 0.0]]], [[[2.0, 0.0, 2.0]]]])
    outer = torch.tensor([[[[1.0, 2.0, 9.0]]], [[[2.0, 5.0, 0.0]]]])
    first, second = 1 - (1 + 1) / 4, 1 - 2 / 4
    both = outside_loss(inner, outer, torch.ones(2, 1))
    torch.testing.assert_close(both, torch.tensor((first + second) / 2), atol=1e-5, rtol=0)
    one = outside_loss(inner, outer, torch.tensor([[0.0], [1.0]]))
    torch.testing.assert_close(one, torch.tensor(second), atol=1e-5, rtol=0)


def test_faint_places_count_as_outside() -> None:
    faint = torch.full((1, 1, 2, 2), 0.5)
    assert outside_loss(faint, torch.ones(1, 1, 2, 2), torch.ones(1, 1)) > 0.99


@given(st.integers(0, 99))
def test_losses_are_shares(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    inner, outer = (3 * torch.rand(3, k, 4, 4, generator=rng) for k in (2, 1))
    weights = torch.rand(3, 2, generator=rng)
    attended = torch.rand(3, 2, 4, 4, generator=rng)
    for loss in (outside_loss(inner, outer, weights), mask_loss(attended, half(), weights)):
        assert 0 <= loss <= 1 + 1e-6


def test_their_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    outer = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    masks, weights = half(8).double(), torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double()
    assert torch.autograd.gradcheck(lambda m: outside_loss(m, outer, weights), maps)
    assert torch.autograd.gradcheck(lambda m: mask_loss(soft_mask(m, (8, 8)), masks, weights), maps)
