"""Draw the demo's figures: bars of its scores, examples with heatmaps, one overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from faster_isnet.demo.examples import Example
from faster_isnet.demo.metrics import TEST_SETS, ModelScores
from faster_isnet.plotting.charts import draw_bars, draw_legend, show_percent
from faster_isnet.plotting.heatmaps import (
    class_name,
    display_name,
    draw_heatmap,
    draw_image,
    model_colours,
    new_figure,
    percent,
)

WRONG = "#b00020"
Models = Mapping[str, ModelScores]
"""The scores of each model, by its name."""


def _wrapped(model: str) -> str:
    return fill(display_name(model), 16)


def accuracy_bars(models: Models) -> Figure:
    """Draw bars of each model's accuracy on the three test sets.

    Examples
    --------
    >>> models = {"isnet": ModelScores(1, 1, deceiving=0.9, background_share=0.1)}
    >>> [text.get_text() for text in accuracy_bars(models).axes[0].texts]
    ['100.0 %', '100.0 %', '90.0 %']
    """
    figure = new_figure(5.2, 1.2 + 0.75 * len(models))
    _draw_accuracies(figure.subplots(), models)
    return figure


def background_bars(models: Models) -> Figure:
    """Draw bars of the share of absolute relevance that lies in the background."""
    figure = new_figure(5.2, 0.5 + 0.45 * len(models))
    _draw_background(figure.subplots(), models)
    return figure


# All bars are horizontal, so that their labels never collide, however many models there are.
def _draw_accuracies(axes: Axes, models: Models, title: str = "") -> None:
    values = {model: list(scores.accuracies.values()) for model, scores in models.items()}
    for model, bars in draw_bars(axes, values, TEST_SETS).items():
        bars.set_label(display_name(model))
        axes.bar_label(bars, [percent(value) for value in values[model]], padding=3)
    columns = max(1, 48 // (6 + max(len(display_name(model)) for model in models)))  # what fits
    draw_legend(axes, None, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns)
    _finish_bars(axes, title, pad=10 + 18 * ceil(len(models) / columns))


def _draw_background(axes: Axes, models: Models, title: str = "") -> None:
    shares = [scores.background_share for scores in models.values()]
    bars = axes.barh(range(len(models)), shares, color=list(model_colours(models).values()))
    axes.bar_label(bars, [percent(share) for share in shares], padding=3)
    axes.set_yticks(range(len(models)), [_wrapped(model) for model in models], parse_math=False)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    _finish_bars(axes, title, pad=8)


def _finish_bars(axes: Axes, title: str, pad: float) -> None:
    axes.set(xlim=(0, 1.16), xticks=np.linspace(0, 1, 5))
    show_percent(axes.xaxis)
    axes.set_title(title, loc="left", pad=pad, fontweight="bold")


def example_grid(examples: Sequence[Example], class_names: Sequence[str]) -> Figure:
    """Draw one row per example: its image, then each model's heatmap and prediction."""
    figure = new_figure(0.3 + 2 * _columns(examples), 2.5 * max(len(examples), 1))
    _draw_examples(figure, examples, class_names)
    return figure


def _columns(examples: Sequence[Example]) -> int:
    return 1 + max((len(example.heatmaps) for example in examples), default=2)


def _draw_examples(
    figure: FigureBase, examples: Sequence[Example], class_names: Sequence[str]
) -> None:
    if not examples:
        figure.text(0.5, 0.5, "no example images", ha="center", va="center")
        return
    grid = figure.subplots(len(examples), _columns(examples), squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        for axes in row:
            axes.set_axis_off()
        draw_image(row[0], example.image, example.mask)
        truth = class_name(class_names, example.label)
        row[0].set_title(f"Image\ntrue class {truth}", parse_math=False, fontsize=10)
        row[0].text(
            -0.06, 0.5, fill(example.caption, 28), rotation=90, ha="right", va="center",
            ma="center", fontsize=9, parse_math=False, transform=row[0].transAxes,
        )  # fmt: skip
        for axes, (model, heatmap) in zip(row[1:], example.heatmaps.items(), strict=False):
            draw_heatmap(axes, heatmap, image=example.image, mask=example.mask)
            predicted = class_name(class_names, example.predictions[model])
            right = example.predictions[model] == example.label
            axes.set_title(
                f"{_wrapped(model)}\n{'✓ right' if right else '✗ wrong'}: {predicted}",
                color="black" if right else WRONG,
                fontweight="normal" if right else "bold",
                fontsize=10,
                parse_math=False,
            )


def overview_figure(
    models: Models, examples: Sequence[Example], class_names: Sequence[str]
) -> Figure:
    """Draw one picture 1200 pixels wide: bars left, the first four examples right."""
    shown = examples[:4]
    figure = new_figure(12, max(4.5, 2.3 * len(shown)), dpi=100)
    ratios = (1, 0.42 * _columns(shown))
    [[left, right]] = figure.subfigures(1, 2, squeeze=False, width_ratios=ratios)
    above, below = left.subplots(2, 1, height_ratios=(3, 1.2))
    _draw_accuracies(above, models, title="Accuracy on the three test sets")
    _draw_background(below, models, title="Relevance in the background")
    _draw_examples(right, shown, class_names)
    return figure
