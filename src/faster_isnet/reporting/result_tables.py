"""Make the tables of evaluations, for a page and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.measures import Measure
from faster_isnet.evaluation.results import Differences, Results, ScoreByName
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation

MISSING = "–"
_NAMED = 10  # classes in a sentence


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the small print, and the value to sort by.

    ``improves`` is whether a difference is for the better; ``None`` if that is not known.
    """

    text: str
    detail: str = ""
    value: float | None = None
    improves: bool | None = None


@dataclass(frozen=True)
class Column:
    """The head of a column, and what its values mean."""

    title: str
    help: str = ""


@dataclass(frozen=True)
class Row:
    """A row, and the class that it is of, if it is of one."""

    cells: list[Cell]
    class_name: str | None = None


@dataclass(frozen=True)
class Table:
    """A table, of which a column is either of names or of numbers."""

    caption: str
    columns: list[Column]
    rows: list[Row]


def measures_of(evaluations: Iterable[SavedEvaluation], kind: str) -> list[Measure]:
    """Return the measures of a kind that any of the evaluations has, each once."""
    found: dict[str, Measure] = {}
    for evaluation in evaluations:
        for measure in evaluation.measures:
            if measure.kind == kind:
                found.setdefault(measure.name, measure)
    return list(found.values())


def overall_table(evaluations: Sequence[SavedEvaluation], data: str) -> Table:
    """Return a row for each classifier with its scores over all classes."""
    overall, by_class = (measures_of(evaluations, kind) for kind in ("overall", "class"))
    rows = []
    for evaluation in evaluations:
        scores = evaluation.sets[data].scores
        cells = [*_cells(scores.overall, overall), *_cells(scores.macro, by_class)]
        rows.append(Row([Cell(evaluation.name), *cells]))
    first = evaluations[0].sets[data].scores
    caption = f"{first.images} images of {first.groups} groups"
    return Table(caption, [Column("Classifier"), *_over_classes(overall, by_class)], rows)


def difference_table(
    evaluations: Sequence[SavedEvaluation], differences: Mapping[str, Differences]
) -> Table:
    """Return how each other classifier differs from the first; ``differences`` are by its name."""
    overall, by_class = (measures_of(evaluations, kind) for kind in ("overall", "class"))
    rows = []
    for name, found in differences.items():
        cells = [
            *(difference_cell(found.overall.get(m.name), m) for m in overall),
            *(difference_cell(found.macro.get(m.name), m) for m in by_class),
        ]
        rows.append(Row([Cell(name), *cells]))
    caption = (
        f"Difference to {evaluations[0].name} on the same images, in percentage points; better or "
        "worse where the interval excludes 0"
    )
    return Table(caption, [Column("Classifier"), *_over_classes(overall, by_class)], rows)


def class_table(
    evaluations: Sequence[SavedEvaluation], data: str, differences: Mapping[str, Differences]
) -> Table:
    """Return a row for each class and classifier, with p-values of differences if compared."""
    measures = measures_of(evaluations, "class")
    tested = [m for m in measures if _has_p(differences.values(), m)]
    rows = []
    for name in evaluations[0].class_names:
        for evaluation in evaluations:
            found = evaluation.sets[data].scores.classes[name]
            cells = [Cell(name), Cell(evaluation.name), count_cell(found.images)]
            cells += _cells(found.scores, measures)
            if compared := differences.get(evaluation.name):
                cells += [_p_cell(compared.classes[name].scores.get(m.name)) for m in tested]
            else:
                cells += [Cell(MISSING) for _ in tested]
            rows.append(Row(cells, name))
    columns = [Column("Class"), Column("Classifier"), Column("Images"), *_columns(measures)]
    columns += [
        Column(f"p ({m.title} as {evaluations[0].name})", "two-sided p-value of no difference")
        for m in tested
    ]
    return Table("Each class against all others", columns, rows)


