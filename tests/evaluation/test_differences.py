"""Differences of two classifiers on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from faster_isnet.evaluation import (
    Differences,
    Predictions,
    Score,
    Scores,
    auc_difference,
    differences,
    scores,
)

CLASSES = ["a", "b", "c"]
NO_INTERVAL = "overall/calibration_error"


def predictions(seed: int, n: int = 80, task: str = "multiclass", skill: float = 1) -> Predictions:
    labels = np.random.default_rng(0).integers(0, 3, n)
    has = np.eye(3, dtype=int)[labels]
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(n, 3)) + skill * has
    if task == "multilabel":
        probabilities = 1 / (1 + np.exp(-odds))
        return Predictions([str(i) for i in range(n)], has, probabilities, CLASSES)
    probabilities = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    return Predictions([str(i) for i in range(n)], labels, probabilities, CLASSES)


def all_scores(found: Scores | Differences) -> Mapping[str, Score]:
    parts = {"overall": found.overall, "macro": found.macro}
    parts |= {f"class {name}": each.scores for name, each in found.classes.items()}
    return {f"{part}/{name}": each for part, s in parts.items() for name, each in s.items()}


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
class TestBoth:
    def test_values_are_those_of_the_scores_subtracted(self, task):
        first, second = predictions(1, task=task), predictions(2, task=task)
        thresholds = ({"a": 0.3}, {"b": 0.7}) if task == "multilabel" else (None, None)
        found = all_scores(differences(first, second, *thresholds, resamples=20))
        a, b = (
            all_scores(scores(p, t, resamples=20))
            for p, t in zip((first, second), thresholds, strict=True)
        )
        assert found.keys() == a.keys()
        for path, score in found.items():
            assert score.value == pytest.approx(b[path].value - a[path].value), path
            assert path == NO_INTERVAL or score.low <= score.value <= score.high

    def test_turned_round_they_change_their_sign(self, task):
        first, second = predictions(1, task=task), predictions(2, task=task)
        there, back = all_scores(differences(first, second)), all_scores(differences(second, first))
        for path, score in there.items():
            assert score.value == pytest.approx(-back[path].value)
            assert path == NO_INTERVAL or score.low == pytest.approx(-back[path].high)

    def test_a_classifier_does_not_differ_from_itself(self, task):
        first = predictions(1, task=task)
        for path, score in all_scores(differences(first, first)).items():
            p = 1 if path.startswith("class") and path.endswith("auc") else None
            assert score == (Score(0) if path == NO_INTERVAL else Score(0, 0, 0, p=p))


def test_areas_are_compared_by_delong():
    first, second = predictions(1), predictions(2)
    expected = auc_difference(
        first.labels == 1, second.probabilities[:, 1], first.probabilities[:, 1]
    )
    assert differences(first, second).classes["b"].scores["auc"] == Score(**expected._asdict())


def test_pairing_narrows_the_interval():
    """The same images are hard for both: what differs is known better than either."""
    first = predictions(1, n=300)
    noise = np.random.default_rng(5).normal(scale=0.05, size=first.probabilities.shape)
    near = np.abs(first.probabilities + noise)
    second = replace(first, probabilities=near / near.sum(1, keepdims=True))
    paired = differences(first, second).overall["accuracy"]
    alone = scores(first).overall["accuracy"]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_groups_are_drawn_together():
    """Ten copies of each image, known to be copies, are no surer than one."""
    pair = [predictions(seed).take(np.repeat(np.arange(80), 10)) for seed in (1, 2)]

    def width(groups: list[str] | None) -> float:
        found = differences(*(replace(each, groups=groups) for each in pair)).overall["accuracy"]
        return found.high - found.low

    assert width([str(i // 10) for i in range(800)]) > 2 * width(None)


@pytest.mark.slow
def test_intervals_cover_as_they_promise():
    """Two classifiers that are right on 0.8 and 0.7 of images, not independently, 500 times."""
    rng = np.random.default_rng(0)
    names, hits = [str(i) for i in range(150)], 0
    for _ in range(500):
        labels, ease = rng.integers(0, 2, 150), rng.random(150)
        both = []
        for share in (0.8, 0.7):
            own = rng.random(150)
            right = np.where(rng.random(150) < 0.5, ease, own) < share
            said = np.where(right, labels, 1 - labels)
            both.append(Predictions(names, labels, np.eye(2)[said], ["no", "yes"]))
        found = differences(*both, resamples=400).overall["accuracy"]
        hits += found.low <= -0.1 <= found.high
    assert hits / 500 == pytest.approx(0.95, abs=0.03)


def test_what_one_of_the_two_lacks_says_so():
    first, second = predictions(1), predictions(2)
    never = replace(second, probabilities=np.tile([0.6, 0.4, 0.0], (80, 1)))
    found = differences(first, never).classes["c"].scores["precision"]
    assert found.value is None
    assert "one of the two has no value" in found.reason


def test_only_the_same_images_are_compared():
    first = predictions(1)
    with pytest.raises(ValueError, match="in another order"):
        differences(first, first.take(range(79, -1, -1)))


def test_areas_without_variance_have_no_interval_and_no_p():
    """One classifier is perfect and the other says nothing: DeLong's variance is 0."""
    names, labels = ["a", "b", "c", "d"], np.array([0, 0, 1, 1])
    perfect, constant = (
        Predictions(names, labels, np.array(rows), ["no", "yes"])
        for rows in (np.eye(2)[labels], np.full((4, 2), 0.5))
    )
    area = differences(perfect, constant).classes["yes"].scores["auc"]
    assert (area.value, area.low, area.high, area.p) == (-0.5, None, None, None)
    assert "DeLong's variance is 0" in area.reason
