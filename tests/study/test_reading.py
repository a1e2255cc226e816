from __future__ import annotations

from pathlib import Path

import pytest

from faster_isnet.study import Range
from faster_isnet.study.reading import settings_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "study" / "digits.yaml"


def test_the_example_is_read() -> None:
    settings = settings_of(EXAMPLE.read_text())
    assert list(settings.methods) == ["standard", "isnet", "isnet-dual"]
    assert settings.search.common["model.learning_rate"] == Range(0.0003, 0.003, log=True)
    assert settings.data["digits"]["class_path"] == "BiasedDigitsData"


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
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(text)
