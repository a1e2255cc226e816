"""Digits of random ink, and what is in images of them."""

from __future__ import annotations

import torch

from faster_isnet.data import BiasedDigits
from faster_isnet.data.digits import DIGIT, MARK, MARK_COLOUR, NUM_CLASSES


def made_up(n: int = NUM_CLASSES) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits of random ink, which is not background, with every class in turn."""
    ink = torch.rand(n, DIGIT, DIGIT, generator=torch.Generator().manual_seed(1))
    return ink, torch.arange(n) % NUM_CLASSES


def slot_pixels(digits: BiasedDigits, label: int) -> torch.Tensor:
    where = torch.zeros(digits.frame, digits.frame, dtype=torch.bool)
    row, column = digits.slots[label]
    where[row : row + MARK, column : column + MARK] = True
    return where


def marked_classes(digits: BiasedDigits, image: torch.Tensor) -> list[int]:
    """Classes in whose slot the mark's colour fills every pixel."""
    colour = torch.from_numpy(MARK_COLOUR).float().flatten(1)
    return [
        label
        for label in range(NUM_CLASSES)
        if torch.equal(image[:, slot_pixels(digits, label)], colour.expand(3, MARK * MARK))
    ]


def same(one: tuple[torch.Tensor, int, torch.Tensor], other: tuple) -> bool:
    return torch.equal(one[0], other[0]) and one[1] == other[1] and torch.equal(one[2], other[2])
