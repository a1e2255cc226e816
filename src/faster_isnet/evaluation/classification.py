"""Compute accuracy, rates, areas and calibration of the original and all resamples at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from faster_isnet.evaluation.delong import auc_difference, auc_interval
from faster_isnet.evaluation.intervals import Floats, Score, ratio
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.thresholds import Thresholds, decisions

CALIBRATION_BINS = 15
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


def average_precision(outcomes: Outcomes) -> Floats:
    """Return ``[rows, C]``: the mean precision over thresholds, weighted by the steps of recall."""
    has, probabilities = outcomes.predictions.has_class, outcomes.predictions.probabilities
    columns = [
        _weighted_average_precision(outcomes.weights, has[:, c], probabilities[:, c])
        for c in range(has.shape[1])
    ]
    return np.stack(columns, axis=1)


def brier_score(outcomes: Outcomes) -> Floats:
    """Return ``[rows]``: the mean of Σ(p − y)² over classes, if multi-label of (p − y)².

    y is 1 for a class that an image has, and else 0 (Brier 1950).
    """
    predictions = outcomes.predictions
    squares = (predictions.probabilities - predictions.has_class) ** 2
    of_image = squares.sum(1) if predictions.task == "multiclass" else squares.mean(1)
    return ratio(outcomes.weights @ of_image, outcomes.weights.sum(1))


def calibration_error(outcomes: Outcomes) -> Floats:
    """Return ``[rows]``: the expected calibration error (Guo et al. 2017), by 15 equal bins.

    The mean over images of the gap, in the bin of their confidence, between its mean confidence
    and the share of them that are right; see :func:`confidences`.
    """
    confidence, right = confidences(outcomes.predictions)
    bins = np.eye(CALIBRATION_BINS)[calibration_bin(confidence)]  # [N, L, bins]
    gaps = outcomes.weights @ ((right - confidence)[..., None] * bins).sum(1)
    return ratio(np.abs(gaps).sum(1), outcomes.weights.sum(1) * confidence.shape[1])


def confidences(predictions: Predictions) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the probability of what is said of each image, and whether it is true.

    Returns
    -------
    tuple of arrays
        Multi-class: ``[N, 1]``, of the most probable class. Multi-label: ``[N, C]``, of each class.
    """
    if predictions.task == "multilabel":
        return predictions.probabilities, predictions.has_class
    said = predictions.probabilities.argmax(1)[:, None]
    return (
        np.take_along_axis(predictions.probabilities, said, 1),
        np.take_along_axis(predictions.has_class, said, 1),
    )


def calibration_curve(predictions: Predictions) -> tuple[Floats, Floats, Floats]:
    """Return for each bin its mean confidence, the share that are right, and how many there are.

    Confidence and share of an empty bin are NaN.
    """
    confidence, right = confidences(predictions)
    bins = calibration_bin(confidence).ravel()
    count, sum_of_confidence, sum_of_right = (
        np.bincount(bins, weights=each.ravel(), minlength=CALIBRATION_BINS).astype(np.float64)
        for each in (np.ones_like(confidence), confidence, right)
    )
    return ratio(sum_of_confidence, count), ratio(sum_of_right, count), count


def calibration_bin(confidence: Floats) -> npt.NDArray[np.int64]:
    """Return the index of the bin that each probability is in."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


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


def _weighted_average_precision(
    weights: Floats, has_class: npt.NDArray[np.bool_], probabilities: Floats
) -> Floats:
    """Return the average precision of each row, NaN where no image has the class."""
    _, value_of = np.unique(-probabilities, return_inverse=True)
    order = np.argsort(value_of, kind="stable")
    starts = np.flatnonzero(np.diff(value_of[order], prepend=-1))
    positive, all_images = (
        np.add.reduceat((weights * kind)[:, order], starts, axis=1)
        for kind in (has_class, np.ones_like(has_class))
    )
    precisions = ratio(positive.cumsum(1), all_images.cumsum(1))
    # Without any image so far there is no step of recall either.
    return ratio(np.nan_to_num(positive * precisions).sum(1), positive.sum(1))
