"""Write the page of a study, as HTML and Markdown, and its values as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from faster_isnet.common.environment import machine
from faster_isnet.common.files import write_atomically
from faster_isnet.common.spreadsheets import safe_csv
from faster_isnet.plotting.heatmaps import png
from faster_isnet.reporting.evaluation_page import Illustration
from faster_isnet.reporting.markdown import markdown_table
from faster_isnet.reporting.pages import data_uri, environment, read_script, script_hash
from faster_isnet.reporting.result_tables import MISSING, Table
from faster_isnet.study.figures import figures_of
from faster_isnet.study.results import DataResult, MethodResult, collect
from faster_isnet.study.run_study import EntryOutcome
from faster_isnet.study.settings import StudySettings
from faster_isnet.study.tables import overviews_of, tables_of

PLOTS = "plots"
MARKDOWN, HTML, JSON = "study.md", "report.html", "study.json"
MEANS, RUNS = "study.csv", "runs.csv"
_OVER_SEEDS = (
    "Intervals are Student's t over seeds: they show how much a training varies on these images, "
    "not how much other images would."
)
_OVER_FOLDS = (
    "Of the images that are divided each is tested on in one of {} folds; other test sets are the "
    "same in all. Intervals are Student's t over the folds, with the correction of Nadeau and "
    "Bengio (2003), since the folds share most of their training images."
)
_QUANTITIES = (
    "Relevance is that of the predicted class, the mean over the test sets.",
    "Times are those of the machine that ran the study: of training with validation in all, and "
    "of an epoch without validation; of a prediction, for one image at a time.",
)


@dataclass(frozen=True)
class Section:
    """What the page shows of one data set or all: tables, and figures with their files' paths."""

    name: str
    tables: list[Table]
    figures: list[Illustration]
    files: list[str]


@dataclass(frozen=True)
class Report:
    """The text of a study's page, and the page's file."""

    text: str
    html: Path


def write_report(out: Path, settings: StudySettings, outcomes: Sequence[EntryOutcome]) -> Report:
    """Write ``report.html``, ``study.md``, ``study.csv``, ``runs.csv`` and ``study.json``.

    Parameters
    ----------
    out
        The folder; files of these names are replaced, each at once.
    settings
        Of the study.
    outcomes
        Of :func:`~faster_isnet.study.run_study`.
    """
    results = collect(outcomes, settings.baseline)
    sections = [_section(out, data, settings.baseline) for data in results]
    if len(results) > 1:
        tables = overviews_of(results, settings.baseline)
        sections.insert(0, Section("All data sets", tables, [], []))
    text = _markdown(sections, settings)
    write_atomically(out / MARKDOWN, text.encode())
    write_atomically(out / HTML, _html(sections, settings).encode())
    write_atomically(out / MEANS, safe_csv(pd.DataFrame(_mean_rows(results))))
    write_atomically(out / RUNS, safe_csv(pd.DataFrame(_run_rows(results))))
    content = {
        "settings": asdict(settings),
        "machine": machine(),
        "data": {data.name: _json(data) for data in results},
    }
    write_atomically(out / JSON, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return Report(text, out / HTML)


def _section(out: Path, data: DataResult, baseline: str) -> Section:
    illustrations, paths = [], []
    for name, (figure, caption) in figures_of(data, baseline).items():
        path, content = Path(PLOTS, f"{data.name}-{name}.png"), png(figure)
        write_atomically(out / path, content)
        illustrations.append(Illustration(data_uri(content), caption, caption))
        paths.append(path.as_posix())
    return Section(data.name, tables_of(data, baseline), illustrations, paths)


def _headline(settings: StudySettings) -> str:
    counts = (len(settings.methods), len(settings.data), len(settings.seeds))
    names = ("method", "data set", "seed" if settings.folds is None else "fold")
    parts = [f"{n} {name}{'s' if n > 1 else ''}" for n, name in zip(counts, names, strict=True)]
    how = "with" if settings.folds is None else "in"
    return f"{parts[0]} on {parts[1]} {how} {parts[2]}"


def _introduction(settings: StudySettings) -> list[str]:
    over = _OVER_SEEDS if settings.folds is None else _OVER_FOLDS.format(settings.folds)
    return [f"{over} {_QUANTITIES[0]}", *_QUANTITIES[1:]]


def _markdown(sections: Sequence[Section], settings: StudySettings) -> str:
    parts = [f"# {_headline(settings)}", *_introduction(settings)]
    for section in sections:
        parts.append(f"## {section.name}")
        parts += map(markdown_table, section.tables)
        for path, figure in zip(section.files, section.figures, strict=True):
            parts.append(f"![{figure.caption}](<{path}>)")
    parts += ["## Settings", f"```yaml\n{_settings_text(settings)}```"]
    return "\n\n".join(parts) + "\n"


def _html(sections: Sequence[Section], settings: StudySettings) -> str:
    script = read_script("tables.js")
    page = environment("faster_isnet.study").get_template("study.html.jinja")
    return page.render(
        headline=_headline(settings),
        introduction=_introduction(settings),
        sections=sections,
        settings=_settings_text(settings),
        missing=MISSING,
        script=script,
        script_hash=script_hash(script),
    )


def _settings_text(settings: StudySettings) -> str:
    plain = json.loads(json.dumps(asdict(settings)))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _mean_rows(results: Sequence[DataResult]) -> list[dict[str, Any]]:
    """Return a row for each data set, method and quantity."""
    return [
        {
            "data": data.name,
            "method": name,
            "quantity": quantity.name,
            "runs": len(method.runs),
            **_columns("", method, quantity.name),
            **_columns("difference_", method, quantity.name),
        }
        for data in results
        for name, method in data.methods.items()
        for quantity in data.quantities
    ]


def _columns(prefix: str, method: MethodResult, quantity: str) -> dict[str, float | None]:
    score = (method.differences if prefix else method.means).get(quantity)
    names = {"mean": "value", "low": "low", "high": "high"}
    return {
        prefix + name: None if score is None else getattr(score, attribute)
        for name, attribute in names.items()
    }


def _run_rows(results: Sequence[DataResult]) -> list[dict[str, Any]]:
    """Return a row for each run, also for those that failed."""
    rows = []
    for data in results:
        for name, method in data.methods.items():
            for seed in method.outcome.entry.settings.seeds:
                run = method.runs.get(seed)
                values = {} if run is None else run.values
                error = "" if run is not None else _error(method, seed)
                row = {"data": data.name, "method": name, "seed": seed, "error": error}
                rows.append({**row, **{q.name: values.get(q.name) for q in data.quantities}})
    return rows


def _error(method: MethodResult, seed: int) -> str:
    failures = method.outcome.failures
    return failures.get(str(seed), failures.get("search", ""))


def _json(data: DataResult) -> dict[str, Any]:
    return {
        name: {
            "options": {} if (found := method.outcome.found) is None else dict(found.options),
            "trials": [] if found is None else [asdict(trial) for trial in found.trials],
            "failures": dict(method.outcome.failures),
            "runs": {str(seed): dict(run.values) for seed, run in method.runs.items()},
            "means": {quantity: asdict(score) for quantity, score in method.means.items()},
            "differences": {name: asdict(score) for name, score in method.differences.items()},
        }
        for name, method in data.methods.items()
    }