def operating_table(evaluations: Sequence[SavedEvaluation], data: str) -> Table | None:
    """Return sensitivity and specificity at thresholds that were chosen on validation images."""
    share = Measure(name="share", kind="class", title="Share")
    rows = []
    for name in evaluations[0].class_names:
        for evaluation in evaluations:
            point = evaluation.sets[data].operating_points.get(name)
            if point is not None:
                reached = math.isfinite(point.threshold)
                threshold = Cell(f"{point.threshold:.3g}", "", point.threshold)
                threshold = threshold if reached else Cell(MISSING, "no threshold reaches it")
                scores = (point.sensitivity, point.specificity)
                cells = [Cell(name), Cell(evaluation.name), threshold]
                rows.append(Row([*cells, *(score_cell(each, share) for each in scores)], name))
    if not rows:
        return None
    columns = [
        Column("Class"),
        Column("Classifier"),
        Column("Threshold", "the lowest probability that assigns the class"),
        Column("Sensitivity", "share of the images with the class that are assigned it"),
        Column("Specificity", "share of the images without the class that are not assigned it"),
    ]
    aims = sorted(
        {
            f"{100 * evaluation.settings.specificity:g} %"
            for evaluation in evaluations
            if evaluation.sets[data].operating_points
        }
    )
    caption = (
        "Each class against all others, at the lowest threshold that has a specificity of "
        f"{' or '.join(aims)} on validation images"
    )
    return Table(caption, columns, rows)


def attention_table(evaluations: Sequence[SavedEvaluation], data: str) -> Table:
    """Return where each classifier's relevance lies, for all images and those of each class."""
    measures = measures_of(evaluations, "attention")
    rows = []
    for evaluation in evaluations:
        found = evaluation.sets[data].attention
        if found is None:
            continue
        cells = [Cell(evaluation.name), Cell("all"), count_cell(found.images)]
        rows.append(Row([*cells, *_cells(found.overall, measures)]))
        for name, of_class in found.classes.items():
            cells = [Cell(evaluation.name), Cell(name), count_cell(of_class.images)]
            rows.append(Row([*cells, *_cells(of_class.scores, measures)], name))
    columns = [Column("Classifier"), Column("Class"), Column("Images"), *_columns(measures)]
    return Table("Means over images with a mask, of heatmaps of the predicted class", columns, rows)


def sensitivity_table(evaluations: Sequence[SavedEvaluation], data: str) -> Table:
    """Return how other backgrounds change each classifier's predictions."""
    measures = measures_of(evaluations, "sensitivity")
    rows = []
    for evaluation in evaluations:
        found = evaluation.sets[data].sensitivity
        if found is None:
            continue
        for name, scores in found.backgrounds.items():
            rows.append(Row([Cell(evaluation.name), Cell(name), *_cells(scores, measures)]))
        untouched = [
            score_cell(found.untouched[m.name], m) if m.name in found.untouched else Cell(MISSING)
            for m in measures
        ]
        rows.append(Row([Cell(evaluation.name), Cell("untouched"), *untouched]))
    columns = [Column("Classifier"), Column("Background"), *_columns(measures)]
    return Table("Images with a mask; the foreground stays as it is", columns, rows)


def subgroup_tables(evaluations: Sequence[SavedEvaluation], data: str) -> list[Table]:
    """Return the scores of each subgroup, and where it looks and what other backgrounds do."""
    overall, by_class = (measures_of(evaluations, kind) for kind in ("overall", "class"))
    scored, looked = [], []
    for evaluation in evaluations:
        for column, values in evaluation.sets[data].subgroups.items():
            for value, found in values.items():
                name = [Cell(evaluation.name), Cell(f"{column}: {value}")]
                row = [*name, count_cell(found.scores.images)]
                row += _cells(found.scores.overall, overall)
                scored.append(Row([*row, *_cells(found.scores.macro, by_class)]))
                shown = _highlights([evaluation], found)
                count = count_cell(found.attention.images) if found.attention else Cell(MISSING)
                looked.append(([*name, count], shown))
    if not scored:
        return []
    head = [Column("Classifier"), Column("Subgroup"), Column("Images")]
    titles = list(dict.fromkeys(title for _, shown in looked for title in shown))
    rows = [Row([*name, *(shown.get(t, Cell(MISSING)) for t in titles)]) for name, shown in looked]
    background = Table(
        "Subgroups: images with a mask",
        [*head, *(Column(t[:1].upper() + t[1:]) for t in titles)],
        rows,
    )
    scores = Table("Subgroups, each by itself", [*head, *_over_classes(overall, by_class)], scored)
    return [scores, background] if titles else [scores]


def never_predicted(evaluation: SavedEvaluation, data: str) -> str:
    """Say which classes a classifier assigns to no image of a data set; nothing if there are none.

    Accuracy and AUC may look well although it knows fewer classes than there are.
    """
    if data not in evaluation.sets:
        return ""
    confusion = evaluation.sets[data].scores.confusion
    if confusion.multilabel:
        counts = [sum(row[1] for row in table) for table in confusion.tables]
    else:
        counts = [sum(column) for column in zip(*confusion.tables[0], strict=True)]
    names = [n for n, count in zip(evaluation.class_names, counts, strict=True) if not count]
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{evaluation.name} never predicts {', '.join(names[:_NAMED])}{more}."


