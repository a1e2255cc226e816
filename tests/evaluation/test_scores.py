"""Scores against scikit-learn, and their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from faster_isnet.evaluation import Predictions, Score, Scores, scores
from faster_isnet.evaluation.classification import Outcomes, calibration_curve
from faster_isnet.evaluation.measures import MEASURES


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


def values(by_name: Mapping[str, Score]) -> dict[str, float | None]:
    return {name: score.value for name, score in by_name.items()}


def all_scores(found: Scores) -> list[Score]:
    by_class = [score for each in found.classes.values() for score in each.scores.values()]
    return [*found.overall.values(), *found.macro.values(), *by_class]


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_one_label_is_scored_as_scikit_learn_does(seed: int) -> None:
    p = predictions(seed)
    found = scores(p, resamples=2)
    y, said = p.labels, p.probabilities.argmax(1)
    assert found.overall["accuracy"].value == pytest.approx(metrics.accuracy_score(y, said))
    balanced = metrics.balanced_accuracy_score(y, said)
    assert found.overall["balanced_accuracy"].value == pytest.approx(balanced)
    (table,) = found.confusion.tables
    assert np.array_equal(table, metrics.confusion_matrix(y, said))
    expected = metrics.precision_recall_fscore_support(y, said, zero_division=np.nan)
    for c, name in enumerate(p.class_names):
        of_class = values(found.classes[name].scores)
        for rate, each in zip(("precision", "recall", "f1"), expected, strict=False):
            if not np.isnan(each[c]):
                assert of_class[rate] == pytest.approx(each[c])
        area = metrics.roc_auc_score(y == c, p.probabilities[:, c])
        assert of_class["auc"] == pytest.approx(area)
        average = metrics.average_precision_score(y == c, p.probabilities[:, c])
        assert of_class["average_precision"] == pytest.approx(average)
        specificity = metrics.recall_score(y != c, said != c)
        assert of_class["specificity"] == pytest.approx(specificity)
    macro = metrics.roc_auc_score(y, p.probabilities, multi_class="ovr")
    assert found.macro["auc"].value == pytest.approx(macro)


def test_calibration_is_what_torchmetrics_says() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(3), 80), rng.integers(0, 3, 80)
    names = [str(number) for number in range(80)]
    one = scores(Predictions(names, labels, probabilities, ["a", "b", "c"]), resamples=2).overall
    given, true = torch.from_numpy(probabilities), torch.from_numpy(labels)
    expected = multiclass_calibration_error(given, true, 3, n_bins=15)
    assert one["calibration_error"].value == pytest.approx(float(expected))
    assert one["calibration_error"].low is None
    squares = (probabilities - np.eye(3)[labels]) ** 2
    assert one["brier_score"].value == pytest.approx(squares.sum(1).mean())
    several = (rng.random((80, 3)) < 0.4).astype(int)
    found = scores(Predictions(names, several, probabilities, ["a", "b", "c"]), resamples=2).overall
    expected = binary_calibration_error(given.ravel(), torch.from_numpy(several.ravel()), 15)
    assert found["calibration_error"].value == pytest.approx(float(expected))
    expected = metrics.brier_score_loss(several.ravel(), probabilities.ravel())
    assert found["brier_score"].value == pytest.approx(expected)


def test_a_sure_network_that_is_right_half_of_the_time_is_off_by_half() -> None:
    labels, probabilities = np.array([0, 1] * 10), np.tile([1.0, 0.0], (20, 1))
    names = [str(number) for number in range(20)]
    p = Predictions(names, labels, probabilities, ["a", "b"])
    assert scores(p, resamples=2).overall["calibration_error"].value == 0.5
    confidence, right, count = calibration_curve(p)
    assert (confidence[-1], right[-1], count[-1]) == (1, 0.5, 20)
    assert np.isnan(confidence[:-1]).all()


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("measure", ["average_precision", "brier_score", "calibration_error"])
def test_an_image_that_is_drawn_twice_counts_twice(task: str, measure: str) -> None:
    p = predictions(task=task)
    (function,) = (each.function for each in MEASURES if each.name == measure)
    drawn = np.random.default_rng(1).integers(0, 3, len(p.names))
    twice = Outcomes.of(p, None, np.stack([np.ones(len(drawn)), drawn]).astype(float))
    again = p.take(np.repeat(np.arange(len(drawn)), drawn).tolist())
    alone = Outcomes.of(again, None, np.ones((1, len(again.names))))
    np.testing.assert_allclose(function(twice)[1], function(alone)[0])


def test_several_labels_are_scored_as_scikit_learn_does() -> None:
    p = predictions(task="multilabel")
    thresholds = {"class 0": 0.3, "class 2": 0.7}
    said = p.probabilities >= [0.3, 0.5, 0.7]
    found = scores(p, thresholds, resamples=2)
    assert found.overall["accuracy"].value == pytest.approx(np.mean(said == p.labels))
    assert found.confusion.multilabel
    expected = metrics.multilabel_confusion_matrix(p.labels, said)
    assert np.array_equal(found.confusion.tables, expected)
    assert found.macro["f1"].value == pytest.approx(
        metrics.f1_score(p.labels, said, average="macro")
    )
    each = [metrics.balanced_accuracy_score(p.labels[:, c], said[:, c]) for c in range(3)]
    assert found.overall["balanced_accuracy"].value == pytest.approx(np.mean(each))


def test_every_score_lies_in_its_interval() -> None:
    for task in ("multiclass", "multilabel"):
        found = all_scores(scores(predictions(task=task)))
        assert len(found) == 4 + 6 + 18
        without = [score for score in found if score.low is None]
        assert len(without) == 1  # the calibration error
        for score in found:
            if score in without:
                continue
            assert 0 <= score.low <= score.value <= score.high <= 1
            assert score.low < score.high or score.value in (0, 1)


def test_a_seed_repeats_and_the_order_of_images_does_not_matter() -> None:
    p = predictions()
    assert scores(p, seed=3) == scores(p, seed=3)
    assert scores(p, seed=3) != scores(p, seed=4)
    order = np.random.default_rng(0).permutation(60)
    turned = Predictions(
        [p.names[i] for i in order], p.labels[order], p.probabilities[order], p.class_names
    )
    before, after = (values(scores(x).classes["class 1"].scores) for x in (p, turned))
    assert before == pytest.approx(after)


def test_what_is_not_defined_says_why() -> None:
    p = predictions()
    lacking = Predictions(
        p.names, np.minimum(p.labels, 1), np.tile([0.9, 0.1, 0.0], (60, 1)), p.class_names
    )
    found = {name: each.scores for name, each in scores(lacking).classes.items()}
    assert found["class 2"]["recall"].value is None
    assert "no image has the class" in found["class 2"]["recall"].reason
    assert "two images with the class" in found["class 2"]["auc"].reason
    assert found["class 1"]["precision"].value is None
    recall = found["class 1"]["recall"]
    assert (recall.value, recall.low) == (0, 0)


def test_twelve_of_twelve_may_be_three_of_four() -> None:
    """All resamples agree on a recall of 1; that of other images need not be 1."""
    labels = np.repeat([0, 1], [12, 38])
    probabilities = np.eye(2)[labels]
    probabilities[-4:] = [0.9, 0.1]
    names = [str(number) for number in range(50)]
    found = scores(Predictions(names, labels, probabilities, ["a", "b"]))
    recall, specificity = (found.classes["a"].scores[name] for name in ("recall", "specificity"))
    assert (recall.value, recall.high) == (1, 1)
    assert recall.low == pytest.approx(0.025 ** (1 / 12))  # 73.5 %
    assert specificity.low < specificity.value < specificity.high
    precision = found.classes["b"].scores["precision"]  # 34 of 34
    assert precision.low == pytest.approx(0.025 ** (1 / 34))
    of_two = [f"patient {number % 2}" for number in range(50)]
    grouped = scores(Predictions(names, labels, probabilities, ["a", "b"], of_two))
    assert grouped.classes["a"].scores["recall"].low == pytest.approx(0.025 ** (1 / 2))


def test_all_right_has_the_exact_interval_over_all_and_by_class() -> None:
    labels = np.repeat([0, 1], [5, 20])
    names = [str(number) for number in range(25)]
    found = scores(Predictions(names, labels, np.eye(2)[labels], ["a", "b"]))
    assert found.overall["accuracy"].low == pytest.approx(0.025 ** (1 / 25))
    of_classes = (0.025 ** (1 / 5) + 0.025 ** (1 / 20)) / 2
    assert found.overall["balanced_accuracy"].low == pytest.approx(of_classes)
    assert found.macro["recall"].low == pytest.approx(of_classes)


def test_groups_widen_intervals() -> None:
    p = predictions(n=40)
    many = Predictions(
        [f"{i}-{k}" for k in range(5) for i in range(40)],
        np.tile(p.labels, 5),
        np.tile(p.probabilities, (5, 1)),
        p.class_names,
        [str(i) for _ in range(5) for i in range(40)],
    )
    alone = Predictions(many.names, many.labels, many.probabilities, p.class_names)
    (grouped, single, few) = (scores(x).overall["accuracy"] for x in (many, alone, p))
    assert grouped.value == single.value == few.value
    width = {k: s.high - s.low for k, s in zip("gsf", (grouped, single, few), strict=True)}
    assert width["g"] == pytest.approx(width["f"], rel=0.15)
    assert width["g"] > 1.8 * width["s"]


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_cover_as_they_promise(clustered: bool) -> None:
    """Accuracy and F1 of draws from a model whose values are known, 600 times."""
    rng = np.random.default_rng(0)
    hits, ignoring = 0, 0
    for _ in range(600):
        size = 5 if clustered else 1
        right = np.repeat(rng.random(60) < 0.8, size)  # alike within a group
        labels = np.repeat(rng.integers(0, 2, 60), size)
        said = np.where(right, labels, 1 - labels)
        probabilities = np.eye(2)[said]
        groups = np.repeat([str(i) for i in range(60)], size).tolist()
        names = [str(i) for i in range(60 * size)]
        p = Predictions(names, labels, probabilities, ["no", "yes"], groups)
        found = scores(p, resamples=400).overall["accuracy"]
        hits += found.low <= 0.8 <= found.high
        ungrouped = Predictions(names, labels, probabilities, ["no", "yes"])
        apart = scores(ungrouped, resamples=400).overall["accuracy"]
        ignoring += apart.low <= 0.8 <= apart.high
    assert abs(hits / 600 - 0.95) < 0.03
    assert (ignoring / 600 < 0.75) == clustered


def test_the_old_name_of_resamples_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="samples is called resamples now"):
        old = scores(predictions(), samples=7)
    assert old == scores(predictions(), resamples=7)
    with pytest.raises(TypeError, match="samples is called resamples now; give one"):
        scores(predictions(), resamples=7, samples=7)
