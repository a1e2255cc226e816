"""Measure how much each image's prediction changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from faster_isnet.evaluation.intervals import Floats
from faster_isnet.evaluation.predictions import Predictions, check_same_images
from faster_isnet.evaluation.thresholds import Thresholds, decisions


@dataclass(frozen=True, eq=False)
class Change:
    """Hold predictions of the same N images before and after their images were changed.

    Parameters
    ----------
    before, after
        Of N images and C classes.
    decided_before, decided_after
        ``[N, C]``, the classes that each image is assigned.
    """

    before: Predictions
    after: Predictions
    decided_before: npt.NDArray[np.bool_]
    decided_after: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, before: Predictions, after: Predictions, thresholds: Thresholds) -> Change:
        """Decide by thresholds; raise ``ValueError`` if the images or classes differ."""
        check_same_images(before, after)
        return cls(before, after, decisions(before, thresholds), decisions(after, thresholds))

    @property
    def is_multilabel(self) -> bool:
        """Whether an image can have several classes."""
        return self.before.task == "multilabel"


def changed(change: Change) -> Floats:
    """Return ``[N]``: 1 if the predicted class changes, 0 if not; or the share of labels."""
    differs = change.decided_before != change.decided_after
    return _share_of_labels(differs) if change.is_multilabel else _any_label(differs)


def probability_change(change: Change) -> Floats:
    """Return ``[N]`` in [0, 1]: ½ Σ|Δp| over classes, or the mean of |Δp| if multi-label.

    The former is the total variation distance: the largest change of the probability of any set of
    classes.
    """
    moved: Floats = np.abs(change.after.probabilities - change.before.probabilities)
    return _share_of_labels(moved) if change.is_multilabel else moved.sum(1) / 2


def accuracy_after(change: Change) -> Floats:
    """Return ``[N]``: 1 if an image is classified correctly after the change, or the share."""
    has, decided = change.after.has_class, change.decided_after
    return _share_of_labels(decided == has) if change.is_multilabel else _any_label(decided & has)


def _share_of_labels(each: npt.NDArray[Any]) -> Floats:
    """Average over the classes, ``[N, C]`` to ``[N]``."""
    mean: Floats = each.mean(1)
    return mean


def _any_label(each: npt.NDArray[np.bool_]) -> Floats:
    """Return 1 where anything is true of an image, 0 elsewhere, ``[N, C]`` to ``[N]``."""
    found: Floats = np.any(each, axis=1).astype(np.float64)
    return found
