"""One self-contained HTML page that shows what a demo run found."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from faster_isnet.common.files import write_atomically
from faster_isnet.demo.figures import (
    accuracy_bars,
    background_bars,
    overview_figure,
)
from faster_isnet.demo.results import TEST_SETS, Example, model_scores
from faster_isnet.plotting.heatmaps import (
    QUANTILE,
    class_name,
    display_name,
    heatmap_figure,
    image_figure,
    percent,
    png,
)
from faster_isnet.reporting.pages import data_uri, environment

_SUBJECTS = {"standard": "the standard classifier", "isnet": "the ISNet"}


def write_report(
    path: str | Path,
    metrics: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    class_names: Sequence[str],
) -> Path:
    """Write the report; an older one at ``path`` stays whole if anything fails.

    Parameters
    ----------
    path
        The HTML file to write; missing folders are made.
    metrics
        The content of ``metrics.json``: scores of each model (see
        :func:`~faster_isnet.demo.results.model_scores`), ``settings`` (name: value) and ``seconds``
        (name: run time).
    examples
        Test images to show, each with heatmaps of exactly the models in ``metrics``; may be empty.
    class_names
        Name of each class, by index.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    TypeError
        If an entry of ``metrics`` is of the wrong type.
    ValueError
        If something is missing from ``metrics`` or out of range, if an example lacks a model, or
        if a class has no name.
    """
    page = render_report(metrics, examples, class_names=class_names)
    return write_atomically(path, page.encode())


def write_overview(
    path: str | Path,
    metrics: Mapping[str, Any],
    examples: Sequence[Example],
    class_names: Sequence[str],
) -> Path:
    """Write the PNG of :func:`~faster_isnet.demo.figures.overview_figure`, e.g. for a README.

    Parameters, result and errors are those of :func:`write_report`, but ``settings`` and
    ``seconds`` are not needed, and only the first four examples are shown.
    """
    scores = model_scores(metrics)
    _check_models(examples, scores)
    return write_atomically(path, png(overview_figure(scores, examples, class_names)))


def render_report(
    metrics: Mapping[str, Any], examples: Sequence[Example], *, class_names: Sequence[str]
) -> str:
    """Return the page of :func:`write_report`, which has the parameters and errors."""
    scores = model_scores(metrics)
    _check_models(examples, scores)
    settings = _checked_table(metrics, "settings")
    seconds = _checked_table(metrics, "seconds")
    for name, value in seconds.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
            raise ValueError(f"metrics['seconds'][{name!r}] must be a finite number, got {value!r}")
    pages = environment("faster_isnet.demo")
    pages.filters.update(display_name=display_name, stress=_stress_numbers)
    return pages.get_template("demo.html.jinja").render(
        headline=headline(scores),
        scores=scores,
        test_sets=TEST_SETS,
        quantile=QUANTILE,
        gaps={model: _largest_gap(score) for model, score in scores.items()},
        accuracy_picture=data_uri(accuracy_bars(scores)),
        background_picture=data_uri(background_bars(scores)),
        rows=[_example_row(n, e, list(scores), class_names) for n, e in enumerate(examples, 1)],
        settings=settings,
        seconds=seconds,
    )


def headline(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return the finding in one sentence.

    Examples
    --------
    >>> headline({"standard": {"deceiving": 0.03}, "isnet": {"deceiving": 0.98}})
    'With the mark moved to a wrong class, the standard classifier is right on 3.0 % of images, \
the ISNet on 98.0 %.'
    """
    (first, score), *others = scores.items()
    parts = [f"{_subject(first)} is right on {percent(score['deceiving'])} of images"]
    parts += [f"{_subject(model)} on {percent(score['deceiving'])}" for model, score in others]
    return f"With the mark moved to a wrong class, {', '.join(parts)}."


def _subject(model: str) -> str:
    return _SUBJECTS.get(model, model)


def _largest_gap(score: Mapping[str, float]) -> float:
    accuracies = [score[name] for name in TEST_SETS]
    return max(accuracies) - min(accuracies)


def _stress_numbers(sentence: str) -> Markup:
    """Make the percentages of a sentence bold and unbreakable."""
    return Markup(re.sub(r"[\d.]+ %", r"<strong>\g<0></strong>", str(escape(sentence))))


def _checked_table(metrics: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if key not in metrics:
        raise ValueError(f"metrics lacks {key!r}; its keys: {list(metrics)}")
    if not isinstance(metrics[key], Mapping):
        raise TypeError(f"metrics[{key!r}] must be a mapping, got {metrics[key]!r}")
    return dict(metrics[key])


def _check_models(examples: Sequence[Example], models: Collection[str]) -> None:
    for number, example in enumerate(examples, 1):
        if set(example.heatmaps) != set(models):
            raise ValueError(
                f"example {number} has heatmaps of {sorted(example.heatmaps)}, "
                f"metrics has the models {sorted(models)}"
            )


def _example_row(
    number: int, example: Example, models: Sequence[str], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return what the page says and shows of one example."""
    return {
        "number": number,
        "caption": example.caption,
        "truth": class_name(class_names, example.label),
        "picture": data_uri(image_figure(example.image, example.mask)),
        "verdicts": [
            {
                "model": model,
                "predicted": class_name(class_names, example.predictions[model]),
                "right": example.predictions[model] == example.label,
                "picture": data_uri(
                    heatmap_figure(example.image, example.heatmaps[model], example.mask)
                ),
            }
            for model in models
        ],
    }
