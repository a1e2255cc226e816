"""Summarise values of several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy import stats

from faster_isnet.evaluation.intervals import Score

LEVEL = 0.95


def mean_score(
    values: Sequence[float], level: float = LEVEL, low: float = -math.inf, high: float = math.inf
) -> Score:
    """Return the mean of independent values with its interval by Student's t.

    Parameters
    ----------
    values
        One of each seed.
    level
        Of the interval, in (0, 1).
    low, high
        What values are possible; the interval is cut there, which covers the mean as often.

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
        return Score(centre, reason="one seed")
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values)
    half /= math.sqrt(len(values))
    return Score(centre, max(centre - half, low), min(centre + half, high))
