"""Compute accuracy, rates and AUC of the original sample and all resamples at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from faster_isnet.evaluation.delong import auc_difference, auc_interval
from faster_isnet.evaluation.intervals import Floats, Score, ratio
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.thresholds import Thresholds, decisions

_NO_VARIANCE = "needs two images with the class and two without"


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Count correct and wrong decisions, once for each row of weights.

    Parameters
    ----------
    predictions
        Of N images and C classes.
    decided
        ``[N, C]``, the classes that each image is assigned.
    weights
        ``[rows, N]``, how often each image counts; see
        :func:`~faster_isnet.evaluation.intervals.original_and_resamples`.
    """

    predictions: Predictions
    decided: npt.NDArray[np.bool_]
    weights: Floats

    @classmethod
    def of(cls, predictions: Predictions, thresholds: Thresholds, weights: Floats) -> Outcomes:
        """Decide by thresholds, see :func:`~faster_isnet.evaluation.decisions`."""
        return cls(predictions, decisions(predictions, thresholds), weights)

    @cached_property
    def true_positives(self) -> Floats:
        """``[rows, C]``."""
        return self.weights @ (self.decided & self.predictions.has_class)

    @cached_property
    def false_positives(self) -> Floats:
        """``[rows, C]``."""
        return self.weights @ (self.decided & ~self.predictions.has_class)

    @cached_property
    def false_negatives(self) -> Floats:
        """``[rows, C]``."""
        return self.weights @ (~self.decided & self.predictions.has_class)

    @cached_property
    def true_negatives(self) -> Floats:
        """``[rows, C]``."""
        return self.weights @ (~self.decided & ~self.predictions.has_class)


def all_images(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    """Return ``[N, 1]``: every image."""
    return np.ones((len(outcomes.decided), 1), dtype=bool)


def with_class(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    """Return ``[N, C]``: the images that have a class."""
    return outcomes.predictions.has_class


def without_class(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    """Return ``[N, C]``: the images that do not have a class."""
    return ~outcomes.predictions.has_class


def decided_class(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    """Return ``[N, C]``: the images that are assigned a class."""
    return outcomes.decided


def with_or_decided_class(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    """Return ``[N, C]``: the images that have a class, or are assigned it."""
    return outcomes.predictions.has_class | outcomes.decided


def precision(outcomes: Outcomes) -> Floats:
    """Return ``[rows, C]``: of the images that are assigned a class, the share that have it."""
    tp = outcomes.true_positives
    return ratio(tp, tp + outcomes.false_positives)


def recall(outcomes: Outcomes) -> Floats:
    """Return ``[rows, C]``: of the images that have a class, the share that are assigned it."""
    tp = outcomes.true_positives
    return ratio(tp, tp + outcomes.false_negatives)


def specificity(outcomes: Outcomes) -> Floats:
    """Return ``[rows, C]``: of the images without a class, the share that are not assigned it."""
    tn = outcomes.true_negatives
    return ratio(tn, tn + outcomes.false_positives)


def f1(outcomes: Outcomes) -> Floats:
    """Return ``[rows, C]``: the harmonic mean of precision and recall."""
    tp = outcomes.true_positives
    return ratio(2 * tp, 2 * tp + outcomes.false_positives + outcomes.false_negatives)


def auc(outcomes: Outcomes) -> Floats:
    """Return ``[rows, C]``: the area under the ROC curve of each class against all others."""
    has, probabilities = outcomes.predictions.has_class, outcomes.predictions.probabilities
    columns = [
        _weighted_auc(outcomes.weights, has[:, c], probabilities[:, c]) for c in range(has.shape[1])
    ]
    return np.stack(columns, axis=1)


def share_correct(outcomes: Outcomes) -> Floats:
    """Return ``[rows]``: the share of correct images, or of correct labels if multi-label."""
    right, total = outcomes.true_positives, outcomes.true_positives + outcomes.false_negatives
    if outcomes.predictions.task == "multilabel":
        right = right + outcomes.true_negatives
        total = total + outcomes.false_positives + outcomes.true_negatives
    return ratio(right.sum(1), total.sum(1))


def balanced_accuracy(outcomes: Outcomes) -> Floats:
    """Return ``[rows]``: the mean of recalls, or of recalls and specificities if multi-label."""
    if outcomes.predictions.task == "multiclass":
        return mean_over_classes(recall(outcomes))
    return mean_over_classes((recall(outcomes) + specificity(outcomes)) / 2)


def mean_over_classes(values: Floats) -> Floats:
    """Average ``[rows, C]`` over the classes that have a value."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(1), known.sum(1).astype(np.float64))


def auc_score(has_class: npt.NDArray[np.bool_], probabilities: Floats, level: float) -> Score:
    """Return one class's AUC with DeLong's interval."""
    if _too_few(has_class):
        return Score(None, reason=_NO_VARIANCE)
    value, low, high = auc_interval(has_class, probabilities, level)
    return Score(float(value), float(low), float(high))


def auc_difference_score(
    has_class: npt.NDArray[np.bool_], first: Floats, second: Floats, level: float
) -> Score:
    """Return the AUC of the second probabilities minus that of the first, by DeLong's test."""
    if _too_few(has_class):
        return Score(None, reason=_NO_VARIANCE)
    found = auc_difference(has_class, second, first, level)
    if np.isnan(found.p):
        return Score(found.value, reason="DeLong's variance is 0: no image is between others")
    return Score(found.value, found.low, found.high, p=found.p)


def _too_few(has_class: npt.NDArray[np.bool_]) -> bool:
    return min(int(has_class.sum()), int((~has_class).sum())) < 2


def _weighted_auc(
    weights: Floats, has_class: npt.NDArray[np.bool_], probabilities: Floats
) -> Floats:
    """Return the area under the ROC curve of each row, NaN where it lacks either kind."""
    _, value_of = np.unique(probabilities, return_inverse=True)
    order = np.argsort(value_of, kind="stable")
    starts = np.flatnonzero(np.diff(value_of[order], prepend=-1))
    positive, negative = (
        np.add.reduceat((weights * kind)[:, order], starts, axis=1)
        for kind in (has_class, ~has_class)
    )
    below = negative.cumsum(1) - negative
    wins = (positive * (below + negative / 2)).sum(1)
    return ratio(wins, positive.sum(1) * negative.sum(1))
