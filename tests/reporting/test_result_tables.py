"""Tables say what the metrics hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from faster_isnet.evaluation import MEASURES, Score
from faster_isnet.evaluation.measures import OverallMeasure
from faster_isnet.evaluation.results import Confusion
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.reporting.result_tables import (
    attention_table,
    class_table,
    difference_cell,
    difference_table,
    never_predicted,
    overall_table,
    score_cell,
    sensitivity_table,
    text_table,
)

ACCURACY = MEASURES[0]
LOSS = OverallMeasure(
    name="loss", title="Loss", unit="nats", better="lower", function=lambda o: o.weights.sum(1)
)


def test_a_score_and_what_has_none():
    cell = score_cell(Score(0.5, 0.25, 1.0), ACCURACY)
    assert (cell.text, cell.detail, cell.value) == ("50.0 %", "25.0 to 100.0", 0.5)
    few = score_cell(Score(0.5, reason="too few"), ACCURACY)
    assert (few.text, few.detail, few.value) == ("50.0 %", "too few", 0.5)
    none = score_cell(Score(None, reason="no image"), ACCURACY)
    assert (none.text, none.detail, none.value) == ("–", "no image", None)
    assert score_cell(None, ACCURACY).detail == "not measured"
    assert score_cell(Score(1.234, 1, 2), LOSS).text == "1.23 nats"
    assert score_cell(Score(1.234, 1, 2), LOSS).detail == "1 to 2"


def test_a_difference_is_for_the_better_as_its_measure_has_it():
    less = difference_cell(Score(-0.015, -0.03, 0.002), ACCURACY)
    assert (less.text, less.detail, less.value) == ("-1.5", "-3.0 to +0.2", -0.015)
    assert less.improves is None
    assert difference_cell(Score(-0.015, -0.03, -0.002), ACCURACY).improves is False
    assert difference_cell(Score(0.015, 0.002, 0.03), ACCURACY).improves is True
    lower = difference_cell(Score(-0.5, -1, -0.25), LOSS)
    assert (lower.text, lower.detail, lower.improves) == ("-0.5", "-1 to -0.25", True)
    neither = replace(LOSS, better=None)
    assert difference_cell(Score(-0.5, -1, -0.25), neither).improves is None
    assert difference_cell(Score(None, reason="no value"), LOSS).detail == "no value"


def test_classes_that_are_never_predicted_are_named(evaluations: list[SavedEvaluation]):
    first = evaluations[0]
    assert never_predicted(first, "elsewhere and nowhere") == ""

    def with_counts(confusion: Confusion) -> SavedEvaluation:
        found = first.sets["test"]
        changed = replace(found, scores=replace(found.scores, confusion=confusion))
        return replace(first, sets={"test": changed})

    a, b, c = first.class_names
    one = with_counts(Confusion((((3, 0, 1), (2, 0, 0), (1, 0, 1)),), multilabel=False))
    assert never_predicted(one, "test") == f"{first.name} never predicts {b}."
    assert never_predicted(one, "test") in text_table([one])
    never, always = ((4, 0), (2, 0)), ((0, 4), (1, 1))
    several = with_counts(Confusion((never, always, never), multilabel=True))
    assert never_predicted(several, "test") == f"{first.name} never predicts {a}, {c}."
    assert never_predicted(with_counts(Confusion((always,) * 3, multilabel=True)), "test") == ""


def test_every_table_is_as_wide_as_its_head_and_has_a_row_for_each(
    evaluations: list[SavedEvaluation], compared: dict
):
    expected = {
        "overall": (overall_table(evaluations, "test"), 2),
        "differences": (difference_table(evaluations, compared["test"]), 1),
        "classes": (class_table(evaluations, "test", compared["test"]), 6),
        "classes of one": (class_table(evaluations[:1], "test", {}), 3),
        "attention": (attention_table(evaluations, "test"), 8),
        "sensitivity": (sensitivity_table(evaluations, "test"), 10),
    }
    for name, (table, rows) in expected.items():
        assert len(table.rows) == rows, name
        assert all(len(row.cells) == len(table.columns) for row in table.rows), name


def test_rows_of_a_class_are_marked(evaluations: list[SavedEvaluation]):
    table = attention_table(evaluations, "test")
    assert [row.class_name for row in table.rows[:4]] == [None, "dark", "grey", "light"]
    assert [row.cells[1].text for row in table.rows[:4]] == ["all", "dark", "grey", "light"]
    background = [row.cells[3].value for row in table.rows]
    assert background == pytest.approx([0] * 4 + [1] * 4, abs=1e-6)


def test_the_p_of_areas_is_there_if_compared(evaluations: list[SavedEvaluation], compared: dict):
    table = class_table(evaluations, "test", compared["test"])
    assert table.columns[-1].title == "p (AUC as foreground)"
    assert [row.cells[-1].text for row in table.rows[:2]] == ["–", "1.000"]  # both are perfect


def test_text_names_sets_classifiers_and_what_the_background_does(
    evaluations: list[SavedEvaluation],
):
    text = text_table(evaluations)
    assert "test: 18 images of 9 groups" in text
    assert "elsewhere: 12 images of 6 groups" in text
    (line,) = [
        line for line in text.splitlines() if line.startswith("predictions that change, oth")
    ]
    assert "0.0 % (0.0 to 33.6)" in line  # of nine groups
    assert "100.0 % (66.4 to 100.0)" in line
    only = replace(evaluations[1], sets={"test": evaluations[1].sets["test"]})
    assert only.name not in text_table([evaluations[0], only]).split("elsewhere:")[1]


def test_columns_say_what_they_mean_and_which_way_is_better(evaluations: list[SavedEvaluation]):
    columns = {column.title: column.help for column in attention_table(evaluations, "test").columns}
    assert columns["Relevance in the background"] == (
        "share of the absolute relevance outside of the mask; lower is better"
    )
    assert columns["Mass accuracy"].endswith("higher is better")
    assert columns["Classifier"] == ""


def test_a_measure_that_one_evaluation_lacks_is_missing_there(evaluations: list[SavedEvaluation]):
    more = replace(evaluations[0], measures=[*evaluations[0].measures, LOSS])
    table = overall_table([more, evaluations[1]], "test")
    (place,) = [i for i, column in enumerate(table.columns) if column.title == "Loss"]
    assert [row.cells[place].detail for row in table.rows] == ["not measured"] * 2
