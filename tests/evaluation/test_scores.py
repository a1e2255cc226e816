"""Scores against scikit-learn, and their intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.scores import choose_thresholds, scores


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


def values(tree: dict) -> dict:
    return {name: leaf["value"] for name, leaf in tree.items() if isinstance(leaf, dict)}


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_one_label_is_scored_as_scikit_learn_does(seed: int) -> None:
    p = predictions(seed)
    found = scores(p, samples=2)
    y, said = p.labels, p.probabilities.argmax(1)
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(y, said))
    balanced = metrics.balanced_accuracy_score(y, said)
    assert found["balanced accuracy"]["value"] == pytest.approx(balanced)
    assert found["confusion"] == metrics.confusion_matrix(y, said).tolist()
    expected = metrics.precision_recall_fscore_support(y, said, zero_division=np.nan)
    for c, name in enumerate(p.class_names):
        of_class = values(found["classes"][name])
        for rate, each in zip(("precision", "recall", "f1"), expected, strict=False):
            if not np.isnan(each[c]):
                assert of_class[rate] == pytest.approx(each[c])
        area = metrics.roc_auc_score(y == c, p.probabilities[:, c])
        assert of_class["auc"] == pytest.approx(area)
        specificity = metrics.recall_score(y != c, said != c)
        assert of_class["specificity"] == pytest.approx(specificity)
    macro = metrics.roc_auc_score(y, p.probabilities, multi_class="ovr")
    assert found["macro"]["auc"]["value"] == pytest.approx(macro)


def test_several_labels_are_scored_as_scikit_learn_does() -> None:
    p = predictions(task="multilabel")
    thresholds = {"class 0": 0.3, "class 2": 0.7}
    said = p.probabilities >= [0.3, 0.5, 0.7]
    found = scores(p, thresholds, samples=2)
    assert found["accuracy"]["value"] == pytest.approx(np.mean(said == p.labels))
    assert found["confusion"] == metrics.multilabel_confusion_matrix(p.labels, said).tolist()
    assert found["macro"]["f1"]["value"] == pytest.approx(
        metrics.f1_score(p.labels, said, average="macro")
    )
    each = [metrics.balanced_accuracy_score(p.labels[:, c], said[:, c]) for c in range(3)]
    assert found["balanced accuracy"]["value"] == pytest.approx(np.mean(each))


def leaves(tree: object) -> list[dict]:
    if not isinstance(tree, dict):
        return []
    if "value" in tree:
        return [tree]
    return [leaf for branch in tree.values() for leaf in leaves(branch)]


def test_every_score_lies_in_its_interval_and_json_takes_it() -> None:
    for task in ("multiclass", "multilabel"):
        found = scores(predictions(task=task))
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert len(leaves(found)) == 2 + 5 + 15
        for leaf in leaves(found):
            assert 0 <= leaf["low"] <= leaf["value"] <= leaf["high"] <= 1
            assert leaf["low"] < leaf["high"] or leaf["value"] in (0, 1)


def test_a_seed_repeats_and_the_order_of_images_does_not_matter() -> None:
    p = predictions()
    assert scores(p, seed=3) == scores(p, seed=3)
    assert scores(p, seed=3) != scores(p, seed=4)
    order = np.random.default_rng(0).permutation(60)
    turned = Predictions(
        [p.names[i] for i in order], p.labels[order], p.probabilities[order], p.class_names
    )
    before, after = (values(scores(x)["classes"]["class 1"]) for x in (p, turned))
    assert before == pytest.approx(after)


def test_what_is_not_defined_says_why() -> None:
    p = predictions()
    lacking = Predictions(
        p.names, np.minimum(p.labels, 1), np.tile([0.9, 0.1, 0.0], (60, 1)), p.class_names
    )
    found = scores(lacking)["classes"]
    assert found["class 2"]["recall"]["value"] is None
    assert "no image has the class" in found["class 2"]["recall"]["reason"]
    assert "two images with the class" in found["class 2"]["auc"]["reason"]
    assert found["class 1"]["precision"]["value"] is None
    assert found["class 1"]["recall"] == {"value": 0, "low": 0, "high": 0}


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
    (grouped, single, few) = (scores(x)["accuracy"] for x in (many, alone, p))
    assert grouped["value"] == single["value"] == few["value"]
    width = {k: s["high"] - s["low"] for k, s in zip("gsf", (grouped, single, few), strict=True)}
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
        found = scores(p, samples=400)["accuracy"]
        hits += found["low"] <= 0.8 <= found["high"]
        apart = scores(Predictions(names, labels, probabilities, ["no", "yes"]), samples=400)
        ignoring += apart["accuracy"]["low"] <= 0.8 <= apart["accuracy"]["high"]
    assert abs(hits / 600 - 0.95) < 0.03
    assert (ignoring / 600 < 0.75) == clustered


def test_thresholds_come_from_validation() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 1)) < 0.3).astype(int)
    probabilities = np.clip(0.2 * labels + 0.2 + 0.05 * rng.normal(size=(400, 1)), 0, 1)
    p = Predictions([str(i) for i in range(400)], labels, probabilities, ["ill"])
    (threshold,) = choose_thresholds(p).values()
    assert threshold == pytest.approx(0.3, abs=0.05)
    judged = [
        scores(p, t, samples=2)["balanced accuracy"]["value"] for t in ({"ill": threshold}, None)
    ]
    assert judged[0] > 0.95
    assert judged[1] < 0.6
    for wrong in (0.1, 0.2, 0.25, 0.35, 0.6):
        other = scores(p, {"ill": wrong}, samples=2)["balanced accuracy"]["value"]
        assert other <= judged[0]


@pytest.mark.parametrize(
    ("task", "thresholds", "message"),
    [
        ("multiclass", {"class 0": 0.5}, "thresholds are for several labels"),
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
