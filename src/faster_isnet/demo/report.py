"""Write one self-contained HTML page, and a picture, of what a demo run found."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from faster_isnet.common.files import write_atomically
from faster_isnet.demo.examples import Example
from faster_isnet.demo.figures import accuracy_bars, background_bars, overview_figure
from faster_isnet.demo.metrics import TEST_SETS, DemoMetrics, ModelScores
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

_IN_SENTENCES = {"standard": "the standard classifier", "isnet": "the ISNet"}


@dataclass(frozen=True)
class HeatmapPicture:
    """A model's heatmap and prediction, as the page shows them."""

    model: str
    predicted: str
    right: bool
    uri: str


@dataclass(frozen=True)
class ExamplePicture:
    """An example, as the page shows it."""

    number: int
    caption: str
    truth: str
    uri: str
    heatmaps: list[HeatmapPicture]


def write_report(
    path: str | Path,
    metrics: DemoMetrics,
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
        What the run found.
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
    ValueError
        If an example lacks a model, or a class has no name.
    """
    page = render_report(metrics, examples, class_names=class_names)
    return write_atomically(path, page.encode())


def write_overview(
    path: str | Path,
    metrics: DemoMetrics,
    examples: Sequence[Example],
    class_names: Sequence[str],
) -> Path:
    """Write the PNG of :func:`~faster_isnet.demo.figures.overview_figure`, e.g. for a README.

    Parameters, result and errors are those of :func:`write_report`, but only the first four
    examples are shown.
    """
    _check_models(examples, metrics.models)
    return write_atomically(path, png(overview_figure(metrics.models, examples, class_names)))


def render_report(
    metrics: DemoMetrics, examples: Sequence[Example], *, class_names: Sequence[str]
) -> str:
    """Return the page of :func:`write_report`, which has the parameters and errors."""
    _check_models(examples, metrics.models)
    pages = environment("faster_isnet.demo")
    pages.filters.update(display_name=display_name, stress=_stress_numbers)
    return pages.get_template("demo.html.jinja").render(
        headline=demo_headline(metrics.models),
        metrics=metrics,
        test_sets=TEST_SETS,
        quantile=QUANTILE,
        accuracy_picture=data_uri(accuracy_bars(metrics.models)),
        background_picture=data_uri(background_bars(metrics.models)),
        examples=[
            _example_picture(number, example, list(metrics.models), class_names)
            for number, example in enumerate(examples, 1)
        ],
    )


def demo_headline(models: Mapping[str, ModelScores]) -> str:
    """Return the finding in one sentence.

    Examples
    --------
    >>> demo_headline({"standard": ModelScores(1, 1, 0.03, 0), "isnet": ModelScores(1, 1, 0.98, 0)})
    'With the mark moved to a wrong class, the standard classifier is right on 3.0 % of images, \
the ISNet on 98.0 %.'
    """
    (first, scores), *others = models.items()
    parts = [f"{_in_sentence(first)} is right on {percent(scores.deceiving)} of images"]
    parts += [f"{_in_sentence(model)} on {percent(scores.deceiving)}" for model, scores in others]
    return f"With the mark moved to a wrong class, {', '.join(parts)}."


def _in_sentence(model: str) -> str:
    return _IN_SENTENCES.get(model, model)


def _stress_numbers(sentence: str) -> Markup:
    """Make the percentages of a sentence bold and unbreakable."""
    return Markup(re.sub(r"[\d.]+ %", r"<strong>\g<0></strong>", str(escape(sentence))))


def _check_models(examples: Sequence[Example], models: Collection[str]) -> None:
    for number, example in enumerate(examples, 1):
        if set(example.heatmaps) != set(models):
            raise ValueError(
                f"example {number} has heatmaps of {sorted(example.heatmaps)}, "
                f"metrics has the models {sorted(models)}"
            )


def _example_picture(
    number: int, example: Example, models: Sequence[str], class_names: Sequence[str]
) -> ExamplePicture:
    return ExamplePicture(
        number,
        example.caption,
        class_name(class_names, example.label),
        data_uri(image_figure(example.image, example.mask)),
        [
            HeatmapPicture(
                model,
                class_name(class_names, example.predictions[model]),
                example.predictions[model] == example.label,
                data_uri(heatmap_figure(example.image, example.heatmaps[model], example.mask)),
            )
            for model in models
        ],
    )
