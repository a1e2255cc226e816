"""Draw many models in one figure: as points of two values, and as rows of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from faster_isnet.plotting.charts import draw_legend, show_percent
from faster_isnet.plotting.heatmaps import model_colours, new_figure

_MARKERS = "os^Dv<>PX*"
Ends = tuple[float, float, float]
"""The lower end of an interval, the value, and the upper end."""


@dataclass(frozen=True)
class Point:
    """Hold a model's value on both axes, with its intervals.

    Parameters
    ----------
    x, y
        Lower end, value and upper end; three times the value where there is no interval.
    """

    x: Ends
    y: Ends


def points_figure(
    points: Mapping[str, Point], x_label: str, y_label: str, *, x_percent: bool
) -> Figure:
    """Draw a point with its intervals for each model, and a legend of their names.

    Names are not written beside points, which may lie on each other.

    Parameters
    ----------
    points
        By model; ``y`` is a fraction, which is shown in percent.
    x_label, y_label
        Of the axes.
    x_percent
        Whether ``x`` is a fraction, too.

    Examples
    --------
    >>> figure = points_figure(
    ...     {"swap": Point((1, 1.1, 1.2), (0.7, 0.8, 0.9))}, "cost", "accuracy", x_percent=False
    ... )
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['swap']
    """
    figure = new_figure(7.6, 4.6)
    axes = figure.subplots()
    colours = model_colours(points)
    for marker, (name, point) in zip(cycle(_MARKERS), points.items()):
        (x_low, x, x_high), (y_low, y, y_high) = point.x, point.y
        axes.errorbar(
            x, y, xerr=[[x - x_low], [x_high - x]], yerr=[[y - y_low], [y_high - y]],
            fmt=marker, color=colours[name], elinewidth=1, capsize=2, label=name,
        )  # fmt: skip
    draw_legend(axes, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel(x_label, parse_math=False)
    axes.set_ylabel(y_label, parse_math=False)
    axes.margins(x=0.12)
    axes.set_ylim(-0.03, 1.05)
    axes.spines[["top", "right"]].set_visible(False)
    show_percent(axes.yaxis)
    if x_percent:
        show_percent(axes.xaxis)
    return figure


def pictures_grid(rows: Mapping[str, Sequence[bytes]]) -> Figure:
    """Draw a row of pictures for each model, its name beside them.

    Parameters
    ----------
    rows
        By model, one PNG or more.

    Examples
    --------
    >>> from faster_isnet.plotting.heatmaps import png
    >>> len(pictures_grid({"a": [png(new_figure(1, 1))] * 2}).axes)
    2
    """
    pictures = {name: [imread(BytesIO(each), "png") for each in row] for name, row in rows.items()}
    first = next(iter(pictures.values()))[0]
    columns = max(len(row) for row in pictures.values())
    height = 2.6 * first.shape[0] / first.shape[1]
    figure = new_figure(2.6 * columns + 1, height * len(rows) + 0.2, dpi=160)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, row) in zip(grid, pictures.items(), strict=True):
        line[0].text(
            -0.04, 0.5, fill(name, 18), rotation=90, ha="right", va="center", fontsize=9,
            transform=line[0].transAxes, parse_math=False,
        )  # fmt: skip
        for axes in line:
            axes.set_axis_off()
        for axes, picture in zip(line, row, strict=False):
            axes.imshow(np.asarray(picture))
    return figure
