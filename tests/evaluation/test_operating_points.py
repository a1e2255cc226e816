"""Thresholds have the specificity that is asked, and the highest sensitivity that allows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faster_isnet.evaluation import Predictions, scores
from faster_isnet.evaluation.json_format import results_from_json, results_to_json
from faster_isnet.evaluation.operating_points import choose_operating_thresholds, operating_points
from faster_isnet.evaluation.results import Results

levels = st.lists(st.integers(0, 8), min_size=4, max_size=30)


def of(labels: list[int], probabilities: list[float]) -> Predictions:
    column = np.array(probabilities, dtype=float)
    names = [str(i) for i in range(len(labels))]
    return Predictions(names, np.array(labels), np.stack([1 - column, column], 1), ["no", "yes"])


@given(levels, st.integers(0, 2**30), st.sampled_from([0, 0.5, 0.8, 0.95, 1]))
def test_no_lower_threshold_has_the_specificity(
    eighths: list[int], bits: int, least: float
) -> None:
    labels = [(bits >> i) & 1 for i in range(len(eighths))]
    predictions = of(labels, [level / 8 for level in eighths])
    chosen = choose_operating_thresholds(predictions, least)
    assert set(chosen) == ({"no", "yes"} if 0 < sum(labels) < len(labels) else set())
    for c, name in enumerate(chosen and ["no", "yes"]):
        without = predictions.probabilities[predictions.labels != c, c]
        assert (without < chosen[name]).mean() >= least
        lower = [p for p in predictions.probabilities[:, c] if p < chosen[name]]
        assert all((without < p).mean() < least for p in lower)


def test_points_are_scored_at_their_thresholds() -> None:
    predictions = of([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.7, 0.6, 0.8, 0.9])
    points = operating_points(predictions, {"yes": 0.75, "no": 0.5}, resamples=50)
    assert points["yes"].sensitivity.value == pytest.approx(2 / 3)
    assert points["yes"].specificity.value == 1
    assert points["yes"].specificity.low == pytest.approx(0.2924, abs=1e-4)  # Clopper, Pearson
    decided = scores(predictions, resamples=50).classes["no"].scores  # by 0.5, as two classes are
    assert points["no"].sensitivity == decided["recall"]
    assert points["no"].specificity == decided["specificity"]


def test_a_threshold_that_is_not_reached_assigns_nothing() -> None:
    chosen = choose_operating_thresholds(of([0, 0, 1], [0.2, 0.9, 0.8]))
    assert chosen["yes"] == math.inf
    point = operating_points(of([0, 1], [0.9, 1.0]), chosen, resamples=5)["yes"]
    assert (point.sensitivity.value, point.specificity.value) == (0, 1)


def test_points_are_saved_and_read() -> None:
    predictions = of([0, 0, 1, 1], [0.2, 0.9, 0.8, 0.4])
    points = operating_points(predictions, {"yes": math.inf, "no": 0.5}, resamples=5)
    found = Results(
        thresholds=None,
        scores=scores(predictions, resamples=5),
        attention=None,
        sensitivity=None,
        operating_points=points,
    )
    text = json.dumps(results_to_json(found, []), allow_nan=False)
    assert results_from_json(json.loads(text)).operating_points == points


def test_what_is_no_class_or_no_share_is_refused() -> None:
    predictions = of([0, 1], [0.1, 0.9])
    with pytest.raises(ValueError, match=r"thresholds name \['maybe'\], but the classes are"):
        operating_points(predictions, {"maybe": 0.5})
    with pytest.raises(ValueError, match=r"specificity must be a number in \[0, 1\], got 95"):
        choose_operating_thresholds(predictions, 95)
    assert operating_points(predictions, {}) == {}
