"""One page of what tests found, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from matplotlib.figure import Figure

from faster_isnet.common.files import write_atomically
from faster_isnet.evaluation.evaluation_files import TestedRun
from faster_isnet.plotting.heatmaps import percent
from faster_isnet.reporting import figures, tables
from faster_isnet.reporting.pages import data_uri, environment, script_hash

Differences = Mapping[str, Mapping[str, Mapping[str, Any]]]


def write_report(
    path: str | Path, runs: Sequence[TestedRun], differences: Differences | None = None
) -> Path:
    """Write the page; an older one at ``path`` stays whole if anything fails.

    Parameters
    ----------
    path
        The HTML file; missing folders are made.
    runs
        One or more, of the same classes, each with a name of its own.
    differences
        By data set and run, what each has more than the first, see
        :func:`~faster_isnet.evaluation.differences`.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        If there are no runs, their classes differ, two have one name, or a file of theirs is
        damaged.
    """
    return write_atomically(path, render_report(runs, differences).encode())


def render_report(runs: Sequence[TestedRun], differences: Differences | None = None) -> str:
    """Return the page of :func:`write_report`, which has the parameters and errors."""
    check_runs(runs)
    script = files("faster_isnet.reporting").joinpath("templates", "tables.js").read_text("utf-8")
    page = environment().get_template("tests.html.jinja")
    return page.render(
        headline=headline(runs),
        names=[run.name for run in runs],
        runs=runs,
        class_names=runs[0].class_names,
        task=runs[0].metrics["task"],
        level=runs[0].metrics["settings"]["level"],
        sections=[_section(runs, name, (differences or {}).get(name, {})) for name in _sets(runs)],
        missing=tables.MISSING,
        script=script,
        script_hash=script_hash(script),
    )


def check_runs(runs: Sequence[TestedRun]) -> None:
    """Raise ``ValueError`` unless runs can stand beside each other."""
    if not runs:
        raise ValueError("there are no runs to report")
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{names.count(twice[0])} runs are called {twice[0]!r}; test them again under names of "
            "their own: --name"
        )
    for run in runs[1:]:
        if run.class_names != runs[0].class_names:
            raise ValueError(
                f"the classes of {runs[0].name!r} are {runs[0].class_names}, those of "
                f"{run.name!r} {run.class_names}; compare runs of the same classes"
            )


def headline(runs: Sequence[TestedRun]) -> str:
    """Return what was found on the first data set in a sentence for each run."""
    data = next(iter(_sets(runs)))
    sentences = []
    for run in runs:
        if data not in run.sets:
            continue
        found = run.sets[data]
        sentence = f"{run.name} is right on {percent(found['scores']['accuracy']['value'])}"
        if found["attention"]:
            share = percent(found["attention"]["background share"]["value"])
            sentence += f" with {share} of its relevance in the background"
        sentences.append(sentence + ".")
    return " ".join(sentences)


def _sets(runs: Sequence[TestedRun]) -> list[str]:
    """Return the names of all data sets, those of the first run first."""
    return list(dict.fromkeys(name for run in runs for name in run.sets))


def _section(
    runs: Sequence[TestedRun], data: str, differences: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return all that the page says of one data set."""
    tested = [run for run in runs if data in run.sets]
    attentive = [run for run in tested if run.sets[data]["attention"]]
    sensitive = [run for run in tested if run.sets[data]["sensitivity"]]
    return {
        "name": data,
        "overall": tables.overall_table(tested, data),
        "differences": tables.difference_table(tested, differences) if differences else None,
        "classes": tables.class_table(tested, data, differences),
        "curves": [
            _figure(figure, "ROC curves", f"{name} against others", name)
            for name, figure in figures.roc_figures(tested, data).items()
        ],
        "confusions": [
            _figure(figures.confusion_figure(run, data), "Confusion matrix", run.name)
            for run in tested
        ],
        "attention": tables.attention_table(attentive, data) if attentive else None,
        "attention_bars": _bars(figures.attention_figure, attentive, data),
        "sensitivity": tables.sensitivity_table(sensitive, data) if sensitive else None,
        "sensitivity_bars": _bars(figures.sensitivity_figure, sensitive, data),
        "examples": _examples(tested, data),
        "worst": [
            {"name": run.name, "pictures": shown}
            for run in tested
            if (shown := _pictures(run, data, "worst"))
        ],
    }


def _figure(
    figure: Figure, what: str, caption: str, class_name: str | None = None
) -> dict[str, Any]:
    alt = f"{what}: {caption}"
    return {"uri": data_uri(figure), "alt": alt, "caption": caption, "class_name": class_name}


def _bars(
    draw: Callable[[Sequence[TestedRun], str], Figure], runs: Sequence[TestedRun], data: str
) -> list[dict[str, Any]]:
    return [_figure(draw(runs, data), "Bars", "the same, with intervals")] if runs else []


def _pictures(run: TestedRun, data: str, kind: str) -> list[dict[str, Any]]:
    return [
        {
            **picture,
            "run": run.name,
            "caption": run.name if kind == "example" else f"true: {picture['label']}",
            "uri": data_uri(run.picture(picture["file"])),
        }
        for picture in run.sets[data]["pictures"]
        if picture["kind"] == kind
    ]


def _examples(runs: Sequence[TestedRun], data: str) -> list[dict[str, Any]]:
    """Return the examples, each as all runs see it."""
    by_image: dict[str, dict[str, Any]] = {}
    for run in runs:
        for picture in _pictures(run, data, "example"):
            shown = {"image": PurePath(picture["image"]).name, "label": picture["label"]}
            example = by_image.setdefault(picture["image"], {**shown, "pictures": []})
            example["pictures"].append(picture)
    return list(by_image.values())
