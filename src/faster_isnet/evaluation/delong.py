"""Compute intervals and tests of areas under ROC curves by DeLong's method, without resampling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from faster_isnet.common.checks import check_range

Floats = npt.NDArray[np.float64]


class AUCs(NamedTuple):
    """Hold areas under the ROC curves of several scores of the same images, with covariances."""

    areas: Floats
    """``[K]``, each in [0, 1]."""
    covariance: Floats
    """``[K, K]``."""


class Difference(NamedTuple):
    """Hold the difference of two areas on the same images, with its interval and p-value."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided."""


def aucs(positive: npt.ArrayLike, scores: npt.ArrayLike) -> AUCs:
    """Return areas under ROC curves with DeLong's covariance.

    Parameters
    ----------
    positive
        ``[N]``, whether each image has the class.
    scores
        ``[K, N]``: K scores of each image, higher for the class. Ties count one half.

    Raises
    ------
    ValueError
        If shapes do not fit, a score is not finite, or there are fewer than two images with the
        class or without it.

    Notes
    -----
    DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988, by the ranks of Sun and Xu, IEEE Signal
    Processing Letters 21, 2014: in N log N steps.

    Examples
    --------
    >>> aucs([1, 1, 0, 0], [[0.9, 0.4, 0.5, 0.1]]).areas
    array([0.75])
    """
    has, values = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=np.float64)
    if has.ndim != 1 or values.ndim != 2 or values.shape[1] != len(has):
        raise ValueError(
            f"positive must be [N] and scores [K, N], got {list(has.shape)} and "
            f"{list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise ValueError("scores hold NaN or infinite values; look at the model's output")
    m, n = int(has.sum()), int((~has).sum())
    if min(m, n) < 2:
        raise ValueError(
            f"an area's variance needs two images with the class and two without, got {m} and {n}"
        )
    ranks = rankdata(values, axis=1)
    above_negatives = (ranks[:, has] - rankdata(values[:, has], axis=1)) / n
    below_positives = 1 - (ranks[:, ~has] - rankdata(values[:, ~has], axis=1)) / m
    covariance = np.cov(above_negatives) / m + np.cov(below_positives) / n
    return AUCs(above_negatives.mean(1), np.atleast_2d(covariance))


def auc_interval(positive: npt.ArrayLike, scores: npt.ArrayLike, level: float = 0.95) -> Floats:
    """Return an area under the ROC curve, and the ends of its interval.

    Parameters
    ----------
    positive, scores
        Both ``[N]``, see :func:`aucs`.
    level
        In (0, 1).

    Returns
    -------
    array
        ``[3]``: the area and the lower and upper end. The interval is DeLong's on the scale of
        the logit, where it stays in [0, 1] and covers better for areas near 1 (Qin and Hotilovac,
        Statistical Methods in Medical Research 17, 2008). For an area of 0 or 1 DeLong's variance
        is 0 and uninformative; the interval is then that of the rarer class's images, had they
        been trials of which all came out alike (Clopper and Pearson, 1934).

    Raises
    ------
    ValueError
        As :func:`aucs` does, or if the level is out of range.

    Examples
    --------
    >>> auc_interval([1, 1, 1, 0, 0, 0], [6, 5, 2, 4, 3, 1]).round(2)
    array([0.78, 0.17, 0.98])
    """
    check_range("level", level, 0, 1, open_low=True)
    has = np.asarray(positive, dtype=bool)
    (area,), ((variance,),) = aucs(has, np.stack([np.asarray(scores)]))
    if area in (0, 1):
        bound = ((1 - level) / 2) ** (1 / min(has.sum(), (~has).sum()))
        return np.array([area, bound, 1.0] if area == 1 else [area, 0.0, 1 - bound])
    spread = norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    return np.array([area, *expit(logit(area) + spread * np.array([-1, 1]))])


def auc_difference(
    positive: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, level: float = 0.95
) -> Difference:
    """Compare the areas of two scores of the same images by DeLong's test.

    Parameters
    ----------
    positive, first, second
        All ``[N]``, see :func:`aucs`.
    level
        Of the interval, in (0, 1).

    Returns
    -------
    Difference
        First minus second. If both rank the images alike it is 0 with a p of 1. Where each area
        is 0, 1 or of equal scores alone, DeLong's variance is 0 and uninformative: the interval and
        p of a difference are then NaN.

    Raises
    ------
    ValueError
        As :func:`aucs` does, or if the level is out of range.
    """
    check_range("level", level, 0, 1, open_low=True)
    areas, covariance = aucs(positive, np.stack([np.asarray(first), np.asarray(second)]))
    value = areas[0] - areas[1]
    deviation = np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0))
    if deviation == 0 and value != 0:
        return Difference(float(value), np.nan, np.nan, np.nan)
    half = norm.ppf((1 + level) / 2) * deviation
    p = 1.0 if value == 0 else 2 * norm.sf(abs(value) / deviation)
    return Difference(float(value), float(value - half), float(value + half), float(p))
