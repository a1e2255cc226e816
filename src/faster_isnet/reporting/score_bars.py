"""Draw scores with their intervals as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from faster_isnet.evaluation.intervals import Score
from faster_isnet.plotting.charts import bars_figure


def score_bars(
    scores: Mapping[str, Sequence[Score]],
    groups: Sequence[str],
    label: str,
    as_percent: bool = True,
) -> Figure:
    """Draw the scores of one or more classifiers, see :func:`bars_figure`.

    Parameters
    ----------
    scores
        By classifier, one for each group; those without a value have no bar.
    groups, label, as_percent
        As of :func:`~faster_isnet.plotting.charts.bars_figure`.
    """
    # None becomes NaN.
    values = {
        name: np.array([each.value for each in found], dtype=np.float64)
        for name, found in scores.items()
    }
    intervals = {
        name: np.array([(each.low, each.high) for each in found], dtype=np.float64)
        for name, found in scores.items()
    }
    return bars_figure(values, groups, label, intervals, as_percent)
