"""How two classifiers differ on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from faster_isnet.evaluation.delong import auc_difference
from faster_isnet.evaluation.intervals import Floats, Score, no_score, original_and_resamples, score
from faster_isnet.evaluation.measures import Thresholds, measure
from faster_isnet.evaluation.predictions import Predictions, check_same_images


def differences(
    first: Predictions,
    second: Predictions,
    first_thresholds: Thresholds = None,
    second_thresholds: Thresholds = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two classifiers' predictions of the same images.

    Parameters
    ----------
    first, second
        In the same order.
    first_thresholds, second_thresholds
        For several labels, see :func:`~faster_isnet.evaluation.scores`.
    samples, level, seed
        Of the intervals, see :func:`~faster_isnet.evaluation.scores`.

    Returns
    -------
    dict
        As :func:`~faster_isnet.evaluation.scores` returns, second minus first, without the
        ``groups`` and the ``confusion``. Intervals are of resampled groups, drawn for both at
        once; those of a class's ``auc`` are DeLong's, with the two-sided ``p`` of no difference.

    Raises
    ------
    ValueError
        If they are not of the same images and classes, or as
        :func:`~faster_isnet.evaluation.scores` does.
    """
    check_same_images(first, second)
    weights = original_and_resamples(len(first.names), first.groups, samples, seed)
    a = measure(first, first_thresholds, weights)
    b = measure(second, second_thresholds, weights)
    has = first.has_class
    return {
        "images": len(first.names),
        **_scored(a.overall, b.overall, level),
        "macro": _scored(a.macro, b.macro, level),
        "classes": {
            name: {
                "images": int(has[:, c].sum()),
                **_scored(_of_class(a.by_class, c), _of_class(b.by_class, c), level),
                "auc": _auc(first, second, c, level),
            }
            for c, name in enumerate(first.class_names)
        },
    }


def _of_class(values: Mapping[str, Floats], c: int) -> dict[str, Floats]:
    return {name: each[:, c] for name, each in values.items()}


def _scored(
    first: Mapping[str, Floats], second: Mapping[str, Floats], level: float
) -> dict[str, Score]:
    return {
        name: score(second[name] - first[name], level, "one of the two has no value")
        for name in first
    }


def _auc(first: Predictions, second: Predictions, c: int, level: float) -> Score:
    has = first.has_class[:, c]
    if min(has.sum(), np.logical_not(has).sum()) < 2:
        return no_score("needs two images with the class and two without")
    found = auc_difference(has, second.probabilities[:, c], first.probabilities[:, c], level)
    if np.isnan(found.p):
        return {
            **no_score("DeLong's variance is 0: no image is between others"),
            "value": found.value,
        }
    return found._asdict()
