"""Figures show what the metrics hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from faster_isnet.evaluation.evaluation_files import TestedRun
from faster_isnet.plotting.heatmaps import png
from faster_isnet.reporting.figures import (
    attention_figure,
    confusion_figure,
    roc_figures,
    sensitivity_figure,
)


def test_curves_are_those_of_scikit_learn(tested: list[TestedRun]):
    axes = roc_figures(tested, "test")["grey"].axes[0]
    for run, line in zip(tested, axes.lines, strict=False):
        predictions = run.predictions("test")
        expected = roc_curve(
            predictions.labels == 1, predictions.probabilities[:, 1], drop_intermediate=False
        )
        np.testing.assert_allclose(line.get_xdata(), expected[0])
        np.testing.assert_allclose(line.get_ydata(), expected[1])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        f"{run.name}, AUC 100.0 %" for run in tested
    ]


def test_a_class_without_images_has_no_curve(tested: list[TestedRun], tmp_path):
    run = tested[0]
    predictions = run.predictions("test").take(range(0, 18, 3))  # dark alone
    predictions.save(tmp_path / "predictions" / "test.csv")
    axes = roc_figures([replace(run, folder=tmp_path)], "test")["dark"].axes[0]
    assert len(axes.lines) == 1  # chance


def test_counts_are_written(tested: list[TestedRun]):
    figure = confusion_figure(tested[0], "test")
    assert sorted(t.get_text() for t in figure.axes[0].texts) == ["0"] * 6 + ["6"] * 3
    several = {
        **tested[0].metrics,
        "task": "multilabel",
        "sets": {"test": {"scores": {"confusion": [[[1, 2], [3, 4]]] * 3}}},
    }
    figure = confusion_figure(replace(tested[0], metrics=several), "test")
    assert [axes.get_title() for axes in figure.axes] == ["dark", "grey", "light"]
    assert [t.get_text() for t in figure.axes[2].texts] == ["1", "2", "3", "4"]
    png(figure)


@pytest.mark.parametrize("draw", [sensitivity_figure, attention_figure])
def test_bars_are_as_long_as_the_scores(tested: list[TestedRun], draw):
    figure = draw(tested, "test")
    widths = [[bar.get_width() for bar in bars] for bars in figure.axes[0].containers]
    if draw is sensitivity_figure:
        assert widths[0] == [0, 0, 0, 0]
        assert widths[1][3] == 1
    else:
        assert widths[0] == pytest.approx([0] * 4, abs=1e-6)
        assert widths[1] == pytest.approx([1] * 4, abs=1e-6)
    png(figure)
