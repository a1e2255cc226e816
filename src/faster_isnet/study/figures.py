"""Draw the figures of a study: robustness against cost and accuracy, and rows of heatmaps."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from faster_isnet.evaluation.intervals import Score
from faster_isnet.plotting.comparisons import Point, pictures_grid, points_figure
from faster_isnet.study.results import RELATIVE_TOTAL, TOTAL, WORST_SET, DataResult

_COLUMNS = 4  # pictures in a row


def figures_of(data: DataResult, baseline: str) -> dict[str, tuple[Figure, str]]:
    """Return figures with their captions, by names for files; none where nothing is finished."""
    if not data.sets:
        return {}
    first = f"accuracy, {data.sets[0]}"
    relative = any(RELATIVE_TOTAL in method.means for method in data.methods.values())
    cost = RELATIVE_TOTAL if relative else TOTAL
    label = f"training time, relative to {baseline}" if relative else "training time, s"
    return {
        "robustness-cost": (
            points_figure(_points(data, cost), label, WORST_SET, x_percent=False),
            "Robustness (the lowest accuracy of the test sets) against the time of training",
        ),
        "robustness-accuracy": (
            points_figure(_points(data, first), first, WORST_SET, x_percent=True),
            f"Robustness against the accuracy on {data.sets[0]}",
        ),
        **_heatmaps(data, baseline),
    }


def _points(data: DataResult, x: str) -> dict[str, Point]:
    points = {}
    for name, method in data.methods.items():
        across, up = method.means.get(x), method.means.get(WORST_SET)
        if across is not None and up is not None and None not in (across.value, up.value):
            points[name] = Point(_ends(across), _ends(up))
    return points


def _ends(score: Score) -> tuple[float, float, float]:
    assert score.value is not None
    low = score.value if score.low is None else score.low
    return low, score.value, score.value if score.high is None else score.high


def _heatmaps(data: DataResult, baseline: str) -> dict[str, tuple[Figure, str]]:
    """Draw a row of each method's heatmaps, on the test set that the baseline is worst on."""
    chosen = _hardest(data, baseline)
    rows: dict[str, list[bytes]] = {}
    for name, method in data.methods.items():
        for run in list(method.runs.values())[:1]:
            folder, pictures = run.evaluation.folder, run.evaluation.sets[chosen].pictures
            # They may have been removed, for their size.
            there = [each for each in pictures if (folder / each.file).is_file()]
            if shown := [picture for picture in there if picture.kind == "example"]:
                rows[name] = [run.evaluation.png(picture) for picture in shown[:_COLUMNS]]
    if not rows:
        return {}
    caption = f"The first images of {chosen}, with the heatmap of the predicted class"
    return {"heatmaps": (pictures_grid(rows), caption)}


def _hardest(data: DataResult, baseline: str) -> str:
    methods = [data.methods[baseline]] if baseline in data.methods else []
    for method in [*methods, *data.methods.values()]:
        accuracies: Mapping[str, float] = {
            name: value
            for name in data.sets
            if (value := method.means[f"accuracy, {name}"].value) is not None
        }
        if accuracies:
            return min(accuracies, key=accuracies.__getitem__)
    return data.sets[0]
