"""Draw the marks of a planted bias: black and white squares, different for each class."""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Grid = npt.NDArray[np.float64]

SMALLEST = 8
"""Smallest side in pixels at which marks are distinguishable."""
_STRIPES = 3  # number of bright stripes in a mark

# Where a mark is white: x increases to the right and y downwards, both from -1 to 1.
SHAPES: dict[str, Callable[[Grid, Grid], Any]] = {
    "disc": lambda x, y: x**2 + y**2 < 0.6,
    "frame": lambda x, y: abs(np.maximum(abs(x), abs(y)) - 0.6) < 0.2,
    "triangle": lambda x, y: 2 * abs(x) < y + 0.8,
    "plus": lambda x, y: (abs(x) < 0.25) | (abs(y) < 0.25),
    "cross": lambda x, y: abs(abs(x) - abs(y)) < 0.3,
    "bar": lambda x, y: abs(y) < 0.3,
    "pillar": lambda x, y: abs(x) < 0.3,
    "slash": lambda x, y: abs(x + y) < 0.4,
    "backslash": lambda x, y: abs(x - y) < 0.4,
    "diamond": lambda x, y: abs(x) + abs(y) < 0.8,
    "hourglass": lambda x, y: abs(x) < abs(y),
    "arrow": lambda x, y: 2 * abs(y) < x + 0.8,
}


def _coordinates(side: int) -> tuple[Grid, Grid]:
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis, axis)
    return x, y


def _check_number_of_classes(what: str, number: int, num_classes: int) -> None:
    if num_classes > number:
        raise ValueError(
            f"there are {number} {what}, but {num_classes} classes; use kind 'texture', or "
            "'position' with small marks"
        )


def _shape(side: int, which: int, num_classes: int) -> Grid:
    _check_number_of_classes("shapes", len(SHAPES), num_classes)
    inside: Grid = list(SHAPES.values())[which](*_coordinates(side)).astype(np.float64)
    return inside


def _texture(side: int, which: int, num_classes: int) -> Grid:
    x, y = _coordinates(side)
    angle = math.pi * which / num_classes
    across = x * math.cos(angle) + y * math.sin(angle)
    waves: Grid = 0.5 + 0.5 * np.cos(math.pi * _STRIPES * across)
    return waves


def _text(side: int, which: int, num_classes: int) -> Grid:
    letters = string.ascii_uppercase
    _check_number_of_classes("letters", len(letters), num_classes)
    large = 128  # and then reduced: bold letters drawn at small sizes are hard to distinguish
    picture = Image.new("L", (large, large))
    ImageDraw.Draw(picture).text(
        (large / 2, large / 2),
        letters[which],
        fill=255,
        font=ImageFont.load_default(large),
        anchor="mm",
        stroke_width=large // 20,
    )
    small = picture.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float64) / 255


def _square(side: int, which: int, num_classes: int) -> Grid:
    """Draw a white square in a black border, the same for all classes."""
    x, y = _coordinates(side)
    return (np.maximum(abs(x), abs(y)) < 0.7).astype(np.float64)


# Functions of side in pixels, index of the mark and number of classes: [side, side] in [0, 1].
MARK_KINDS: dict[str, Callable[[int, int, int], Grid]] = {
    "shape": _shape,
    "position": _square,
    "texture": _texture,
    "text": _text,
}
