"""How good predictions are in numbers, for the images as they are and for resamples of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from faster_isnet.common.checks import check_range
from faster_isnet.evaluation.intervals import Floats, ratio
from faster_isnet.evaluation.predictions import Predictions

Thresholds = Mapping[str, float] | None
"""From which probability on an image has a class, by class; for several labels."""

BY_CLASS = ("precision", "recall", "specificity", "f1", "auc")


@dataclass(frozen=True, eq=False)
class Measures:
    """Measures of predictions, one for each row of weights; NaN where there is none.

    Attributes
    ----------
    overall
        By name, ``[rows]``: ``accuracy`` (with several labels the share of labels that are right)
        and ``balanced accuracy`` (the mean of recalls; with several labels of recalls and
        specificities).
    by_class
        For each name of :data:`BY_CLASS`, ``[rows, C]``.
    """

    overall: dict[str, Floats]
    by_class: dict[str, Floats]

    @property
    def macro(self) -> dict[str, Floats]:
        """By name, ``[rows]``: the means over the classes that have a value."""
        return {name: mean_over_classes(values) for name, values in self.by_class.items()}


def measure(predictions: Predictions, thresholds: Thresholds, weights: Floats) -> Measures:
    """Measure predictions.

    Parameters
    ----------
    predictions
        Of N images.
    thresholds
        See :func:`decisions`.
    weights
        ``[rows, N]``, how often each image counts.
    """
    has = predictions.has_class
    tables = _tables(weights, decisions(predictions, thresholds), has)
    by_class = _rates(tables)
    by_class["auc"] = np.stack(
        [
            _weighted_auc(weights, has[:, c], predictions.probabilities[:, c])
            for c in range(has.shape[1])
        ],
        axis=1,
    )
    overall = {
        "accuracy": _accuracy(tables, predictions.task),
        "balanced accuracy": _balanced_accuracy(by_class, predictions.task),
    }
    return Measures(overall, by_class)


def decisions(predictions: Predictions, thresholds: Thresholds) -> npt.NDArray[np.bool_]:
    """Return which classes each image is said to have.

    Parameters
    ----------
    predictions
        Of N images and C classes.
    thresholds
        For several labels: from which probability on an image has a class, by class; 0.5 for those
        that are not named.

    Returns
    -------
    array
        ``[N, C]``. With one label it is the most probable class.

    Raises
    ------
    ValueError
        If a threshold is of no class or not in [0, 1]; if thresholds are given for one label.
    """
    names = list(predictions.class_names)
    if predictions.task == "multiclass":
        if thresholds is not None:
            raise ValueError("thresholds are for several labels; these images have one each")
        predicted = predictions.probabilities.argmax(1)
        most: npt.NDArray[np.bool_] = np.equal(predicted[:, None], np.arange(len(names)))
        return most
    given = dict(thresholds or {})
    if unknown := given.keys() - set(names):
        raise ValueError(f"thresholds name {sorted(unknown)}, but the classes are {names}")
    for name, value in given.items():
        check_range(f"thresholds[{name!r}]", value, 0, 1)
    limits = np.array([given.get(name, 0.5) for name in names])
    enough: npt.NDArray[np.bool_] = np.greater_equal(predictions.probabilities, limits)
    return enough


def _tables(
    weights: Floats, decided: npt.NDArray[np.bool_], has: npt.NDArray[np.bool_]
) -> dict[str, Floats]:
    """Return how many images are right and wrong for each class, ``[samples, C]``."""
    return {
        "tp": weights @ (decided & has),
        "fp": weights @ (decided & ~has),
        "fn": weights @ (~decided & has),
        "tn": weights @ (~decided & ~has),
    }


def _rates(tables: Mapping[str, Floats]) -> dict[str, Floats]:
    tp, fp, fn, tn = (tables[name] for name in ("tp", "fp", "fn", "tn"))
    return {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def mean_over_classes(values: Floats) -> Floats:
    """Average over the classes that have a value."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(1), known.sum(1).astype(np.float64))


def _accuracy(tables: Mapping[str, Floats], task: str) -> Floats:
    right = tables["tp"] if task == "multiclass" else tables["tp"] + tables["tn"]
    asked = tables["tp"] + tables["fn"]
    if task == "multilabel":
        asked = asked + tables["fp"] + tables["tn"]
    return ratio(right.sum(1), asked.sum(1))


def _balanced_accuracy(rates: Mapping[str, Floats], task: str) -> Floats:
    if task == "multiclass":
        return mean_over_classes(rates["recall"])
    return mean_over_classes((rates["recall"] + rates["specificity"]) / 2)


def _weighted_auc(weights: Floats, has: npt.NDArray[np.bool_], score: Floats) -> Floats:
    """Return the area under the ROC curve of each resample, NaN where it lacks either kind."""
    _, value_of = np.unique(score, return_inverse=True)
    order = np.argsort(value_of, kind="stable")
    starts = np.flatnonzero(np.diff(value_of[order], prepend=-1))
    positive, negative = (
        np.add.reduceat((weights * kind)[:, order], starts, axis=1) for kind in (has, ~has)
    )
    below = negative.cumsum(1) - negative
    wins = (positive * (below + negative / 2)).sum(1)
    return ratio(wins, positive.sum(1) * negative.sum(1))
