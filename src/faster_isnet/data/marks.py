"""The marks that are planted: black and white squares that tell classes apart."""

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
"""Side in pixels below which marks cannot be told apart."""
_STRIPES = 3  # bright ones across a mark

# Where a mark is white: x runs right and y down, both from -1 to 1.
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


def _check_enough(what: str, number: int, num_classes: int) -> None:
    if num_classes > number:
        raise ValueError(
            f"there are {number} {what}, but {num_classes} classes; use kind 'texture', or "
            "'position' with small marks"
        )


def _shape(side: int, which: int, num_classes: int) -> Grid:
    _check_enough("shapes", len(SHAPES), num_classes)
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
    _check_enough("letters", len(letters), num_classes)
    large = 128  # drawn so, since small bold letters are no longer told apart
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
    """Return a white square in a black rim, whatever the class."""
    x, y = _coordinates(side)
    return (np.maximum(abs(x), abs(y)) < 0.7).astype(np.float64)


# From the side in pixels, which mark, and the number of classes, to a mark [side, side] in [0, 1].
KINDS: dict[str, Callable[[int, int, int], Grid]] = {
    "shape": _shape,
    "position": _square,
    "texture": _texture,
    "text": _text,
}
