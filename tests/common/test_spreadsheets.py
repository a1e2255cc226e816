"""Texts in tables are shown by spreadsheets and not run, and are read back as they were."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faster_isnet.common.spreadsheets import original_cell, safe_cell, safe_csv
from faster_isnet.evaluation import Predictions

FORMULAS = ["=1+1", "+1", "-cat", "@sum", "\tx", "\rx"]


@given(st.text(alphabet="'=+-@\t\ra1"))
def test_every_text_is_read_back_and_none_is_a_formula(text: str) -> None:
    assert original_cell(safe_cell(text)) == text
    assert not safe_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_stay_numbers() -> None:
    table = pd.DataFrame({"=name": FORMULAS[:5], "value": -np.arange(5.0)})
    header, *rows = csv.reader(io.StringIO(safe_csv(table).decode(), newline=""))
    assert header == ["'=name", "value"]
    assert [row[0] for row in rows] == [f"'{text}" for text in FORMULAS[:5]]
    assert [float(row[1]) for row in rows] == list(-np.arange(5.0))


@pytest.mark.parametrize("formula", FORMULAS[:4])
def test_predictions_are_read_back(formula: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    predictions = Predictions(
        [formula, "b"], np.array([0, 1]), np.eye(2), [formula, "dog"], [formula, "group"]
    )
    predictions.save(path)
    for row in csv.reader(path.open(newline="")):
        assert not any(cell.startswith(formula) for cell in row)
    loaded = Predictions.load(path)
    assert list(loaded.names) == [formula, "b"]
    assert list(loaded.class_names) == [formula, "dog"]
    assert loaded.groups == [formula, "group"]
