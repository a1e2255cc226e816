"""Choose thresholds of a given specificity on validation images, and score them on others."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from faster_isnet.common.checks import check_range
from faster_isnet.evaluation.classification import Outcomes, recall, specificity
from faster_isnet.evaluation.intervals import original_and_resamples
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.results import OperatingPoint
from faster_isnet.evaluation.scores import resampled_score


def choose_operating_thresholds(
    validation: Predictions, least_specificity: float = 0.95
) -> dict[str, float]:
    """Choose for each class the lowest threshold of its probability with a given specificity.

    Parameters
    ----------
    validation
        Of images that are not in the test set.
    least_specificity
        Share of the images without the class whose probability is below the threshold, at least;
        in [0, 1].

    Returns
    -------
    dict
        By class; classes that no validation image has, or all have, are left out. Infinite where
        no threshold reaches it but one that assigns no image.

    Raises
    ------
    ValueError
        If the specificity is out of range.

    Examples
    --------
    >>> labels, has = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    >>> probabilities = np.stack([1 - has, has], axis=1)
    >>> validation = Predictions(list("abcd"), labels, probabilities, ["no", "yes"])
    >>> choose_operating_thresholds(validation)["yes"]
    0.9
    """
    check_range("specificity", least_specificity, 0, 1)
    chosen = {}
    for name, has, probabilities in zip(
        validation.class_names, validation.has_class.T, validation.probabilities.T, strict=True
    ):
        if not has.any() or has.all():
            continue
        candidates, without = np.unique(probabilities), np.sort(probabilities[~has])
        spared = np.searchsorted(without, candidates) / len(without)
        enough = candidates[spared >= least_specificity]
        chosen[name] = float(enough[0]) if len(enough) else math.inf
    return chosen


def operating_points(
    predictions: Predictions,
    thresholds: Mapping[str, float],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, OperatingPoint]:
    """Score each class against all others at a threshold of its probability.

    Parameters
    ----------
    predictions
        Of images that the thresholds were not chosen on.
    thresholds
        By class, such as :func:`choose_operating_thresholds` finds; the lowest probability that
        assigns the class.
    resamples, level, seed
        Of the intervals, see :func:`~faster_isnet.evaluation.scores`.

    Raises
    ------
    ValueError
        If a threshold is of no class.
    """
    names = list(predictions.class_names)
    if unknown := thresholds.keys() - set(names):
        raise ValueError(f"thresholds name {sorted(unknown)}, but the classes are {names}")
    if not thresholds:
        return {}
    weights = original_and_resamples(len(predictions.names), predictions.groups, resamples, seed)
    limits = np.array([thresholds.get(name, np.inf) for name in names])
    outcomes = Outcomes(predictions, predictions.probabilities >= limits, weights)
    has, groups = predictions.has_class, np.asarray(predictions.groups or predictions.names)
    found, spared = recall(outcomes), specificity(outcomes)
    return {
        name: OperatingPoint(
            thresholds[name],
            sensitivity=resampled_score(found[:, c], has[:, c : c + 1], groups, level),
            specificity=resampled_score(spared[:, c], ~has[:, c : c + 1], groups, level),
        )
        for c, name in enumerate(names)
        if name in thresholds
    }
