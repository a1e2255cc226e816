"""Plots of what was measured: bars of ratios, and lines of how cost grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faster_isnet.benchmark.cases import BY_CLASSES, BY_SIZE, EXPLANATION, MEMORY, STEP
from faster_isnet.benchmark.contenders import GRADIENT_X_INPUT, PLAIN
from faster_isnet.benchmark.peers import PEERS
from faster_isnet.benchmark.rows import Row
from faster_isnet.benchmark.timing import Quartiles

# Of Okabe and Ito's palette, as in faster_isnet.plotting.heatmaps.
_OWN, _PEER = "#0072b2", "#d55e00"
_LINES = {
    PLAIN: "#000000",
    "selective": "#0072b2",
    "stochastic": "#56b4e9",
    "dual": "#009e73",
    "original": "#d55e00",
}


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Return a figure for each suite that has figures, by the name of its file."""
    found = {}
    for suite, draw in _FIGURES.items():
        of_suite = [row for row in rows if row.suite == suite and (row.seconds or row.peak_bytes)]
        if of_suite:
            found.update(draw(of_suite))
    return found


def _step_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    return {STEP: _bars(rows, PLAIN, "Training step, in plain steps")}


def _explanation_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    title = "Explanation of one class, in Gradients × Inputs"
    return {EXPLANATION: _bars(rows, GRADIENT_X_INPUT, title)}


def _memory_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    found = {}
    for reference, name in ((PLAIN, "step"), (GRADIENT_X_INPUT, "explanation")):
        compared = [row for row in rows if reference in row.ratios]
        if compared:
            title = f"Peak memory, in that of {_SHOWN.get(reference, reference)}"
            found[f"{MEMORY}_{name}"] = _bars(compared, reference, title)
    return found


_SHOWN = {PLAIN: "a plain step", GRADIENT_X_INPUT: "Gradient × Input"}


def _bars(rows: Sequence[Row], reference: str, title: str) -> Figure:
    """Return lying bars of ratios, an architecture below the other."""
    shown = [row for row in rows if reference in row.ratios]
    networks = list(dict.fromkeys(row.architecture for row in shown))
    figure = _figure(7.2, 1.0 + 0.3 * len(shown) + 0.45 * len(networks))
    counts = [sum(row.architecture == network for row in shown) for network in networks]
    if not networks:
        figure.text(0.5, 0.5, "nothing to compare with", ha="center", va="center")
        return figure
    grid = figure.subplots(
        len(networks), sharex=True, squeeze=False, height_ratios=[count + 0.6 for count in counts]
    )
    longest = max(row.ratios[reference].upper for row in shown)
    for axes, network in zip(grid[:, 0], networks, strict=True):
        _draw_bars(axes, [row for row in shown if row.architecture == network], reference)
        axes.set_title(network, loc="left", fontsize=10, pad=4)
        axes.set_xlim(0, 1.2 * max(longest, 1))
    _entitle(figure, title)
    return figure


def _draw_bars(axes: Axes, rows: Sequence[Row], reference: str) -> None:
    ratios = [row.ratios[reference] for row in rows]
    medians = [ratio.median for ratio in ratios]
    bars = axes.barh(
        range(len(rows)),
        medians,
        height=0.75,
        color=[_PEER if row.contender in PEERS else _OWN for row in rows],
        xerr=_around(ratios),
        ecolor="black",
        error_kw={"linewidth": 1.2, "capsize": 2.5},
    )
    axes.bar_label(bars, [f"{median:.2f}" for median in medians], padding=4)
    several = len({row.batch for row in rows}) > 1
    names = [row.contender + (f" (batch {row.batch})" if several else "") for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.axvline(1, color="black", linewidth=1, linestyle=":")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _classes_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    figure = _figure(9, 3.8)
    one = rows[0]
    _draw_growth(figure.subplots(1, 2), rows, lambda row: row.classes, "classes")
    title = f"Training step by the number of classes: {one.architecture}"
    _entitle(figure, f"{title}, batch {one.batch}, {one.size}×{one.size}")
    return {BY_CLASSES: figure}


def _sizes_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    found = {}
    for name, label, along, fixed in (
        ("batch", "images in a batch", _batch, _size),
        ("size", "height and width in pixels", _size, _batch),
    ):
        swept = _swept(rows, along, fixed)
        figure = _figure(9, 3.8)
        _draw_growth(figure.subplots(1, 2), swept, along, label)
        _entitle(figure, f"Training step by {label}: {rows[0].architecture}")
        found[f"{BY_SIZE}_by_{name}"] = figure
    return found


def _batch(row: Row) -> int:
    return row.batch


def _size(row: Row) -> int:
    return row.size


def _swept(
    rows: Sequence[Row], along: Callable[[Row], int], fixed: Callable[[Row], int]
) -> list[Row]:
    """Return the rows of the longest sweep along something, the rest being fixed."""
    lengths = {fixed(row): len({along(r) for r in rows if fixed(r) == fixed(row)}) for row in rows}
    longest = max(lengths, key=lambda value: lengths[value])
    return [row for row in rows if fixed(row) == longest]


def _draw_growth(
    both: Sequence[Axes], rows: Sequence[Row], along: Callable[[Row], int], label: str
) -> None:
    """Draw the time of a step, and its ratio to the plain one, of each contender."""
    times, ratios = both
    for name in dict.fromkeys(row.contender for row in rows):
        own = sorted((row for row in rows if row.contender == name and row.seconds), key=along)
        style: dict[str, Any] = {
            "color": _LINES.get(name, "#cc79a7"),
            "marker": "o",
            "markersize": 4,
        }
        x = [along(row) for row in own]
        times.plot(x, [row.seconds.median * 1e3 for row in own if row.seconds], label=name, **style)
        compared = [row for row in own if PLAIN in row.ratios]
        medians = [row.ratios[PLAIN].median for row in compared]
        ratios.plot([along(row) for row in compared], medians, **style)
    for axes, title in ((times, "milliseconds"), (ratios, "plain steps")):
        axes.set_xscale("log")
        ticks = sorted({along(row) for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlabel(label)
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    times.figure.legend(loc="outside right center", frameon=False)


def _around(ratios: Sequence[Quartiles]) -> list[list[float]]:
    """Return how far the quartiles are from the medians, as error bars have it."""
    return [
        [ratio.median - ratio.lower for ratio in ratios],
        [ratio.upper - ratio.median for ratio in ratios],
    ]


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _entitle(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")


_FIGURES: dict[str, Callable[[Sequence[Row]], dict[str, Figure]]] = {
    STEP: _step_figures,
    EXPLANATION: _explanation_figures,
    BY_CLASSES: _classes_figures,
    BY_SIZE: _sizes_figures,
    MEMORY: _memory_figures,
}
