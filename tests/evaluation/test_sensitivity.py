"""What a change of images does to predictions, by hand-made cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faster_isnet.evaluation import Predictions, Score, scores, sensitivity

NAMES = ["a", "b", "c", "d"]
CLASSES = ["cat", "dog", "cow"]


def predictions(probabilities: object, labels: object = (0, 1, 2, 0)) -> Predictions:
    return Predictions(NAMES, np.array(labels), np.array(probabilities, dtype=float), CLASSES)


def values(found: dict) -> dict:
    return {name: score.value for name, score in found.items()}


BEFORE = predictions([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])


def test_one_label_by_hand():
    after = predictions([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.4, 0.0, 0.6], [0.4, 0.6, 0.0]])
    found = sensitivity(BEFORE, after)
    # Two of four change their class; the distances are 0, 0.4, 0.4 and 0.1; a and c are right.
    assert values(found) == pytest.approx(
        {"changed": 0.5, "probability_change": 0.225, "accuracy": 0.5}
    )


def test_several_labels_by_hand():
    labels = [[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]]
    before = predictions(np.full((4, 3), 0.6), labels)
    changed = np.full((4, 3), 0.6)
    changed[0, 0] = 0.0
    found = sensitivity(before, predictions(changed, labels), {"dog": 0.7})
    # dog is said of none; cat and cow of all but the first, which loses cat.
    right = np.mean([[0, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]])
    assert values(found) == pytest.approx(
        {"changed": 1 / 12, "probability_change": 0.6 / 12, "accuracy": right}
    )


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_nothing_changes_where_nothing_is_done(seed: int):
    rng = np.random.default_rng(seed)
    same = predictions(rng.dirichlet(np.ones(3), 4), rng.integers(0, 3, 4))
    found = sensitivity(same, same)
    assert found["probability_change"] == Score(0, 0, 0)
    assert (found["changed"].value, found["changed"].low) == (0, 0)
    assert found["changed"].high == pytest.approx(1 - 0.025 ** (1 / 4))  # of four images
    assert found["accuracy"] == scores(same).overall["accuracy"]


def test_groups_are_drawn_together():
    rng = np.random.default_rng(0)
    n = 200
    before, after = (rng.dirichlet(np.ones(3), n // 10).repeat(10, 0) for _ in range(2))
    names, labels = [str(i) for i in range(n)], np.zeros(n, dtype=int)
    groups = [str(i // 10) for i in range(n)]

    def width(groups: list[str] | None) -> float:
        pair = (Predictions(names, labels, p, CLASSES, groups) for p in (before, after))
        score = sensitivity(*pair)["probability_change"]
        return score.high - score.low

    assert width(groups) > 2 * width(None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a", "b", "c", "e"]}, r"only one has \['d', 'e'\]\); test both on the same"),
        ({"names": ["b", "a", "c", "d"]}, "in another order"),
        ({"labels": np.array([1, 1, 2, 0])}, "other labels or groups"),
        ({"groups": ["1", "1", "2", "2"]}, "other labels or groups"),
        ({"class_names": ["cat", "cow", "dog"]}, "the classes differ"),
    ],
)
def test_only_the_same_images_are_compared(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        sensitivity(BEFORE, replace(BEFORE, **change))
