"""Compute scores with intervals by resampling groups of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from faster_isnet.common.checks import check_range

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Hold a value with its confidence interval.

    Attributes
    ----------
    value
        ``None`` where the value is not defined, such as the recall of a class without images.
    low, high
        Ends of the interval; ``None`` where there is none.
    reason
        Why the value or the interval is missing.
    p
        Of a difference that has been tested: the two-sided p-value of "the difference is 0".
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    p: float | None = None


def resample(
    images: int, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Floats:
    """Draw groups of images with replacement, each time as many groups as there are.

    Images of one patient are alike: resampling images instead of patients gives intervals that are
    too narrow (Field and Welsh, Journal of the Royal Statistical Society B 69, 2007).

    Parameters
    ----------
    images
        Number of images.
    groups
        The group of each image; by default each image is a group of its own.
    resamples
        Number of resamples, ≥ 1.
    seed
        Of the random numbers.

    Returns
    -------
    array
        ``[resamples, images]``: how often each image was drawn.

    Raises
    ------
    ValueError
        If ``resamples`` is less than 1.

    Examples
    --------
    >>> resample(4, ["a", "a", "b", "b"], resamples=2)[:, ::2].sum(1)
    array([2., 2.])
    """
    check_range("resamples", resamples, 1)
    each = range(images) if groups is None else groups
    names, group_of = np.unique(np.asarray(each), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn[:, group_of].astype(np.float64)


def percentiles(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float] | None:
    """Return the percentile interval of resampled values.

    Parameters
    ----------
    values
        ``[resamples]``; NaN where a resample has no such value (it lacks a class).
    level
        In (0, 1).

    Returns
    -------
    tuple or None
        The (1 − level)/2 quantiles from below and above; ``None`` if more than one resample in
        twenty has no value.

    Raises
    ------
    ValueError
        If ``level`` is out of range.
    """
    check_range("level", level, 0, 1, open_low=True)
    found = np.asarray(values, dtype=np.float64)
    if np.isnan(found).mean() > 0.05:
        return None
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def original_and_resamples(
    images: int, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Floats:
    """Return the weights of the images in the original sample and in each resample.

    ``[1 + resamples, images]``; the first row is of ones, the others are those of :func:`resample`.
    """
    return np.concatenate([np.ones((1, images)), resample(images, groups, resamples, seed)])


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide, with NaN for 0 / 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def score(values: Floats, level: float, missing: str, interval: bool = True) -> Score:
    """Return the first of the values, with the percentile interval of the others.

    Parameters
    ----------
    values
        ``[1 + resamples]``, in the order of :func:`original_and_resamples`; NaN where undefined.
    level
        Of the interval, in (0, 1).
    missing
        The reason to give if the first value is NaN.
    interval
        Whether to compute an interval.
    """
    if np.isnan(values[0]):
        return Score(None, reason=missing)
    value = float(values[0])
    if not interval:
        return Score(value)
    ends = percentiles(values[1:], level)
    if ends is None:
        return Score(value, reason="too few images for an interval")
    return Score(value, *ends)


def with_exact_ends(found: Score, cases: Sequence[int], level: float) -> Score:
    """Widen the interval of a share that is 0 or 1 in all resamples, which then say nothing.

    Parameters
    ----------
    found
        With the interval of the resamples; any that has two ends is returned as it is.
    cases
        How many independent cases (groups) the share is of; several numbers for a mean of shares,
        of which the ends are averaged. Those that are 0 are left out.
    level
        Of the interval, in (0, 1).

    Returns
    -------
    Score
        With the interval of Clopper and Pearson, Biometrika 26, 1934.

    Examples
    --------
    >>> found = with_exact_ends(Score(1.0, 1.0, 1.0), [12], 0.95)  # 12 of 12
    >>> round(found.low, 3), found.high
    (0.735, 1.0)
    """
    counted = [number for number in cases if number > 0]
    if found.value not in (0.0, 1.0) or found.low != found.high or not counted:
        return found
    ends = [
        binomtest(int(found.value) * number, number).proportion_ci(level, method="exact")
        for number in counted
    ]
    low, high = (float(each) for each in np.mean(ends, axis=0))
    return replace(found, low=low, high=high)


def mean_score(
    values: npt.ArrayLike,
    weights: Floats,
    level: float,
    interval: bool = True,
    is_share: bool = False,
) -> Score:
    """Return the mean of one value per image, with its interval.

    Parameters
    ----------
    values
        ``[N]``; NaN for images that have none, which are left out.
    weights
        ``[1 + resamples, N]`` of :func:`original_and_resamples`; 0 for images to leave out.
    level
        Of the interval, in (0, 1).
    interval
        Whether to compute an interval.
    is_share
        Whether the mean is the share of images of which something is true, which has an exact
        interval where that is all or none, see :func:`with_exact_ends`.

    Examples
    --------
    >>> mean_score([0.0, 1.0], np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]), 0.9).value
    0.5
    """
    each = np.asarray(values, dtype=np.float64)
    if not (exists := ~np.isnan(each)).all():
        each, weights = each[exists], weights[:, exists]
    means = ratio(weights @ each, weights.sum(1))
    found = score(means, level, "there are no such images", interval)
    if not is_share or found.low != found.high:
        return found
    # Images of one group are drawn together.
    groups = {column.tobytes() for column in weights[1:, weights[0] > 0].T}
    return with_exact_ends(found, [len(groups)], level)
