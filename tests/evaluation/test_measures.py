"""A measure that is declared outside of the package is in everything that its own are in."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from faster_isnet.evaluation import MEASURES, Score, differences, scores
from faster_isnet.evaluation.evaluator import EvaluationSettings, Evaluator
from faster_isnet.evaluation.json_format import differences_to_json
from faster_isnet.evaluation.measures import (
    AttentionMeasure,
    ClassMeasure,
    OverallMeasure,
    SensitivityMeasure,
)
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation, save_evaluation
from faster_isnet.reporting import text_table
from faster_isnet.reporting.evaluation_page import render_evaluation_page
from toy_images import CLASSES, Reader, toy_dataset


def brier(outcomes):
    p = outcomes.predictions
    each = ((p.probabilities - p.has_class) ** 2).sum(1)
    return outcomes.weights @ each / outcomes.weights.sum(1)


def prevalence(outcomes):
    return outcomes.weights @ outcomes.predictions.has_class / outcomes.weights.sum(1)[:, None]


MINE = (
    OverallMeasure(
        name="squared_error", title="Squared error", unit="", better="lower", function=brier
    ),
    ClassMeasure(
        name="prevalence", title="Prevalence", better=None, interval=False, function=prevalence
    ),
    AttentionMeasure(
        name="peak_inside",
        title="Peak inside",
        highlighted=True,
        function=lambda heatmaps, masks: masks.flatten(1).gather(
            1, heatmaps.sum((1, 2)).flatten(1).argmax(1, True)
        )[:, 0],
    ),
    SensitivityMeasure(
        name="confidence",
        title="Confidence",
        better=None,
        highlighted=True,
        compares=False,
        function=lambda change: change.after.probabilities.max(1),
    ),
)


class Headings(HTMLParser):
    """The heads of a page's columns, the help of each, and the descriptions of pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.heads: set[str] = set()
        self.alts: set[str] = set()
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "th" and dict(attrs).get("scope") == "col"
        self.alts |= {value for name, value in attrs if name == "alt"}

    def handle_data(self, data):
        if self.inside:
            self.heads.add(data)
            self.inside = False


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> list[SavedEvaluation]:
    """Of a classifier that reads the foreground and one that reads the background."""
    root = tmp_path_factory.mktemp("measures")
    dataset = toy_dataset(root / "images")
    settings = EvaluationSettings(resamples=30, examples=0, worst=0, accelerator="cpu")
    saved = []
    for name in ("foreground", "background"):
        evaluator = Evaluator(
            Reader(name == "foreground"), CLASSES, settings, measures=(*MEASURES, *MINE)
        )
        found = {"test": evaluator(dataset)}
        save_evaluation(
            root / name, found, evaluator, name=name, checkpoint=Path("a.ckpt"), seconds=1
        )
        saved.append(SavedEvaluation.load(root / name))
    return saved


def test_they_are_in_the_json_and_are_read_again(evaluations: list[SavedEvaluation]) -> None:
    content = json.loads((evaluations[0].folder / "metrics.json").read_text())["sets"]["test"]
    assert set(content["scores"]["squared error"]) == {"value", "low", "high"}
    assert content["scores"]["macro"]["prevalence"]["value"] == pytest.approx(1 / 3)
    assert content["scores"]["classes"]["dark"]["prevalence"]["low"] is None
    assert content["attention"]["classes"]["dark"]["peak inside"]["value"] == 1
    assert content["sensitivity"]["confidence"]["value"] > 0.7
    assert set(content["sensitivity"]["backgrounds"]["noise"]) >= {"confidence", "changed"}
    foreground, background = (each.sets["test"] for each in evaluations)
    assert foreground.scores.overall["squared_error"].value < 0.1
    assert background.attention.overall["peak_inside"] == Score(0, 0, 0)


def test_they_are_in_the_tables_and_plots_of_the_page(evaluations: list[SavedEvaluation]) -> None:
    page = Headings(render_evaluation_page(evaluations))
    assert page.heads >= {
        "Squared error",
        "Prevalence",
        "Prevalence, macro",
        "Peak inside",
        "Confidence",
    }
    assert page.alts >= {"Bars: Peak inside, with intervals", "Bars: Confidence, with intervals"}
    text = text_table(evaluations)
    for line in ("squared error", "prevalence, macro", "peak inside", "confidence, other image"):
        assert line in text


def test_they_are_in_the_comparison(evaluations: list[SavedEvaluation]) -> None:
    first, second = (each.predictions("test") for each in evaluations)
    found = differences(first, second, resamples=30, measures=(*MEASURES, *MINE))
    values = [
        scores(each, resamples=2, measures=MINE).overall["squared_error"].value
        for each in (first, second)
    ]
    assert found.overall["squared_error"].value == pytest.approx(values[1] - values[0])
    assert found.classes["dark"].scores["prevalence"] == Score(0)
    assert differences_to_json(found)["classes"]["dark"]["prevalence"]["value"] == 0
    alone, compared = (
        render_evaluation_page(evaluations, differences)
        for differences in (None, {"test": {"background": found}})
    )
    assert compared.count(">Squared error<") == alone.count(">Squared error<") + 1


def test_a_page_of_saved_evaluations_needs_no_declaration(
    evaluations: list[SavedEvaluation],
) -> None:
    """How a measure is shown is in the file, so another process can make the page."""
    (squared_error,) = [m for m in evaluations[0].measures if m.name == "squared_error"]
    assert not isinstance(squared_error, OverallMeasure)
    assert squared_error.show(0.123456) == "0.123"
    assert squared_error.improves(Score(-0.2, -0.3, -0.1)) is True


def test_each_measure_of_the_package_is_declared_once_and_described() -> None:
    keys = [(measure.kind, measure.name) for measure in MEASURES]
    assert len(set(keys)) == len(keys)
    assert all(measure.title and measure.description for measure in MEASURES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "two words"}, "must be an identifier"),
        ({"name": "classes"}, r"none of \['images', .*'classes'"),
        ({"better": "more"}, "unknown direction of a measure 'more'"),
        ({"kind": "clas"}, "unknown kind of measure 'clas'; did you mean 'class'"),
    ],
)
def test_wrong_declarations(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OverallMeasure(**({"name": "a", "title": "A", "function": np.sum} | wrong))
