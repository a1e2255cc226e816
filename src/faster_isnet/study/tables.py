"""Make the tables of a study, for its page and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence

from faster_isnet.reporting.result_tables import (
    MISSING,
    Cell,
    Column,
    Row,
    Table,
    difference_cell,
    score_cell,
)
from faster_isnet.study.results import (
    COSTS,
    RELATIVE_TOTAL,
    WORST_BACKGROUND,
    WORST_SET,
    DataResult,
    MethodResult,
    Quantity,
)

_OVERVIEWS = {
    WORST_SET: "The lowest accuracy of the test sets",
    WORST_BACKGROUND: "The lowest accuracy with a replaced background",
    RELATIVE_TOTAL: "Time of the whole training, relative to {baseline}",
}


def overviews_of(results: Sequence[DataResult], baseline: str) -> list[Table]:
    """Return tables of all methods on all data sets, one for each of the main quantities."""
    methods = dict.fromkeys(name for data in results for name in data.methods)
    columns = [Column("Method"), *(Column(data.name) for data in results)]
    tables = []
    for name, title in _OVERVIEWS.items():
        measure = next((q.measure for d in results for q in d.quantities if q.name == name), None)
        if measure is None:
            continue
        rows = []
        for method in methods:
            means = [data.methods[method].means.get(name) for data in results]
            rows.append(Row([Cell(method), *(score_cell(mean, measure) for mean in means)]))
        caption = f"{title.format(baseline=baseline)}: {_over_runs(results[0])}"
        tables.append(Table(caption, columns, rows))
    return tables


def tables_of(data: DataResult, baseline: str) -> list[Table]:
    """Return the tables of a data set: values by group, differences, searches and failures."""
    tables = [_values(data, group) for group in dict.fromkeys(q.group for q in data.quantities)]
    if any(method.differences for method in data.methods.values()):
        tables.append(_differences(data, baseline))
    if any(_trials(method) for method in data.methods.values()):
        tables.append(_searches(data))
    if any(method.outcome.failures for method in data.methods.values()):
        tables.append(_failures(data))
    return tables


def _values(data: DataResult, group: str) -> Table:
    quantities = [quantity for quantity in data.quantities if quantity.group == group]
    rows = []
    for name, method in data.methods.items():
        seeds = len(method.outcome.entry.settings.seeds)
        runs = Cell(f"{len(method.runs)} of {seeds}", value=len(method.runs))
        cells = [score_cell(method.means[q.name], q.measure) for q in quantities]
        rows.append(Row([Cell(name), runs, *cells]))
    columns = [Column("Method"), Column("Runs"), *map(_column, quantities)]
    return Table(f"{group}: {_over_runs(data)}", columns, rows)


def _over_runs(data: DataResult) -> str:
    folds = _folds(data)
    what = "seeds" if folds is None else f"{folds} folds"
    return f"means of the runs, with 95 % intervals over {what}"


def _alike(data: DataResult) -> str:
    return "with the same seed" if _folds(data) is None else "in the same fold"


def _folds(data: DataResult) -> int | None:
    return next(iter(data.methods.values())).outcome.entry.settings.folds


def _differences(data: DataResult, baseline: str) -> Table:
    quantities = [quantity for quantity in data.quantities if quantity.group != COSTS]
    rows = [
        Row(
            [
                Cell(name),
                *(difference_cell(method.differences.get(q.name), q.measure) for q in quantities),
            ]
        )
        for name, method in data.methods.items()
        if name != baseline
    ]
    caption = (
        f"Differences to {baseline} {_alike(data)}, in percentage points; better or worse "
        "where the 95 % interval excludes 0"
    )
    return Table(caption, [Column("Method"), *map(_column, quantities)], rows)


def _searches(data: DataResult) -> Table:
    rows = []
    for name, method in data.methods.items():
        found = method.outcome.found
        trials, best, options = (
            (0, None, {}) if found is None else (len(found.trials), found.value, found.options)
        )
        text = ", ".join(f"{path}: {json.dumps(value)}" for path, value in options.items())
        rows.append(
            Row(
                [
                    Cell(name),
                    Cell(str(trials), value=trials),
                    Cell(MISSING if best is None else f"{best:.3f}", value=best),
                    Cell(text or "as given"),
                ]
            )
        )
    settings = next(iter(data.methods.values())).outcome.entry.settings.search
    columns = [Column("Method"), Column("Trials"), Column("Best"), Column("Options")]
    caption = f"Options searched on validation images; objective: {settings.objective}"
    return Table(caption, columns, rows)


def _failures(data: DataResult) -> Table:
    rows = [
        Row([Cell(name), Cell(which if which == "search" else f"seed {which}"), Cell(error)])
        for name, method in data.methods.items()
        for which, error in method.outcome.failures.items()
    ]
    return Table("Runs that are missing", [Column("Method"), Column("Run"), Column("Why")], rows)


def _trials(method: MethodResult) -> Sequence[object]:
    return () if method.outcome.found is None else method.outcome.found.trials


def _column(quantity: Quantity) -> Column:
    return Column(quantity.name, quantity.measure.description)
