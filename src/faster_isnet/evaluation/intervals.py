"""Intervals by resampling groups of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from faster_isnet.checks import check_range

Floats = npt.NDArray[np.float64]


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
