"""Holes are filled from their edges, and nothing else changes."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from faster_isnet.methods import Swap
from faster_isnet.methods.swap.inpainting import inpaint


def with_hole() -> tuple[Tensor, Tensor]:
    images = torch.zeros(1, 2, 24, 24, dtype=torch.float64)
    images[..., 12:, :] = 0.7
    images[:, 1] = 1 - images[:, 1]
    holes = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    holes[..., 8:16, 8:16] = True
    return images, holes


def test_an_edge_goes_on_in_the_hole_whatever_lies_there() -> None:
    pytest.importorskip("cv2")
    images, holes = with_hole()
    hidden = torch.where(holes, 5.0, images)
    found = inpaint(hidden, holes)
    outside = ~holes.expand_as(images)
    assert torch.equal(found[outside], images[outside])
    error = (found - images)[~outside].abs()
    assert error.max() < 0.71
    assert error.mean() < 0.15  # of the mean of the surroundings it is 0.35


def test_images_without_a_hole_or_with_nothing_else_stay() -> None:
    pytest.importorskip("cv2")
    images, holes = torch.rand(2, 3, 5, 6), torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    holes[1] = True
    assert torch.equal(inpaint(images, holes), images)


def test_volumes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"OpenCV inpaints images \[B, C, H, W\], got \[1, 1, 2, 2, 2"
    ):
        inpaint(torch.rand(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2, dtype=torch.bool))


def test_what_to_install_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"pip install 'faster-isnet\[inpaint\]'"):
        Swap(fill="inpaint")
