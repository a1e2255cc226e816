"""Score predictions by class and over all, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from faster_isnet.common.renaming import renamed_arguments
from faster_isnet.evaluation.classification import Outcomes, mean_over_classes
from faster_isnet.evaluation.intervals import (
    Floats,
    Score,
    original_and_resamples,
    score,
    with_exact_ends,
)
from faster_isnet.evaluation.measures import (
    MEASURES,
    ClassMeasure,
    Measure,
    OverallMeasure,
    of_type,
)
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.results import ClassScores, Confusion, Counts, Scores
from faster_isnet.evaluation.thresholds import Thresholds

_UNDEFINED = "no image has the class, or none is predicted to have it"


@renamed_arguments(samples="resamples")
def scores(
    predictions: Predictions,
    thresholds: Thresholds = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    measures: Sequence[Measure] = MEASURES,
) -> Scores:
    """Score predictions, with intervals.

    Parameters
    ----------
    predictions
        Of one data set.
    thresholds
        For multi-label predictions: the lowest probability that assigns a class, by class (0.5 by
        default), such as :func:`choose_thresholds` finds on validation images. Multi-class
        predictions take the most probable class.
    resamples, seed
        Of the resampling, see :func:`~faster_isnet.evaluation.intervals.resample`.
    level
        Of the intervals, in (0, 1).
    measures
        Those of all predictions and of classes are computed, see
        :data:`~faster_isnet.evaluation.measures.MEASURES`.

    Returns
    -------
    Scores
        Intervals are of resampled groups; those of a class's AUC are DeLong's, which take each
        image as independent. A share of 0 or 1, on which all resamples agree, has Clopper and
        Pearson's interval, by the number of groups.

    Raises
    ------
    ValueError
        If a threshold names no class or is not in [0, 1]; if thresholds are given for multi-class
        predictions.

    Examples
    --------
    >>> import numpy as np
    >>> labels, probabilities = np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]])
    >>> scores(Predictions(["a", "b"], labels, probabilities, ["no", "yes"])).overall["accuracy"]
    Score(value=0.5, low=0.0, high=1.0, reason=None, p=None)
    """
    weights = original_and_resamples(len(predictions.names), predictions.groups, resamples, seed)
    outcomes = Outcomes.of(predictions, thresholds, weights)
    by_class = [(m, m.function(outcomes)) for m in of_type(measures, ClassMeasure)]

    groups = np.asarray(predictions.groups or predictions.names)

    def scored(
        measure: OverallMeasure | ClassMeasure, values: Floats, classes: slice = slice(None)
    ) -> Score:
        counted = None if measure.counted is None else measure.counted(outcomes)[:, classes]
        return resampled_score(values, counted, groups, level, measure.interval)

    def of_class(c: int) -> ClassScores:
        has = predictions.has_class[:, c]
        return ClassScores(
            int(has.sum()),
            {
                m.name: m.class_score(has, predictions.probabilities[:, c], level)
                if m.class_score
                else scored(m, values[:, c], slice(c, c + 1))
                for m, values in by_class
            },
        )

    return Scores(
        images=len(predictions.names),
        groups=len(set(predictions.groups or predictions.names)),
        overall={
            m.name: scored(m, m.function(outcomes)) for m in of_type(measures, OverallMeasure)
        },
        macro={m.name: scored(m, mean_over_classes(values)) for m, values in by_class},
        classes={name: of_class(c) for c, name in enumerate(predictions.class_names)},
        confusion=_confusion(outcomes),
    )


def resampled_score(
    values: Floats,
    counted: npt.NDArray[np.bool_] | None,
    groups: npt.NDArray[np.str_],
    level: float,
    interval: bool = True,
) -> Score:
    """Return a score with the interval of its resamples, or the exact one of a share of 0 or 1.

    Parameters
    ----------
    values
        ``[rows]``, of the original sample and its resamples.
    counted
        ``[N, shares]``, the images that a share is of; ``None`` if it is no share.
    groups
        ``[N]``, the group of each image.
    level
        Of the interval, in (0, 1).
    interval
        Whether there is one.
    """
    found = score(values, level, _UNDEFINED, interval)
    if counted is None or found.low != found.high:
        return found
    return with_exact_ends(found, [len(set(groups[column])) for column in counted.T], level)


def _confusion(outcomes: Outcomes) -> Confusion:
    has, decided = outcomes.predictions.has_class, outcomes.decided
    if outcomes.predictions.task == "multiclass":
        return Confusion((_counts(has.T.astype(int) @ decided.astype(int)),), multilabel=False)
    tables = (
        _counts([[(row & column).sum() for column in (~said, said)] for row in (~true, true)])
        for true, said in zip(has.T, decided.T, strict=True)
    )
    return Confusion(tuple(tables), multilabel=True)


def _counts(rows: object) -> Counts:
    return tuple(tuple(int(count) for count in row) for row in rows)  # type: ignore[attr-defined]
