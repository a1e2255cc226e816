"""What the background does to predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from faster_isnet.evaluation.intervals import mean_score, original_and_resamples
from faster_isnet.evaluation.measures import Thresholds, decisions
from faster_isnet.evaluation.predictions import Predictions, check_same_images


def sensitivity(
    before: Predictions,
    after: Predictions,
    thresholds: Thresholds = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare predictions of images before and after something was done to them.

    Parameters
    ----------
    before, after
        Of the same images, such as with another background
        (:class:`~faster_isnet.data.backgrounds.ReplacedBackground`).
    thresholds
        For several labels, see :func:`~faster_isnet.evaluation.scores`.
    samples, level, seed
        Of the intervals, which are of resampled groups; see
        :func:`~faster_isnet.evaluation.scores`.

    Returns
    -------
    dict
        A :data:`~faster_isnet.evaluation.intervals.Score` each: ``changed``, the share of images
        whose predicted class is another (with several labels, of labels); ``probability change``,
        the mean of ½ Σ|Δp| over classes, the largest change of any set of classes' probability
        (with several labels, the mean of |Δp|); ``accuracy``, after.

    Raises
    ------
    ValueError
        If they are not of the same images and classes, or as
        :func:`~faster_isnet.evaluation.scores` does.
    """
    check_same_images(before, after)
    old, new = decisions(before, thresholds), decisions(after, thresholds)
    moved = np.abs(after.probabilities - before.probabilities)
    if before.task == "multiclass":
        changed, moved = (old != new).any(1), moved.sum(1) / 2
        right = (new & after.has_class).any(1)
    else:
        changed, moved = (old != new).mean(1), moved.mean(1)
        right = (new == after.has_class).mean(1)
    weights = original_and_resamples(len(before.names), before.groups, samples, seed)
    return {
        "changed": mean_score(changed, weights, level),
        "probability change": mean_score(moved, weights, level),
        "accuracy": mean_score(right, weights, level),
    }
