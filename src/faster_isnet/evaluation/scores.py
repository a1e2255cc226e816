"""How good predictions are, by class and over all, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import binary_roc

from faster_isnet.checks import check_range
from faster_isnet.evaluation.delong import auc_interval
from faster_isnet.evaluation.intervals import percentiles, resample
from faster_isnet.evaluation.predictions import Predictions

Floats = npt.NDArray[np.float64]
Score = dict[str, Any]
"""``value``, ``low``, ``high``; where there is none they are ``None``, and ``reason`` says why."""

BY_CLASS = ("precision", "recall", "specificity", "f1", "auc")


def scores(
    predictions: Predictions,
    thresholds: Mapping[str, float] | None = None,
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
    weights = np.ones((1, len(predictions.names)))
    drawn = resample(len(predictions.names), predictions.groups, samples, seed)
    weights = np.concatenate([weights, drawn])
    decided, has = _decisions(predictions, thresholds), predictions.has_class
    tables = _tables(weights, decided, has)
    rates = _rates(tables)
    rates["auc"] = np.stack(
        [
            _weighted_auc(weights, has[:, c], predictions.probabilities[:, c])
            for c in range(has.shape[1])
        ],
        axis=1,
    )
    return {
        "images": len(predictions.names),
        "groups": len(set(predictions.groups or predictions.names)),
        "accuracy": _score(_accuracy(tables, predictions.task), level),
        "balanced accuracy": _score(_balanced_accuracy(rates, predictions.task), level),
        "macro": {name: _score(_mean(rates[name]), level) for name in BY_CLASS},
        "classes": {
            name: {
                "images": int(has[:, c].sum()),
                **{rate: _score(rates[rate][:, c], level) for rate in BY_CLASS[:-1]},
                "auc": _auc(has[:, c], predictions.probabilities[:, c], level),
            }
            for c, name in enumerate(predictions.class_names)
        },
        "confusion": _confusion(predictions, decided, tables),
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


def _decisions(
    predictions: Predictions, thresholds: Mapping[str, float] | None
) -> npt.NDArray[np.bool_]:
    """Return ``[N, C]``, which classes each image is said to have."""
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
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Divide, with NaN for 0 / 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: Floats) -> Floats:
    """Average over the classes that have a value."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(1), known.sum(1).astype(np.float64))


def _accuracy(tables: Mapping[str, Floats], task: str) -> Floats:
    right = tables["tp"] if task == "multiclass" else tables["tp"] + tables["tn"]
    asked = tables["tp"] + tables["fn"]
    if task == "multilabel":
        asked = asked + tables["fp"] + tables["tn"]
    return _ratio(right.sum(1), asked.sum(1))


def _balanced_accuracy(rates: Mapping[str, Floats], task: str) -> Floats:
    if task == "multiclass":
        return _mean(rates["recall"])
    return _mean((rates["recall"] + rates["specificity"]) / 2)


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
    return _ratio(wins, positive.sum(1) * negative.sum(1))


def _score(values: Floats, level: float) -> Score:
    """Return the first of the values, with the interval of the others."""
    if np.isnan(values[0]):
        return _none("no image has the class, or none is said to have it")
    interval = percentiles(values[1:], level)
    if interval is None:
        return {**_none("too few images for an interval"), "value": float(values[0])}
    return {"value": float(values[0]), "low": interval[0], "high": interval[1]}


def _auc(has: npt.NDArray[np.bool_], score: Floats, level: float) -> Score:
    if min(has.sum(), (~has).sum()) < 2:
        return _none("needs two images with the class and two without")
    value, low, high = auc_interval(has, score, level)
    return {"value": float(value), "low": float(low), "high": float(high)}


def _none(reason: str) -> Score:
    return {"value": None, "low": None, "high": None, "reason": reason}


def _confusion(
    predictions: Predictions, decided: npt.NDArray[np.bool_], tables: Mapping[str, Floats]
) -> list[Any]:
    if predictions.task == "multiclass":
        counts = predictions.has_class.T.astype(int) @ decided.astype(int)
        return counts.tolist()  # type: ignore[no-any-return]
    first = {name: table[0].astype(int).tolist() for name, table in tables.items()}
    each = zip(first["tn"], first["fp"], first["fn"], first["tp"], strict=True)
    return [[[tn, fp], [fn, tp]] for tn, fp, fn, tp in each]
