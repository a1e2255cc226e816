"""Tables say what the metrics hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from faster_isnet.evaluation.evaluation_files import TestedRun
from faster_isnet.reporting.tables import (
    attention_table,
    class_table,
    difference_cell,
    difference_table,
    overall_table,
    score_cell,
    sensitivity_table,
    text_table,
)


def test_a_score_and_what_has_none():
    cell = score_cell({"value": 0.5, "low": 0.25, "high": 1.0})
    assert (cell.text, cell.detail, cell.value) == ("50.0 %", "25.0 to 100.0", 0.5)
    few = score_cell({"value": 0.5, "low": None, "high": None, "reason": "too few"})
    assert (few.text, few.detail, few.value) == ("50.0 %", "too few", 0.5)
    none = score_cell({"value": None, "low": None, "high": None, "reason": "no image"})
    assert (none.text, none.detail, none.value) == ("–", "no image", None)
    less = difference_cell({"value": -0.015, "low": -0.03, "high": 0.002})
    assert (less.text, less.detail, less.value) == ("-1.5", "-3.0 to +0.2", -0.015)


def test_every_table_is_as_wide_as_its_head_and_has_a_row_for_each(
    tested: list[TestedRun], compared: dict
):
    expected = {
        "overall": (overall_table(tested, "test"), 2),
        "differences": (difference_table(tested, compared["test"]), 1),
        "classes": (class_table(tested, "test", compared["test"]), 6),
        "classes of one": (class_table(tested[:1], "test", {}), 3),
        "attention": (attention_table(tested, "test"), 8),
        "sensitivity": (sensitivity_table(tested, "test"), 10),
    }
    for name, (table, rows) in expected.items():
        assert len(table.rows) == rows, name
        assert all(len(row.cells) == len(table.columns) for row in table.rows), name


def test_rows_of_a_class_are_marked(tested: list[TestedRun]):
    table = attention_table(tested, "test")
    assert [row.class_name for row in table.rows[:4]] == [None, "dark", "grey", "light"]
    assert [row.cells[1].text for row in table.rows[:4]] == ["all", "dark", "grey", "light"]
    background = [row.cells[3].value for row in table.rows]
    assert background == pytest.approx([0] * 4 + [1] * 4, abs=1e-6)


def test_the_p_of_areas_is_there_if_compared(tested: list[TestedRun], compared: dict):
    table = class_table(tested, "test", compared["test"])
    assert table.columns[-1] == "p of AUC as foreground"
    assert [row.cells[-1].text for row in table.rows[:2]] == ["–", "1.000"]  # both are perfect


def test_text_names_sets_runs_and_what_the_background_does(tested: list[TestedRun]):
    text = text_table(tested)
    assert "test: 18 images of 9 groups" in text
    assert "elsewhere: 12 images of 6 groups" in text
    (line,) = [
        line for line in text.splitlines() if line.startswith("predictions that change, oth")
    ]
    assert "0.0 % (0.0 to 0.0)" in line
    assert "100.0 % (100.0 to 100.0)" in line
    only = replace(
        tested[1], metrics={**tested[1].metrics, "sets": {"test": tested[1].sets["test"]}}
    )
    assert only.name not in text_table([tested[0], only]).split("elsewhere:")[1]
