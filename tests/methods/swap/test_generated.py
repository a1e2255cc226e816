from __future__ import annotations

import pytest
import torch

from faster_isnet.methods import Batch, Swap, swap_backgrounds
from faster_isnet.methods.swap.generated import generated_backgrounds


@pytest.mark.parametrize("size", [(40,), (24, 40), (8, 9, 10), (1, 3)])
def test_values_stay_within_those_of_each_channel(size: tuple[int, ...]) -> None:
    low, high = torch.tensor([-2.0, 0.0, 5.0]), torch.tensor([-1.0, 0.0, 9.0])
    shape = (1, 3, *[1] * len(size))
    images = low.view(shape) + (high - low).view(shape) * torch.rand(200, 3, *size)
    for _ in range(8):  # of several grids
        backgrounds = generated_backgrounds(images)
        assert backgrounds.shape == images.shape
        for channel in range(3):
            values = backgrounds[:, channel]
            assert values.min() >= low[channel] - 1e-5
            assert values.max() <= high[channel] + 1e-5


def test_there_are_four_kinds() -> None:
    torch.manual_seed(1)
    flat = grey = extreme = noisy = 0
    for _ in range(10):
        for each in generated_backgrounds(torch.rand(40, 3, 16, 16)):
            one_colour = bool(each.std((1, 2)).max() < 1e-6)
            all_alike = bool(torch.allclose(each[0], each[1], atol=0.02))
            flat += one_colour and not all_alike
            extreme += one_colour and all_alike
            grey += all_alike and not one_colour
            noisy += not all_alike and not one_colour
    for count in (flat, extreme, grey, noisy):
        assert count == pytest.approx(100, abs=35)


def masked_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of noise, with their masks."""
    masks = torch.zeros(count, 1, 16, 16)
    masks[..., 4:12, 4:12] = 1
    images = torch.rand(count, 3, 16, 16)
    return images, masks


@pytest.mark.parametrize("generated", [0.0, 0.4, 1.0])
def test_the_share_of_generated_backgrounds(generated: float) -> None:
    """A background that is no image's has pixels that no image has at that place."""
    images, masks = masked_images(300)
    swapped = swap_backgrounds(images, masks, 1.0, plain=0.0, generated=generated)
    known = {tuple(pixel) for pixel in images[:, :, 0, 0].tolist()}
    new = [tuple(pixel) not in known for pixel in swapped[:, :, 0, 0].tolist()]
    assert sum(new) / 300 == pytest.approx(generated, abs=0.1)
    foreground = masks.expand_as(images) == 1
    assert torch.equal(swapped[foreground], images[foreground])


def test_what_has_no_mask_and_what_is_not_chosen_stays() -> None:
    images, masks = masked_images(100)
    masks[::2] = -1
    swapped = swap_backgrounds(images, masks, 0.5, generated=1.0)
    same = (swapped == images).flatten(1).all(1)
    assert same[::2].all()
    assert same[1::2].float().mean() == pytest.approx(0.5, abs=0.25)


def test_the_method_trains_on_generated_backgrounds() -> None:
    images, masks = masked_images(100)
    seen: list[torch.Tensor] = []

    def network(given: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return given.flatten(1)[:, :2]

    method = Swap(generated=1.0)
    method.training_losses(network, Batch(images, torch.zeros(100, dtype=torch.long), masks))  # type: ignore[arg-type]
    known = {tuple(pixel) for pixel in images[:, :, 0, 0].tolist()}
    assert not any(tuple(pixel) in known for pixel in seen[0][:, :, 0, 0].tolist())


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match="generated"):
        swap_backgrounds(*masked_images(2), 1.0, generated=1.5)