def text_table(evaluations: Sequence[SavedEvaluation]) -> str:
    """Return tables for a terminal, one for each data set of the first evaluation."""
    parts = []
    for data in evaluations[0].sets:
        table = overall_table([each for each in evaluations if data in each.sets], data)
        cells = {row.cells[0].text: [_line(cell) for cell in row.cells[1:]] for row in table.rows}
        frame = pd.DataFrame(cells, index=[column.title.lower() for column in table.columns[1:]])
        for evaluation in evaluations:
            for name, cell in _text_rows(evaluation, data).items():
                frame.loc[name, evaluation.name] = _line(cell)
        remarks = [remark for e in evaluations if (remark := never_predicted(e, data))]
        parts.append(
            "\n".join([f"{data}: {table.caption}", frame.fillna(MISSING).to_string(), *remarks])
        )
    return "\n\n".join(parts)


def score_cell(score: Score | None, measure: Measure) -> Cell:
    """Return a score, with its interval or the reason why it has none."""
    if score is None:
        return Cell(MISSING, "not measured")
    if score.value is None:
        return Cell(MISSING, score.reason or "")
    text = measure.show(score.value)
    if score.low is None or score.high is None:
        return Cell(text, score.reason or "", score.value)
    return Cell(text, measure.show_interval(score.low, score.high), score.value)


def difference_cell(difference: Score | None, measure: Measure) -> Cell:
    """Return a difference, with its interval, and whether it is for the better."""
    if difference is None:
        return Cell(MISSING, "not compared")
    if difference.value is None:
        return Cell(MISSING, difference.reason or "")
    text = measure.show_difference(difference.value)
    if difference.low is None or difference.high is None:
        return Cell(text, difference.reason or "", difference.value)
    detail = measure.show_interval(difference.low, difference.high, difference=True)
    return Cell(text, detail, difference.value, measure.improves(difference))


def count_cell(count: int) -> Cell:
    """Return a number of images."""
    return Cell(str(count), value=count)


def _cells(scores: ScoreByName, measures: Iterable[Measure]) -> list[Cell]:
    return [score_cell(scores.get(measure.name), measure) for measure in measures]


def _columns(measures: Iterable[Measure], suffix: str = "") -> list[Column]:
    return [Column(measure.title + suffix, _help(measure)) for measure in measures]


def _over_classes(overall: Iterable[Measure], by_class: Iterable[Measure]) -> list[Column]:
    return [*_columns(overall), *_columns(by_class, ", macro")]


def _help(measure: Measure) -> str:
    direction = f"{measure.better} is better" if measure.better else ""
    return "; ".join(part for part in (measure.description, direction) if part)


def _has_p(differences: Iterable[Differences], measure: Measure) -> bool:
    return any(
        of_class.scores[measure.name].p is not None
        for found in differences
        for of_class in found.classes.values()
        if measure.name in of_class.scores
    )


def _p_cell(difference: Score | None) -> Cell:
    p = None if difference is None else difference.p
    if p is None:
        return Cell(MISSING)
    return Cell("< 0.001" if p < 0.001 else f"{p:.3f}", value=p)


def _line(cell: Cell) -> str:
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


def _text_rows(evaluation: SavedEvaluation, data: str) -> dict[str, Cell]:
    """Return what a terminal shows beside the scores: highlights, and accuracies of subgroups."""
    if data not in evaluation.sets:
        return {}
    results = evaluation.sets[data]
    found = _highlights([evaluation], results)
    for measure in measures_of([evaluation], "overall")[:1]:
        for column, values in results.subgroups.items():
            for value, each in values.items():
                name = f"{measure.title.lower()}, {column} {value} (n = {each.scores.images})"
                found[name] = score_cell(each.scores.overall.get(measure.name), measure)
    return found


def _highlights(evaluations: Sequence[SavedEvaluation], results: Results) -> dict[str, Cell]:
    """Return the highlighted measures of attention and sensitivity."""
    found: dict[str, Cell] = {}
    if results.attention:
        for m in _highlighted(evaluations, "attention"):
            found[m.title.lower()] = score_cell(results.attention.overall.get(m.name), m)
    if results.sensitivity:
        for m in _highlighted(evaluations, "sensitivity"):
            for name, scores in results.sensitivity.backgrounds.items():
                found[f"{m.title.lower()}, {name}"] = score_cell(scores.get(m.name), m)
    return found


def _highlighted(evaluations: Sequence[SavedEvaluation], kind: str) -> list[Measure]:
    return [m for m in measures_of(evaluations, kind) if m.highlighted]
