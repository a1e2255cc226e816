"""Masks that are rectangles, or that lie beside the edges of images, are named; others are not."""

import numpy as np
import pytest
import torch
from torch import Tensor

from faster_isnet.data.mask_outlines import MaskOutline, outline_doubts
from faster_isnet.data.masks import with_margin

SIDE = 80


def disc(seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Return an image of a disc on a smooth, noisy background, and the disc's mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    centre, radius = rng.uniform(0.4, 0.6, 2), rng.uniform(0.2, 0.25)
    inside = np.hypot(y - centre[0], x - centre[1]) < radius
    image = 0.4 + 0.2 * np.sin(3 * x + seed) + 0.3 * inside + rng.normal(0, 0.03, (3, side, side))
    return torch.from_numpy(image).float().clamp(0, 1), torch.from_numpy(inside)[None].float()


def outlines(margin: float, count: int = 40, side: int = SIDE) -> list[MaskOutline]:
    pairs = (disc(seed, side) for seed in range(count))
    return [MaskOutline.of(image, with_margin(mask, margin * side)) for image, mask in pairs]


def test_nothing_is_said_of_masks_as_they_should_be() -> None:
    assert outline_doubts(outlines(0)) == []


@pytest.mark.parametrize("side", [60, 150])  # smaller and larger than what is looked at
@pytest.mark.parametrize("margin", [-0.08, -0.05, 0.05, 0.1])
def test_how_far_masks_are_too_large_or_small_is_found(margin: float, side: int) -> None:
    (told,) = outline_doubts(outlines(margin, side=side))
    found = float(told.split("(here ")[1].split(" times")[0])
    assert found == pytest.approx(-margin, abs=0.025)
    assert ("inside" in told) == ("too large" in told) == (margin > 0)


def test_masks_that_lie_beside_edges_in_few_images_are_not_named() -> None:
    assert outline_doubts([*outlines(0, 28), *outlines(0.1, 12)]) == []


def test_rectangles_are_named() -> None:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 10:40, 5:30] = mask[:, 50:70, 50:75] = 1
    boxes = [MaskOutline.of(disc(seed)[0], mask) for seed in range(12)]
    (told,) = outline_doubts([*boxes, *outlines(0, 8)])
    assert told.startswith("12 of 20 masks looked at are rectangles")
    assert outline_doubts([*boxes, *outlines(0, 12)]) == []  # most are not


def test_of_few_masks_nothing_is_said() -> None:
    assert outline_doubts(outlines(0.1, 29)) == []
    assert outline_doubts([]) == []


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_images_without_edges_tell_nothing(level: float) -> None:
    flat = [MaskOutline.of(torch.full((1, 40, 50), level), disc(s)[1]) for s in range(32)]
    assert outline_doubts(flat) == []


def test_masks_of_the_whole_image_or_a_pixel_tell_nothing() -> None:
    image, mask = disc(0)
    pixel = torch.zeros_like(mask)
    pixel[:, 3:9, 4] = pixel[:, 5, 2:7] = 1
    assert outline_doubts([MaskOutline.of(image, pixel)] * 32) == []
    assert "rectangles" in outline_doubts([MaskOutline.of(image, torch.ones_like(mask))] * 12)[0]


def test_the_margin_that_is_named_clears_the_warning() -> None:
    pairs = [(image, with_margin(mask, 8)) for image, mask in map(disc, range(40))]
    told = outline_doubts([MaskOutline.of(image, mask) for image, mask in pairs])
    named = float(told[0].split("(here ")[1].split(" times")[0])
    assert outline_doubts([MaskOutline.of(*pair, named) for pair in pairs], named) == []
    half = outline_doubts([MaskOutline.of(*pair, named / 2) for pair in pairs], named / 2)
    assert float(half[0].split("(here ")[1].split(" times")[0]) == pytest.approx(named, abs=0.03)


def small(seed: int, margin: float) -> MaskOutline:
    """Return the outline of a disc so small that few distances are known within it."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    inside = np.hypot(y - 0.5, x - 0.5) < 0.05
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(0.4 + 0.3 * inside + rng.normal(0, 0.03, (3, SIDE, SIDE))).float()
    mask = torch.from_numpy(inside)[None].float()
    return MaskOutline.of(image, with_margin(mask, margin * SIDE))


def test_one_image_does_not_decide_for_others() -> None:
    other = outlines(0.1, 1)
    assert outline_doubts([*(small(seed, 0) for seed in range(39)), *other]) == []
    (told,) = outline_doubts([*(small(seed, 0.05) for seed in range(39)), *other])
    assert "(here -0.05" in told or "(here -0.04" in told


def test_specks_are_no_rectangles() -> None:
    mask = torch.zeros(1, 200, 200)
    for at in range(10, 190, 20):
        mask[:, at - 1 : at + 2, at] = mask[:, at, at - 1 : at + 2] = 1
    found = MaskOutline.of(torch.rand(3, 200, 200), mask)
    assert not found.is_rectangles
    point = torch.zeros(1, 1000, 1000)
    point[:, 501, 503] = 1  # lost when it is reduced
    found = MaskOutline.of(torch.rand(3, 1000, 1000), point)
    assert not found.is_rectangles
    assert np.isnan(found.profile).all()


def test_a_margin_that_leaves_nothing_is_named() -> None:
    pairs = list(map(disc, range(12)))
    (told,) = outline_doubts([MaskOutline.of(*pair, -0.3) for pair in pairs], -0.3)
    assert told.startswith("data.mask_margin, -0.30 times data.size, leaves less than 10%")
    assert "12 of 12 masks" in told
    assert outline_doubts([MaskOutline.of(*pair, -0.05) for pair in pairs], -0.05) == []


def test_noise_has_no_edges() -> None:
    rng = torch.Generator().manual_seed(0)
    for draw in range(20):
        noise = [torch.rand(1, SIDE, SIDE, generator=rng) for _ in range(30)]
        found = [MaskOutline.of(image, disc(40 * draw + i)[1]) for i, image in enumerate(noise)]
        assert outline_doubts(found) == []
