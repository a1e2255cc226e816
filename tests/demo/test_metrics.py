"""Metrics are typed, and what is wrong with a file's content is named."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from faster_isnet.demo.metrics import DemoMetrics, ModelScores

CONTENT: dict[str, Any] = {
    "standard": {"biased": 0.991, "unbiased": 0.612, "deceiving": 0.034, "background_share": 0.583},
    "isnet": {"biased": 0.982, "unbiased": 0.979, "deceiving": 0.975, "background_share": 0.041},
    "settings": {"seed": 7, "backbone": "resnet18"},
    "seconds": {"training": 41.25, "evaluation": 3},
}


def changed(**changes: Any) -> dict[str, Any]:
    """Return the content with keys ``a__b`` replaced, or removed where the value is ``...``."""
    content = copy.deepcopy(CONTENT)
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = content
        for parent in parents:
            target = target[parent]
        if value is ...:
            del target[key]
        else:
            target[key] = value
    return content


def test_what_is_written_is_read_again() -> None:
    metrics = DemoMetrics.from_json(CONTENT)
    assert metrics.models["isnet"] == ModelScores(0.982, 0.979, 0.975, background_share=0.041)
    assert list(metrics.models) == ["standard", "isnet"]
    assert json.loads(json.dumps(metrics.to_json())) == CONTENT


def test_scores_may_be_numpy_or_whole_numbers_and_are_floats() -> None:
    scores = ModelScores(np.float32(0.5), 1, 0, background_share=np.float64(0.25))
    assert scores.accuracies == {"biased": 0.5, "unbiased": 1.0, "deceiving": 0.0}
    assert scores.largest_gap == 1
    assert all(type(value) is float for value in vars(scores).values())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"isnet__deceiving": ...}, ValueError, r"metrics\['isnet'\] lacks 'deceiving'"),
        ({"isnet": {}}, ValueError, "lacks 'biased', 'unbiased', 'deceiving', 'background_share'"),
        ({"isnet": 0.9}, TypeError, r"metrics\['isnet'\] must be a mapping of scores, got 0.9"),
        (
            {"isnet__biased": float("nan")},
            ValueError,
            r"metrics\['isnet'\]: biased must be .* got nan",
        ),
        ({"isnet__biased": 97.5}, ValueError, r"a fraction in \[0, 1\], got 97.5"),
        (
            {"isnet__biased": "0.9"},
            TypeError,
            r"metrics\['isnet'\]: biased must be a number, got '0.9'",
        ),
        ({"settings": ...}, ValueError, "metrics lacks 'settings'"),
        ({"seconds": 3.0}, TypeError, r"metrics\['seconds'\] must be a mapping, got 3.0"),
        (
            {"seconds__training": float("inf")},
            ValueError,
            r"seconds\['training'\] must be .* got inf",
        ),
        ({"isnet": ..., "standard": ...}, ValueError, "there are no scores of a model"),
    ],
)
def test_bad_metrics_are_named(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        DemoMetrics.from_json(changed(**changes))
