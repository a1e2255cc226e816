"""Draw the marks of a planted bias, different for each class: squares, and stripes all over."""

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
_SHORTEST_PERIOD = 4  # pixels: twice the shortest that a grid of pixels can represent
STRIPES = "stripes"
"""The kind of bias that is all over the background, drawn by :func:`stripes`."""

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


def _across(x: Grid, y: Grid, which: int, num_classes: int) -> Grid:
    """Project coordinates on the direction of a class; directions are spaced evenly over 180°."""
    angle = math.pi * which / num_classes
    return x * math.cos(angle) + y * math.sin(angle)


def _texture(side: int, which: int, num_classes: int) -> Grid:
    across = _across(*_coordinates(side), which, num_classes)
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


def stripes(
    height: int, width: int, size: float, which: int, num_classes: int, phase: float
) -> Grid:
    """Draw a sinusoid whose direction is that of a class.

    Parameters
    ----------
    height, width
        Of the image, in pixels.
    size
        Period, as a share of the shorter side, in (0, 0.5].
    which
        Index of the direction, from 0; its angle is 180° · ``which`` / ``num_classes``.
    num_classes
        Number of directions, at most :func:`most_directions`.
    phase
        Phase at the top left pixel, in periods, in [0, 1).

    Returns
    -------
    numpy.ndarray
        ``[height, width]`` in [-1, 1].

    Raises
    ------
    ValueError
        If the period has less than 4 pixels, or there are too many directions.

    Examples
    --------
    >>> stripes(8, 8, 0.5, which=0, num_classes=2, phase=0.25)[0].round(2)
    array([ 1.,  0., -1., -0.,  1.,  0., -1., -0.])
    """
    shorter = min(height, width)
    period = size * shorter
    if period < _SHORTEST_PERIOD:
        share = math.ceil(100 * _SHORTEST_PERIOD / shorter) / 100
        cure = f"give a size of {share:g} or more" if share <= 0.5 else "use larger images"
        raise ValueError(
            f"size {size:g} makes stripes of {period:g} pixels in an image of {height} x {width}; "
            f"they need {_SHORTEST_PERIOD}: {cure}"
        )
    if num_classes > most_directions(size):
        raise ValueError(
            f"stripes of size {size:g} have {most_directions(size)} directions that can be told "
            f"apart, but there are {num_classes} classes; give a size of "
            f"{0.99 * 2 * math.sin(math.pi / 2 / num_classes):.3g} or less, or use kind "
            "'texture'"
        )
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    waves: Grid = np.sin(2 * math.pi * (_across(x, y, which, num_classes) / period + phase))
    return waves


def most_directions(size: float) -> int:
    """Compute how many directions of stripes can be told apart.

    The frequencies of neighbouring directions must differ by one cycle or more over the shorter
    side of the image, at which sinusoids are orthogonal: 2 / size · sin(π / 2K) ≥ 1 for K
    directions.

    Parameters
    ----------
    size
        Period, as a share of the shorter side, in (0, 0.5].

    Examples
    --------
    >>> most_directions(0.5), most_directions(0.15)
    (6, 20)
    """
    return math.floor(math.pi / 2 / math.asin(size / 2) + 1e-9)


def correlated_class(
    label: int, num_classes: int, correlation: float, entropy: tuple[int, ...]
) -> int:
    """Draw the class whose mark an image has: with a probability its own, else another one.

    Parameters
    ----------
    label
        The image's own class.
    num_classes
        Number of classes, ≥ 2.
    correlation
        Probability of the image's own, in [0, 1].
    entropy
        Seeds of this image. An image with the mark of another class has the same one at all lower
        correlations.

    Examples
    --------
    >>> [correlated_class(3, 10, correlation, (0, 7)) for correlation in (1, 0.5, 0)]
    [3, 3, 6]
    """
    if correlation == 1:
        return label  # as below, without the time that a generator takes
    rng = np.random.default_rng(entropy)
    if rng.random() < correlation:
        return label
    return (label + int(rng.integers(1, num_classes))) % num_classes
