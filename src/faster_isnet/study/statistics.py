"""Summarise values of several seeds or folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy import stats

from faster_isnet.evaluation.intervals import Score

LEVEL = 0.95


def mean_score(
    values: Sequence[float],
    level: float = LEVEL,
    low: float = -math.inf,
    high: float = math.inf,
    test_to_train: float | None = None,
) -> Score:
    """Return the mean of values with its interval by Student's t.

    Parameters
    ----------
    values
        One of each run.
    level
        Of the interval, in (0, 1).
    low, high
        What values are possible; the interval is cut there, which covers the mean as often.
    test_to_train
        If the runs are those of a cross-validation, the number of test images over that of training
        images: since these share most of their training images, their values are not independent,
        and the variance of the mean is (1 / runs + test / train) times theirs (Nadeau and Bengio,
        Machine Learning 52, 2003). ``None`` for independent values.

    Examples
    --------
    >>> score = mean_score([0.8, 0.9, 1.0])
    >>> round(score.value, 3), round(score.low, 3), round(score.high, 3)
    (0.9, 0.652, 1.148)
    >>> mean_score([0.8, 0.9, 1.0], high=1.0).high
    1.0
    """
    if not values:
        return Score(None, reason="no value")
    centre = mean(values)
    if len(values) < 2:
        return Score(centre, reason="one run")
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values)
    half *= math.sqrt(1 / len(values) + (test_to_train or 0.0))
    return Score(centre, max(centre - half, low), min(centre + half, high))
