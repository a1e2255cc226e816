"""How good predictions are, by class and over all, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import binary_roc

from faster_isnet.evaluation.delong import auc_interval
from faster_isnet.evaluation.intervals import (
    Floats,
    Score,
    no_score,
    original_and_resamples,
    score,
)
from faster_isnet.evaluation.measures import Thresholds, decisions, measure
from faster_isnet.evaluation.predictions import Predictions


def scores(
    predictions: Predictions,
    thresholds: Thresholds = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge predictions.

    Parameters
    ----------
    predictions
        Of one data set.
    thresholds
        For several labels: from which probability on an image is said to have a class, by class
        (0.5 by default), such as :func:`choose_thresholds` finds on validation images. With one
        label an image's class is the most probable one.
    samples, seed
        Of the resampling, see :func:`~faster_isnet.evaluation.intervals.resample`.
    level
        Of the intervals, in (0, 1).

    Returns
    -------
    dict
        Ready for JSON. ``images`` and ``groups`` (how many); ``accuracy`` (with several labels the
        share of labels that are right) and ``balanced accuracy`` (the mean of recalls; with
        several labels of recalls and specificities); under ``classes`` for each class its
        ``images``, ``precision``, ``recall``, ``specificity``, ``f1`` and ``auc``; under
        ``macro`` their means over the classes that have them; ``confusion``, ``[C, C]`` of counts
        (true class, predicted class), or with several labels a 2 × 2 table for each class (true
        no and yes, predicted no and yes).

        Each is a :data:`Score`. Intervals are of resampled groups, those of a class's ``auc``
        DeLong's, which take each image for itself. Where all resamples agree, as for a rate of 1,
        the interval is that one value, and says nothing of how few images there were.

    Raises
    ------
    ValueError
        If a threshold is of no class or not in [0, 1]; if thresholds are given for one label.
    """
    weights = original_and_resamples(len(predictions.names), predictions.groups, samples, seed)
    found = measure(predictions, thresholds, weights)
    has = predictions.has_class
    return {
        "images": len(predictions.names),
        "groups": len(set(predictions.groups or predictions.names)),
        **_scored(found.overall, level),
        "macro": _scored(found.macro, level),
        "classes": {
            name: {
                "images": int(has[:, c].sum()),
                **_scored({rate: each[:, c] for rate, each in found.by_class.items()}, level),
                "auc": _auc(has[:, c], predictions.probabilities[:, c], level),
            }
            for c, name in enumerate(predictions.class_names)
        },
        "confusion": _confusion(predictions, decisions(predictions, thresholds)),
    }


def choose_thresholds(validation: Predictions) -> dict[str, float]:
    """Choose for each class from which probability on an image is said to have it.

    The one with the largest recall + specificity − 1 (Youden, Cancer 3, 1950), which does not
    depend on how frequent the class is; of several the highest.

    Parameters
    ----------
    validation
        Of images that are not those to be judged, with several labels.

    Raises
    ------
    ValueError
        If a class has no image, or all.
    """
    chosen = {}
    for number, name in enumerate(validation.class_names):
        has = torch.from_numpy(validation.has_class[:, number]).long()
        if not 0 < int(has.sum()) < len(has):
            raise ValueError(
                f"no threshold can be chosen for {name!r}: {int(has.sum())} of {len(has)} "
                "validation images have it; add some that do and some that do not"
            )
        probabilities = torch.from_numpy(validation.probabilities[:, number])
        false, true, thresholds = binary_roc(probabilities, has)
        chosen[name] = float(thresholds[(true - false).argmax()].clamp(max=1))
    return chosen


def _scored(values: Mapping[str, Floats], level: float) -> dict[str, Score]:
    reason = "no image has the class, or none is said to have it"
    return {name: score(each, level, reason) for name, each in values.items()}


def _auc(has: npt.NDArray[np.bool_], scores: Floats, level: float) -> Score:
    if min(has.sum(), (~has).sum()) < 2:
        return no_score("needs two images with the class and two without")
    value, low, high = auc_interval(has, scores, level)
    return {"value": float(value), "low": float(low), "high": float(high)}


def _confusion(predictions: Predictions, decided: npt.NDArray[np.bool_]) -> list[Any]:
    has = predictions.has_class
    if predictions.task == "multiclass":
        return (has.T.astype(int) @ decided.astype(int)).tolist()  # type: ignore[no-any-return]
    return [
        [[int((row & column).sum()) for column in (~said, said)] for row in (~true, true)]
        for true, said in zip(has.T, decided.T, strict=True)
    ]
