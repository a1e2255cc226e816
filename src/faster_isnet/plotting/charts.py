"""Draw curves of classifiers, confusion matrices and bars with intervals from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from faster_isnet.plotting.heatmaps import model_colours, new_figure, percent

_LARGEST_POINT = 250  # in square points, of all images
_LEGEND_WIDTH = 40  # in letters
Floats = npt.NDArray[np.float64]


def roc_figure(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    areas: Mapping[str, float] | None = None,
) -> Figure:
    """Draw the ROC curves of one or more classifiers for one class.

    Parameters
    ----------
    curves
        By classifier: whether each image has the class ``[N]``, and its score ``[N]``, higher for
        the class. Where no image or all have the class there is no curve.
    areas
        By classifier, the area to write into the legend, in [0, 1].

    Examples
    --------
    >>> figure = roc_figure({"isnet": ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])}, {"isnet": 0.75})
    >>> figure.axes[0].get_legend().get_texts()[0].get_text()
    'isnet, AUC 75.0 %'
    """
    figure, axes = _square_of_shares("1 − specificity", "recall")
    colours = model_colours(curves)
    for name, (positive, scores) in curves.items():
        has = torch.from_numpy(np.array(positive, dtype=np.int64))
        if not 0 < int(has.sum()) < len(has):
            continue
        false, true, _ = binary_roc(torch.from_numpy(np.array(scores, dtype=np.float64)), has)
        area = (areas or {}).get(name)
        label = name if area is None else f"{name}, AUC {percent(area)}"
        axes.plot(false, true, color=colours[name], label=label, linewidth=1.8)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    draw_legend(axes, loc="lower right")
    return figure


def precision_recall_figure(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    averages: Mapping[str, float] | None = None,
) -> Figure:
    """Draw the precision-recall curves of one or more classifiers for one class.

    Parameters
    ----------
    curves
        See :func:`roc_figure`. Where no image has the class there is no curve.
    averages
        By classifier, the average precision to write into the legend, in [0, 1].

    Examples
    --------
    >>> curves = {"isnet": ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])}
    >>> figure = precision_recall_figure(curves, {"isnet": 0.83})
    >>> figure.axes[0].get_legend().get_texts()[0].get_text()
    'isnet, average 83.0 %'
    """
    figure, axes = _square_of_shares("recall", "precision")
    colours = model_colours(curves)
    for name, (positive, scores) in curves.items():
        has = torch.from_numpy(np.array(positive, dtype=np.int64))
        if not int(has.sum()):
            continue
        probabilities = torch.from_numpy(np.array(scores, dtype=np.float64))
        precision, recall, _ = binary_precision_recall_curve(probabilities, has)
        average = (averages or {}).get(name)
        label = name if average is None else f"{name}, average {percent(average)}"
        # Between two thresholds the precision is that of the lower one.
        axes.step(recall, precision, color=colours[name], label=label, where="post", linewidth=1.8)
        share = float(has.double().mean())
        axes.plot([0, 1], [share, share], color="grey", linewidth=0.8, linestyle=":")
    draw_legend(axes, loc="lower left")
    return figure


def reliability_figure(
    bins: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
) -> Figure:
    """Draw how often one or more classifiers are right, against how sure they are.

    The area of a point is the share of images that it stands for.

    Parameters
    ----------
    bins
        By classifier, for each bin of confidence: its mean confidence and the share that are
        right, both in [0, 1] and NaN where a bin is empty, and the number of images.

    Examples
    --------
    >>> figure = reliability_figure({"isnet": ([0.6, 0.9], [0.5, 0.95], [10, 40])})
    >>> figure.axes[0].lines[0].get_ydata()
    array([0.5 , 0.95])
    """
    figure, axes = _square_of_shares("confidence", "share that are right")
    colours = model_colours(bins)
    for name, (*place, count) in bins.items():
        images = np.asarray(count, dtype=np.float64)
        confidence, right = (np.asarray(each, dtype=np.float64)[images > 0] for each in place)
        axes.plot(confidence, right, color=colours[name], label=name, linewidth=1)
        areas = _LARGEST_POINT * images[images > 0] / images.sum()
        axes.scatter(confidence, right, areas, color=colours[name], zorder=2)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    draw_legend(axes, loc="upper left")
    return figure


def _square_of_shares(x: str, y: str) -> tuple[Figure, Axes]:
    """Return a figure with square axes from 0 to 100 %."""
    figure = new_figure(4.2, 4.2)
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=x, ylabel=y)
    for axis in (axes.xaxis, axes.yaxis):
        show_percent(axis)
    return figure, axes


def confusion_figure(
    tables: Sequence[npt.ArrayLike], names: Sequence[str], titles: Sequence[str] | None = None
) -> Figure:
    """Draw confusion matrices: counts as numbers, shares of each row as colours.

    Parameters
    ----------
    tables
        One or more of counts, each ``[C, C]``: a row for each true class, a column for each
        predicted one.
    names
        Of the C classes.
    titles
        One above each table.

    Examples
    --------
    >>> figure = confusion_figure([[[3, 1], [0, 2]]], ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['3', '1', '0', '2']
    """
    side = max(3.4, 1.4 + 0.6 * len(names))
    figure = new_figure(side, side) if len(tables) == 1 else new_figure(2.6 * len(tables), 3.0)
    grid = figure.subplots(1, len(tables), squeeze=False)[0]
    for number, (axes, table) in enumerate(zip(grid, tables, strict=True)):
        draw_confusion(axes, table, names)
        if titles is not None:
            axes.set_title(titles[number], fontsize=10, parse_math=False)
    return figure


def draw_confusion(axes: Axes, table: npt.ArrayLike, names: Sequence[str]) -> None:
    """Draw one confusion matrix, see :func:`confusion_figure`."""
    counts = np.asarray(table)
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        dark = shares[row, column] > 0.5
        axes.text(column, row, str(count), ha="center", va="center", color="w" if dark else "k")
    places = range(len(names))
    axes.set_xticks(places, names, rotation=30, ha="right", parse_math=False)
    axes.set_yticks(places, names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def bars_figure(
    values: Mapping[str, npt.ArrayLike],
    groups: Sequence[str],
    label: str,
    intervals: Mapping[str, npt.ArrayLike] | None = None,
    as_percent: bool = True,
) -> Figure:
    """Draw horizontal bars in groups, one of each model, with intervals.

    Parameters
    ----------
    values
        By model ``[G]``, a value for each group; NaN where there is none.
    groups
        Names of the G groups.
    label
        Of the axis of values.
    intervals
        By model ``[G, 2]``, the ends of each interval; NaN where there is none.
    as_percent
        Whether values are fractions in [0, 1], to be shown in percent.

    Examples
    --------
    >>> figure = bars_figure({"isnet": [0.5, 0.75]}, ["cat", "dog"], "recall")
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches]
    [0.5, 0.75]
    """
    figure = new_figure(5.2, 1.3 + len(groups) * (0.25 + 0.22 * len(values)))
    axes = figure.subplots()
    draw_bars(axes, values, groups, intervals)
    axes.set_xlabel(label, parse_math=False)
    if as_percent:
        axes.set_xlim(0, 1)
        show_percent(axes.xaxis)
    columns = max(1, min(3, _LEGEND_WIDTH // max(map(len, values))))
    draw_legend(axes, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns)
    return figure


def draw_bars(
    axes: Axes,
    values: Mapping[str, npt.ArrayLike],
    groups: Sequence[str],
    intervals: Mapping[str, npt.ArrayLike] | None = None,
) -> dict[str, BarContainer]:
    """Draw the bars of :func:`bars_figure`, and return those of each model."""
    colours = model_colours(values)
    thickness = 0.8 / len(values)
    drawn = {}
    for number, (model, of_model) in enumerate(values.items()):
        lengths: Floats = np.asarray(of_model, dtype=np.float64)
        middles = np.arange(len(groups)) + (number - (len(values) - 1) / 2) * thickness
        known = ~np.isnan(lengths)
        drawn[model] = axes.barh(
            middles[known],
            lengths[known],
            height=0.9 * thickness,
            color=colours[model],
            label=model,
        )
        if intervals is not None:
            for middle, ends in zip(middles, np.asarray(intervals[model]), strict=True):
                if not np.isnan(ends).any():
                    axes.plot(ends, [middle, middle], color="k", linewidth=1)
    axes.set_yticks(range(len(groups)), groups, parse_math=False)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def draw_legend(axes: Axes, fontsize: float | None = 9, **where: Any) -> None:
    """Draw a legend without a frame, whose names are not read as formulas; none if it is empty.

    ``fontsize`` is in points; ``None`` for matplotlib's default.
    """
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(frameon=False, fontsize=fontsize, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)


def show_percent(axis: Axis) -> None:
    """Write the fractions at an axis in percent."""
    axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
