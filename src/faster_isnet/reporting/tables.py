"""The tables of what tests found, for a page and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from faster_isnet.evaluation.evaluation_files import TestedRun
from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.measures import BY_CLASS
from faster_isnet.plotting.heatmaps import percent

OVERALL = ("accuracy", "balanced accuracy")
ATTENTION = ("background share", "mass accuracy", "rank accuracy")
SENSITIVITY = ("changed", "probability change", "accuracy")
MISSING = "–"
_TITLES = {
    "auc": "AUC",
    "f1": "F1",
    "background share": "Relevance in the background",
    "changed": "Predictions that change",
    "probability change": "Change of probabilities",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it says, the small print, and what it is sorted by."""

    text: str
    detail: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A row, and the class that it is of, if it is of one."""

    cells: list[Cell]
    class_name: str | None = None


@dataclass(frozen=True)
class Table:
    """A table, of which a column is either of names or of numbers."""

    caption: str
    columns: list[str]
    rows: list[Row]


def overall_table(runs: Sequence[TestedRun], data: str) -> Table:
    """Return a row for each run: its scores over all classes, where it looks, what it minds."""
    columns = [*OVERALL, *(f"macro {name}" for name in BY_CLASS)]
    rows = []
    for run in runs:
        scores = run.sets[data]["scores"]
        values = [*(scores[name] for name in OVERALL), *(scores["macro"][n] for n in BY_CLASS)]
        rows.append(Row([Cell(run.name), *map(score_cell, values)]))
    first = runs[0].sets[data]["scores"]
    caption = f"{first['images']} images of {first['groups']} groups"
    return Table(caption, ["Classifier", *map(title, columns)], rows)


def difference_table(
    runs: Sequence[TestedRun], differences: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Return how each other run differs from the first, in points of a hundred.

    ``differences`` has what :func:`~faster_isnet.evaluation.differences` returns, by run.
    """
    columns = [*OVERALL, *(f"macro {name}" for name in BY_CLASS)]
    rows = []
    for name, found in differences.items():
        values = [*(found[each] for each in OVERALL), *(found["macro"][n] for n in BY_CLASS)]
        rows.append(Row([Cell(name), *map(difference_cell, values)]))
    caption = f"Points that each has more than {runs[0].name}, on the same images"
    return Table(caption, ["Classifier", *map(title, columns)], rows)


def class_table(
    runs: Sequence[TestedRun],
    data: str,
    differences: Mapping[str, Mapping[str, Any]],
) -> Table:
    """Return a row for each class and run, with the p of no difference of areas if compared."""
    rows = []
    for name in runs[0].class_names:
        for run in runs:
            scores = run.sets[data]["scores"]["classes"][name]
            cells = [Cell(name), Cell(run.name), count_cell(scores["images"])]
            cells += [score_cell(scores[rate]) for rate in BY_CLASS]
            if differences:
                area = differences.get(run.name, {}).get("classes", {}).get(name, {})
                cells.append(_p_cell(area.get("auc", {}).get("p")))
            rows.append(Row(cells, name))
    columns = ["Class", "Classifier", "Images", *map(title, BY_CLASS)]
    if differences:
        columns.append(f"p of AUC as {runs[0].name}")
    return Table("Each class against all others", columns, rows)


def attention_table(runs: Sequence[TestedRun], data: str) -> Table:
    """Return where each run looks, over all images and for those of each class."""
    rows = []
    for run in runs:
        found = run.sets[data]["attention"]
        for name, scores in {"all": found, **found["classes"]}.items():
            cells = [Cell(run.name), Cell(name), count_cell(scores["images"])]
            cells += [score_cell(scores[each]) for each in ATTENTION]
            rows.append(Row(cells, None if name == "all" else name))
    columns = ["Classifier", "Class", "Images", *map(title, ATTENTION)]
    return Table(
        "Means over images with a mask, of what speaks for the predicted class", columns, rows
    )


def sensitivity_table(runs: Sequence[TestedRun], data: str) -> Table:
    """Return what other backgrounds do to each run's predictions."""
    rows = []
    for run in runs:
        found = run.sets[data]["sensitivity"]
        for name, scores in found["backgrounds"].items():
            cells = [Cell(run.name), Cell(name), *(score_cell(scores[s]) for s in SENSITIVITY)]
            rows.append(Row(cells))
        untouched = [Cell(MISSING), Cell(MISSING), score_cell(found["accuracy"])]
        rows.append(Row([Cell(run.name), Cell("untouched"), *untouched]))
    columns = ["Classifier", "Background", *map(title, SENSITIVITY)]
    return Table("Images with a mask; the foreground stays as it is", columns, rows)


def text_table(runs: Sequence[TestedRun]) -> str:
    """Return the tables over all classes for a terminal, one for each data set of the first run."""
    parts = []
    for data in runs[0].sets:
        table = overall_table([run for run in runs if data in run.sets], data)
        cells = {row.cells[0].text: [_line(cell) for cell in row.cells[1:]] for row in table.rows}
        frame = pd.DataFrame(cells, index=[column.lower() for column in table.columns[1:]])
        for run in runs:
            for name, score in _beside(run.sets.get(data, {})).items():
                frame.loc[name, run.name] = _line(score_cell(score))
        parts.append(f"{data}: {table.caption}\n{frame.fillna(MISSING).to_string()}")
    return "\n\n".join(parts)


def score_cell(score: Score) -> Cell:
    """Return a score in percent, with its interval."""
    if score["value"] is None:
        return Cell(MISSING, score["reason"])
    if score["low"] is None:
        return Cell(percent(score["value"]), score["reason"], score["value"])
    detail = f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"
    return Cell(percent(score["value"]), detail, score["value"])


def difference_cell(difference: Score) -> Cell:
    """Return a difference in points of a hundred, with its interval."""
    if difference["value"] is None:
        return Cell(MISSING, difference["reason"])
    value = f"{100 * difference['value']:+.1f}"
    if difference["low"] is None:
        return Cell(value, difference["reason"], difference["value"])
    detail = f"{100 * difference['low']:+.1f} to {100 * difference['high']:+.1f}"
    return Cell(value, detail, difference["value"])


def count_cell(count: int) -> Cell:
    """Return a number of images."""
    return Cell(str(count), value=count)


def title(name: str) -> str:
    """Return how a measure is called in tables.

    Examples
    --------
    >>> title("macro auc"), title("recall")
    ('AUC, macro', 'Recall')
    """
    if name.startswith("macro "):
        return f"{title(name.removeprefix('macro '))}, macro"
    return _TITLES.get(name, name.capitalize())


def _p_cell(p: float | None) -> Cell:
    if p is None:
        return Cell(MISSING)
    return Cell("< 0.001" if p < 0.001 else f"{p:.3f}", value=p)


def _line(cell: Cell) -> str:
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


def _beside(found: Mapping[str, Any]) -> dict[str, Score]:
    """Return what a terminal shows beside the scores."""
    beside = {}
    if attention := found.get("attention"):
        beside[title("background share").lower()] = attention["background share"]
    if sensitivity := found.get("sensitivity"):
        for name, scores in sensitivity["backgrounds"].items():
            beside[f"{title('changed').lower()}, {name}"] = scores["changed"]
    return beside
