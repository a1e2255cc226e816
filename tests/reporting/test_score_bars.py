"""Bars of scores."""

from __future__ import annotations

from faster_isnet.evaluation.intervals import Score
from faster_isnet.reporting.score_bars import score_bars


def test_each_score_has_its_bar_and_its_interval() -> None:
    scores = {
        "one": [Score(0.5, 0.25, 0.75), Score(0.1)],
        "other": [Score(None), Score(1.0, 0.9, 1.0)],
    }
    (axes,) = score_bars(scores, ["first", "second"], "accuracy").axes
    assert [float(bar.get_width()) for bar in axes.patches] == [0.5, 0.1, 1.0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.25, 0.75], [0.9, 1.0]]
