"""The tables of a study that has several data sets."""

from __future__ import annotations

from pathlib import Path

from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.measures import MEASURES
from faster_isnet.study import MethodEntry, StudySettings
from faster_isnet.study.plan import entries
from faster_isnet.study.results import (
    ACCURACY,
    BACKGROUNDS,
    WORST_BACKGROUND,
    WORST_SET,
    DataResult,
    MethodResult,
    Quantity,
)
from faster_isnet.study.run_study import EntryOutcome
from faster_isnet.study.tables import overviews_of

ACCURATE = next(measure for measure in MEASURES if measure.name == "accuracy")
SETTINGS = StudySettings({"standard": MethodEntry("standard"), "swap": MethodEntry("swap")})


def result(name: str, means: dict[str, dict[str, Score]]) -> DataResult:
    """Return results with means of each method by quantity."""
    outcomes = {e.method: EntryOutcome(e, None, {}, {}) for e in entries(SETTINGS, Path())}
    methods = {m: MethodResult(outcomes[m], {}, each, {}) for m, each in means.items()}
    groups = {WORST_SET: ACCURACY, WORST_BACKGROUND: BACKGROUNDS}
    names = dict.fromkeys(quantity for each in means.values() for quantity in each)
    quantities = [Quantity(quantity, groups[quantity], ACCURATE) for quantity in names]
    return DataResult(name, methods, quantities, ["test"])


def test_overviews_have_each_method_on_each_data_set() -> None:
    some = {"standard": {WORST_SET: Score(0.1)}, "swap": {WORST_SET: Score(0.8, 0.7, 0.9)}}
    masked = {
        "standard": {WORST_SET: Score(0.2), WORST_BACKGROUND: Score(0.3)},
        "swap": {WORST_SET: Score(None, reason="no value"), WORST_BACKGROUND: Score(0.6)},
    }
    tables = overviews_of([result("a", some), result("b", masked)], "standard")
    assert [table.caption.split(":")[0] for table in tables] == [
        "The lowest accuracy of the test sets",
        "The lowest accuracy with a replaced background",
    ]
    found = [[[cell.value for cell in row.cells[1:]] for row in table.rows] for table in tables]
    assert found == [[[0.1, 0.2], [0.8, None]], [[None, 0.3], [None, 0.6]]]
    assert [row.cells[0].text for row in tables[0].rows] == ["standard", "swap"]
    assert tables[0].rows[1].cells[1].detail == "70.0 to 90.0"
