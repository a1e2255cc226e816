from __future__ import annotations

from pathlib import Path

import pytest

from faster_isnet.study import Range
from faster_isnet.study.plan import entries
from faster_isnet.study.reading import settings_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "study"


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("*.yaml")])
def test_the_examples_are_read_and_give_all_that_they_search(name: str, tmp_path: Path) -> None:
    """So that the first trial of each search has the values that the file gives."""
    settings = settings_of((EXAMPLES / name).read_text())
    assert settings.methods["standard"].method == "standard"
    assert all(entry.own_options() is not None for entry in entries(settings, tmp_path))


def test_a_range_is_read() -> None:
    text = "methods: {a: {method: b, search: {model.x: {low: 1e-3, high: 10, log: true}}}}"
    assert settings_of(text).methods["a"].search["model.x"] == Range(0.001, 10, log=True)


def test_what_is_not_given_of_the_evaluation_is_the_studys_default() -> None:
    settings = settings_of("{methods: {a: {method: b}}, evaluation: {batch-size: 8}}")
    assert (settings.evaluation.batch_size, settings.evaluation.examples) == (8, 1)


def test_numbers_with_an_exponent_are_numbers() -> None:
    settings = settings_of("methods: {a: {method: b, model: {x: 1e-4}}}")
    assert settings.methods["a"].model["x"] == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methds: {}", "unknown key 'methds'; did you mean 'methods'"),
        ("seeds: [0]", "'methods' is missing"),
        ("methods: {}", "methods is empty"),
        ("methods: {a: {method: b, serach: {}}}", "unknown key 'serach' in methods.a"),
        ("methods: {a: {method: {init_args: {}}}}", "must be a name, or have class_path"),
        ("methods: {a: {method: b, search: {model.x: {low: 2, high: 1}}}}", "low < high"),
        ("methods: {a: {method: b, search: {data.size: [1]}}}", "option of method, model"),
        ("methods: {a: {method: b, search: {model.x: []}}}", "no choices"),
        ("methods: {a/b: {method: b}}", "cannot be a folder's"),
        ("{methods: {a: {method: b}}, seeds: [1, 1]}", "'1' twice"),
        ("{methods: {a: {method: b}}, seeds: [x]}", "seeds must be a whole number, got 'x'"),
        ("{methods: {a: {method: b}}, search: {trials: true}}", "trials must be a whole number"),
        ("{methods: {a: {method: b}}, search: {objective: test}}", "unknown search.objective"),
        ("{methods: {a: {method: b}}, tested: first}", "unknown tested"),
        ("[methods]", "must hold options by name"),
        (
            "{methods: {a: {method: b}}, folds: 5}",
            r"seeds \[0, 1, 2\] do not test on each of 5 folds",
        ),
        ("{methods: {a: {method: b}}, folds: 2}", r"folds once; give \[0, 1\]"),
        ("{methods: {a: {method: b}}, folds: 3}", "data 'digits' cannot be divided in folds"),
        (
            "{methods: {a: {method: b}}, folds: 3, data: {c: {source: d, division: e}}}",
            "data 'c' cannot be divided in folds, since it has division",
        ),
        ("{methods: {a: {method: b}}, folds: 3, search: {trials: 1}}", "there are folds"),
        ("{methods: {a: {method: b}}, folds: 1, data: {c: {source: d}}}", "folds must be a number"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(text)
