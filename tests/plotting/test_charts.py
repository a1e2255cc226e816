"""Charts show the arrays that they are given."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from faster_isnet.plotting.charts import (
    bars_figure,
    confusion_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from faster_isnet.plotting.heatmaps import png


def test_curves_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    curves = {name: (rng.random(40) < 0.4, rng.random(40).round(1)) for name in ("isnet", "$\\x{$")}
    figure = roc_figure(curves, {"isnet": 0.5})
    (axes,) = figure.axes
    for (has, scores), line in zip(curves.values(), axes.lines, strict=False):
        expected = roc_curve(has, scores, drop_intermediate=False)
        np.testing.assert_allclose(line.get_xdata(), expected[0])
        np.testing.assert_allclose(line.get_ydata(), expected[1])
    written = [text.get_text() for text in axes.get_legend().get_texts()]
    assert written == ["isnet, AUC 50.0 %", "$\\x{$"]
    png(figure)  # which fails where a name is read as a broken formula


def test_precision_and_recall_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    has, scores = rng.random(40) < 0.4, rng.random(40).round(1)
    figure = precision_recall_figure({"isnet": (has, scores), "none": ([0, 0], [0.1, 0.2])})
    (axes,) = figure.axes
    expected = precision_recall_curve(has, scores)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected[0])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), expected[1])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), has.mean())  # by chance
    assert len(axes.lines) == 2
    png(figure)


def test_empty_bins_of_confidence_are_left_out():
    bins = [np.nan, 0.5, 0.9], [np.nan, 0.4, 1.0], [0, 10, 30]
    figure = reliability_figure({"isnet": bins})
    line, ideal = figure.axes[0].lines
    small, large = figure.axes[0].collections[0].get_sizes()
    assert large == 3 * small
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.5, 0.9], [0.4, 1.0])
    assert list(ideal.get_xdata()) == list(ideal.get_ydata())


@pytest.mark.parametrize("has", [[0, 0, 0], [1, 1, 1]])
def test_a_class_of_no_or_all_images_has_no_curve_and_others_keep_their_colour(has):
    known = ([0, 1, 1], [0.1, 0.2, 0.3])
    (axes,) = roc_figure({"a": (has, [0.1, 0.2, 0.3]), "b": known}).axes
    (both,) = roc_figure({"a": known, "b": known}).axes
    assert len(axes.lines) == 2  # the other one, and chance
    assert axes.lines[0].get_color() == both.lines[1].get_color()


def test_counts_are_written_and_rows_coloured_by_their_shares():
    figure = confusion_figure([[[3, 1], [0, 0]]], ["cat", "dog"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "0", "0"]
    shares = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shares, [[0.75, 0.25], [0, 0]])
    figure = confusion_figure([[[1, 2], [3, 4]]] * 3, ["no", "yes"], ["a", "b", "$c{$"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "$c{$"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["1", "2", "3", "4"]
    png(figure)


def test_bars_are_as_long_as_the_values_and_none_where_there_is_none():
    values = {"isnet": [0.5, np.nan], "rrr": [0.25, 1.0]}
    intervals = {"isnet": [[0.4, 0.6], [np.nan] * 2], "rrr": [[np.nan] * 2, [0.9, 1.0]]}
    (axes,) = bars_figure(values, ["cat", "dog"], "recall", intervals).axes
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert widths == [[0.5], [0.25, 1.0]]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.4, 0.6], [0.9, 1.0]]
    upper, lower = axes.containers[0][0], axes.containers[1][0]  # of one group, side by side
    assert upper.get_y() + upper.get_height() < lower.get_y()
    middle = upper.get_y() + upper.get_height() / 2
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [middle] * 2)
    assert axes.get_xlim() == (0, 1)
    (free,) = bars_figure({"a": [12.0]}, ["x"], "pixels", as_percent=False).axes
    assert free.get_xlim()[1] > 12
