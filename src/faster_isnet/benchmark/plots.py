"""Plot measurements: bars of ratios, and lines of cost over classes, batch or image size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faster_isnet.benchmark.measurements import Measurement
from faster_isnet.benchmark.other_packages import OTHER_PACKAGES
from faster_isnet.benchmark.suites import BY_CLASSES, BY_SIZE, EXPLANATION, MEMORY, STEP
from faster_isnet.benchmark.timing import Quartiles
from faster_isnet.benchmark.workloads import BASELINE, GRADIENT_X_INPUT

# Of Okabe and Ito's palette, as in faster_isnet.plotting.heatmaps.
_OWN, _EXTERNAL = "#0072b2", "#d55e00"
_LINES = {
    BASELINE: "#000000",
    "selective": "#0072b2",
    "stochastic": "#56b4e9",
    "dual": "#009e73",
    "original": "#d55e00",
}


def figures(results: Sequence[Measurement]) -> dict[str, Figure]:
    """Plot each suite that has measurements; return figures by file name."""
    found = {}
    for suite, draw in _FIGURES.items():
        of_suite = [r for r in results if r.suite == suite and (r.seconds or r.peak_bytes)]
        if of_suite:
            found.update(draw(of_suite))
    return found


def _step_figures(results: Sequence[Measurement]) -> dict[str, Figure]:
    return {STEP: _ratio_bars(results, BASELINE, "Training step, relative to the baseline step")}


def _explanation_figures(results: Sequence[Measurement]) -> dict[str, Figure]:
    title = "Explanation of one class, relative to Gradient × Input"
    return {EXPLANATION: _ratio_bars(results, GRADIENT_X_INPUT, title)}


def _memory_figures(results: Sequence[Measurement]) -> dict[str, Figure]:
    found = {}
    for reference, name in ((BASELINE, "step"), (GRADIENT_X_INPUT, "explanation")):
        compared = [r for r in results if reference in r.ratios]
        if compared:
            title = f"Peak memory, relative to {_REFERENCE_LABELS.get(reference, reference)}"
            found[f"{MEMORY}_{name}"] = _ratio_bars(compared, reference, title)
    return found


_REFERENCE_LABELS = {BASELINE: "the baseline step", GRADIENT_X_INPUT: "Gradient × Input"}


def _ratio_bars(results: Sequence[Measurement], reference: str, title: str) -> Figure:
    """Plot horizontal bars of ratios, in one panel for each architecture."""
    shown = [r for r in results if reference in r.ratios]
    networks = list(dict.fromkeys(r.architecture for r in shown))
    figure = _new_figure(7.2, 1.0 + 0.3 * len(shown) + 0.45 * len(networks))
    counts = [sum(r.architecture == network for r in shown) for network in networks]
    if not networks:
        figure.text(0.5, 0.5, "nothing to compare with", ha="center", va="center")
        return figure
    grid = figure.subplots(
        len(networks), sharex=True, squeeze=False, height_ratios=[count + 0.6 for count in counts]
    )
    longest = max(r.ratios[reference].upper for r in shown)
    for axes, network in zip(grid[:, 0], networks, strict=True):
        _draw_bars(axes, [r for r in shown if r.architecture == network], reference)
        axes.set_title(network, loc="left", fontsize=10, pad=4)
        axes.set_xlim(0, 1.2 * max(longest, 1))
    _set_title(figure, title)
    return figure


def _draw_bars(axes: Axes, results: Sequence[Measurement], reference: str) -> None:
    ratios = [r.ratios[reference] for r in results]
    medians = [ratio.median for ratio in ratios]
    bars = axes.barh(
        range(len(results)),
        medians,
        height=0.75,
        color=[_EXTERNAL if r.workload in OTHER_PACKAGES else _OWN for r in results],
        xerr=_error_bars(ratios),
        ecolor="black",
        error_kw={"linewidth": 1.2, "capsize": 2.5},
    )
    axes.bar_label(bars, [f"{median:.2f}" for median in medians], padding=4)
    several = len({r.batch for r in results}) > 1
    names = [r.workload + (f" (batch {r.batch})" if several else "") for r in results]
    axes.set_yticks(range(len(results)), names)
    axes.axvline(1, color="black", linewidth=1, linestyle=":")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _classes_figures(results: Sequence[Measurement]) -> dict[str, Figure]:
    figure = _new_figure(9, 3.8)
    first = results[0]
    _draw_growth(figure.subplots(1, 2), results, attrgetter("classes"), "classes")
    title = f"Training step by the number of classes: {first.architecture}"
    _set_title(figure, f"{title}, batch {first.batch}, {first.size}×{first.size}")
    return {BY_CLASSES: figure}


def _sizes_figures(results: Sequence[Measurement]) -> dict[str, Figure]:
    found = {}
    for name, label, along, fixed in (
        ("batch", "images in a batch", attrgetter("batch"), attrgetter("size")),
        ("size", "height and width in pixels", attrgetter("size"), attrgetter("batch")),
    ):
        swept = _swept(results, along, fixed)
        figure = _new_figure(9, 3.8)
        _draw_growth(figure.subplots(1, 2), swept, along, label)
        _set_title(figure, f"Training step by {label}: {results[0].architecture}")
        found[f"{BY_SIZE}_by_{name}"] = figure
    return found


def _swept(
    results: Sequence[Measurement],
    along: Callable[[Measurement], int],
    fixed: Callable[[Measurement], int],
) -> list[Measurement]:
    """Return the longest sweep: the results with one value of ``fixed`` and most of ``along``."""
    values: dict[int, set[int]] = defaultdict(set)
    for r in results:
        values[fixed(r)].add(along(r))
    longest = max(values, key=lambda value: len(values[value]))
    return [r for r in results if fixed(r) == longest]


def _draw_growth(
    both: Sequence[Axes],
    results: Sequence[Measurement],
    along: Callable[[Measurement], int],
    label: str,
) -> None:
    """Plot the time of a step, and its ratio to the baseline step, of each workload."""
    times, ratios = both
    for name in dict.fromkeys(r.workload for r in results):
        own = sorted((r for r in results if r.workload == name and r.seconds), key=along)
        style: dict[str, Any] = {
            "color": _LINES.get(name, "#cc79a7"),
            "marker": "o",
            "markersize": 4,
        }
        x = [along(r) for r in own]
        times.plot(
            x,
            [r.seconds.median * 1e3 for r in own if r.seconds],
            label=name,
            **style,
        )
        compared = [r for r in own if BASELINE in r.ratios]
        medians = [r.ratios[BASELINE].median for r in compared]
        ratios.plot([along(r) for r in compared], medians, **style)
    for axes, title in ((times, "milliseconds"), (ratios, "relative to the baseline step")):
        axes.set_xscale("log")
        ticks = sorted({along(r) for r in results})
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlabel(label)
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    times.figure.legend(loc="outside right center", frameon=False)


def _error_bars(ratios: Sequence[Quartiles]) -> list[list[float]]:
    """Return the distances of the quartiles from the medians, as matplotlib expects them."""
    return [
        [ratio.median - ratio.lower for ratio in ratios],
        [ratio.upper - ratio.median for ratio in ratios],
    ]


def _new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _set_title(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")


_FIGURES: dict[str, Callable[[Sequence[Measurement]], dict[str, Figure]]] = {
    STEP: _step_figures,
    EXPLANATION: _explanation_figures,
    BY_CLASSES: _classes_figures,
    BY_SIZE: _sizes_figures,
    MEMORY: _memory_figures,
}
