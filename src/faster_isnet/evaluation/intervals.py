"""Scores with intervals, by resampling groups of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from faster_isnet.common.checks import check_range

Floats = npt.NDArray[np.float64]
Score = dict[str, Any]
"""``value``, ``low``, ``high``; where there is none they are ``None``, and ``reason`` says why."""


def resample(
    images: int, groups: Sequence[str] | None = None, samples: int = 1000, seed: int = 0
) -> Floats:
    """Draw groups of images with replacement, as many as there are, again and again.

    Images of one patient are alike: who draws images instead of patients finds intervals that are
    too narrow (Field and Welsh, Journal of the Royal Statistical Society B 69, 2007).

    Parameters
    ----------
    images
        How many images.
    groups
        The group of each; by default each image is on its own.
    samples
        How often to draw, ≥ 1.
    seed
        Of the drawing.

    Returns
    -------
    array
        ``[samples, images]``: how often each image has been drawn.

    Examples
    --------
    >>> resample(4, ["a", "a", "b", "b"], samples=2)[:, ::2].sum(1)
    array([2., 2.])
    """
    check_range("samples", samples, 1)
    each = range(images) if groups is None else groups
    names, group_of = np.unique(np.asarray(each), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    return drawn[:, group_of].astype(np.float64)


def percentiles(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float] | None:
    """Return the interval that holds the middle of resampled values.

    Parameters
    ----------
    values
        ``[samples]``; NaN where a resample has no such value (it lacks a class).
    level
        In (0, 1).

    Returns
    -------
    tuple or None
        The (1 − level)/2 quantiles from below and above; ``None`` if more than one resample in
        twenty has no value.
    """
    check_range("level", level, 0, 1, open_low=True)
    found = np.asarray(values, dtype=np.float64)
    if np.isnan(found).mean() > 0.05:
        return None
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def original_and_resamples(
    images: int, groups: Sequence[str] | None = None, samples: int = 1000, seed: int = 0
) -> Floats:
    """Return how often each image counts, first as they are, then in each resample.

    ``[1 + samples, images]``; the first row is of ones, the others are those of :func:`resample`.
    """
    return np.concatenate([np.ones((1, images)), resample(images, groups, samples, seed)])


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide, with NaN for 0 / 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def score(values: Floats, level: float, lacking: str) -> Score:
    """Return the first of the values, with the interval of the others.

    Parameters
    ----------
    values
        ``[1 + samples]``, as :func:`original_and_resamples` has them; NaN where there is none.
    level
        Of the interval, in (0, 1).
    lacking
        The reason, if the first is NaN.
    """
    if np.isnan(values[0]):
        return no_score(lacking)
    interval = percentiles(values[1:], level)
    if interval is None:
        return {**no_score("too few images for an interval"), "value": float(values[0])}
    return {"value": float(values[0]), "low": interval[0], "high": interval[1]}


def no_score(reason: str) -> Score:
    """Return the score of what has none."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def mean_score(values: npt.ArrayLike, weights: Floats, level: float) -> Score:
    """Return the mean of a value of each image, with its interval.

    Parameters
    ----------
    values
        ``[N]``.
    weights
        ``[1 + samples, N]`` of :func:`original_and_resamples`; 0 for images that do not count.
    level
        Of the interval, in (0, 1).

    Examples
    --------
    >>> mean_score([0.0, 1.0], np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]), 0.9)["value"]
    0.5
    """
    each = np.asarray(values, dtype=np.float64)
    return score(ratio(weights @ each, weights.sum(1)), level, "there are no such images")
