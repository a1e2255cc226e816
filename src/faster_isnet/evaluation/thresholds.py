"""Choose decision thresholds, and decide on classes with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import binary_roc

from faster_isnet.common.checks import check_range
from faster_isnet.evaluation.predictions import Predictions

Thresholds = Mapping[str, float] | None
"""For multi-label predictions: the lowest probability that assigns a class, by class name."""


def decisions(predictions: Predictions, thresholds: Thresholds) -> npt.NDArray[np.bool_]:
    """Decide which classes each image is assigned.

    Parameters
    ----------
    predictions
        Of N images and C classes.
    thresholds
        For multi-label predictions: the lowest probability that assigns a class, by class; 0.5 for
        classes that are not named. Multi-class predictions take the most probable class.

    Returns
    -------
    array
        ``[N, C]`` of booleans.

    Raises
    ------
    ValueError
        If a threshold names no class or is not in [0, 1]; if thresholds are given for multi-class
        predictions.
    """
    names = list(predictions.class_names)
    if predictions.task == "multiclass":
        if thresholds is not None:
            raise ValueError(
                "thresholds are for multi-label predictions; these images have one label each"
            )
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


def choose_thresholds(validation: Predictions) -> dict[str, float]:
    """Choose per-class decision thresholds on the validation set.

    Each class gets the threshold with the largest recall + specificity − 1 (Youden, Cancer 3,
    1950), which does not depend on how frequent the class is; of several the highest.

    Parameters
    ----------
    validation
        Multi-label predictions of images that are not in the test set.

    Raises
    ------
    ValueError
        If no image has a class, or all have it.
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
