"""Figures of what tests found: ROC curves, confusion matrices, bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torchmetrics.functional.classification import binary_roc

from faster_isnet.evaluation import Predictions
from faster_isnet.evaluation.evaluation_files import TestedRun
from faster_isnet.evaluation.intervals import Score
from faster_isnet.plotting.heatmaps import model_colours, new_figure, percent


def roc_figures(runs: Sequence[TestedRun], data: str) -> dict[str, Figure]:
    """Return for each class the ROC curves of all runs, of that class against all others."""
    predictions = {run.name: run.predictions(data) for run in runs}
    return {name: _roc_figure(runs, data, predictions, name) for name in runs[0].class_names}


def _roc_figure(
    runs: Sequence[TestedRun], data: str, predictions: Mapping[str, Predictions], class_name: str
) -> Figure:
    figure = new_figure(4.2, 4.2)
    axes = figure.subplots()
    colours = model_colours([run.name for run in runs])
    for run in runs:
        of_run = predictions[run.name]
        c = run.class_names.index(class_name)
        has = torch.from_numpy(of_run.has_class[:, c]).long()
        if not 0 < int(has.sum()) < len(has):
            continue  # no curve; the table says why
        false, true, _ = binary_roc(torch.from_numpy(of_run.probabilities[:, c].copy()), has)
        area = run.sets[data]["scores"]["classes"][class_name]["auc"]["value"]
        label = run.name if area is None else f"{run.name}, AUC {percent(area)}"
        axes.plot(false, true, color=colours[run.name], label=label, linewidth=1.8)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("recall")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    _legend(axes, loc="lower right")
    return figure


def confusion_figure(run: TestedRun, data: str) -> Figure:
    """Return how many images of each class are said to be of which; shares of rows as colours.

    For several labels a 2 × 2 table for each class.
    """
    confusion = run.sets[data]["scores"]["confusion"]
    if run.metrics["task"] == "multiclass":
        side = max(3.4, 1.4 + 0.6 * len(run.class_names))
        figure = new_figure(side, side)
        _draw_counts(figure.subplots(), np.array(confusion), run.class_names)
        return figure
    figure = new_figure(2.6 * len(confusion), 3.0)
    grid = figure.subplots(1, len(confusion), squeeze=False)[0]
    for axes, name, table in zip(grid, run.class_names, confusion, strict=True):
        _draw_counts(axes, np.array(table), ["no", "yes"])
        axes.set_title(name, fontsize=10, parse_math=False)
    return figure


def sensitivity_figure(runs: Sequence[TestedRun], data: str) -> Figure:
    """Return bars of how many predictions change with each background."""
    found = {run.name: run.sets[data]["sensitivity"]["backgrounds"] for run in runs}
    names = list(next(iter(found.values())))
    values = {run: {name: each[name]["changed"] for name in names} for run, each in found.items()}
    return _bars(values, "predictions that change")


def attention_figure(runs: Sequence[TestedRun], data: str) -> Figure:
    """Return bars of the background's share of relevance, over all images and for each class."""
    values = {}
    for run in runs:
        found = run.sets[data]["attention"]
        values[run.name] = {
            name: scores["background share"]
            for name, scores in {"all": found, **found["classes"]}.items()
        }
    return _bars(values, "relevance in the background")


def _draw_counts(axes: Axes, counts: Any, names: Sequence[str]) -> None:
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


def _bars(values: dict[str, dict[str, Score]], label: str) -> Figure:
    """Draw lying bars in groups, one of each run, with their intervals."""
    groups = list(next(iter(values.values())))
    figure = new_figure(5.2, 1.3 + len(groups) * (0.25 + 0.22 * len(values)))
    axes = figure.subplots()
    colours = model_colours(list(values))
    thickness = 0.8 / len(values)
    for place, (run, scores) in enumerate(values.items()):
        middles = np.arange(len(groups)) + (place - (len(values) - 1) / 2) * thickness
        known = [
            (m, s) for m, s in zip(middles, scores.values(), strict=True) if s["value"] is not None
        ]
        heights = [score["value"] for _, score in known]
        at = [middle for middle, _ in known]
        axes.barh(at, heights, height=0.9 * thickness, color=colours[run], label=run)
        for middle, score in known:
            if score["low"] is not None:
                axes.plot([score["low"], score["high"]], [middle, middle], color="k", linewidth=1)
    axes.set_yticks(range(len(groups)), groups, parse_math=False)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _legend(axes: Axes, **where: Any) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(frameon=False, fontsize=9, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)
