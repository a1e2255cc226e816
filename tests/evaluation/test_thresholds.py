"""Thresholds of multi-label predictions."""

from __future__ import annotations

import numpy as np
import pytest

from faster_isnet.evaluation import Predictions, choose_thresholds, scores


def predictions(
    seed: int = 0, n: int = 60, classes: int = 3, task: str = "multiclass"
) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    if task == "multilabel":
        labels = (rng.random((n, classes)) < 0.4).astype(int)
    has = labels if task == "multilabel" else np.eye(classes)[labels]
    probabilities = (rng.random((n, classes)).round(1) + has / 2) / 1.5
    if task == "multiclass":
        probabilities /= probabilities.sum(1, keepdims=True)
    names = [f"{i}.png" for i in range(n)]
    return Predictions(names, labels, probabilities, [f"class {c}" for c in range(classes)])


def test_thresholds_come_from_validation() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 1)) < 0.3).astype(int)
    probabilities = np.clip(0.2 * labels + 0.2 + 0.05 * rng.normal(size=(400, 1)), 0, 1)
    p = Predictions([str(i) for i in range(400)], labels, probabilities, ["ill"])
    (threshold,) = choose_thresholds(p).values()
    assert threshold == pytest.approx(0.3, abs=0.05)
    judged = [
        scores(p, t, resamples=2).overall["balanced_accuracy"].value
        for t in ({"ill": threshold}, None)
    ]
    assert judged[0] > 0.95
    assert judged[1] < 0.6
    for wrong in (0.1, 0.2, 0.25, 0.35, 0.6):
        other = scores(p, {"ill": wrong}, resamples=2).overall["balanced_accuracy"].value
        assert other <= judged[0]


@pytest.mark.parametrize(
    ("task", "thresholds", "message"),
    [
        ("multiclass", {"class 0": 0.5}, "thresholds are for multi-label"),
        ("multilabel", {"class 7": 0.5}, r"thresholds name \['class 7'\]"),
        ("multilabel", {"class 1": 1.5}, r"thresholds\['class 1'\] must be"),
    ],
)
def test_bad_thresholds(task: str, thresholds: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores(predictions(task=task), thresholds)


def test_a_class_without_images_has_no_threshold() -> None:
    p = predictions(task="multilabel")
    none = Predictions(p.names, np.zeros_like(p.labels), p.probabilities, p.class_names)
    with pytest.raises(ValueError, match="no threshold can be chosen for 'class 0': 0 of 60"):
        choose_thresholds(none)
