"""Compare two classifiers on the same images."""

from __future__ import annotations

from collections.abc import Sequence

from faster_isnet.common.renaming import renamed_arguments
from faster_isnet.evaluation.classification import Outcomes, mean_over_classes
from faster_isnet.evaluation.intervals import Floats, Score, original_and_resamples, score
from faster_isnet.evaluation.measures import (
    MEASURES,
    ClassMeasure,
    Measure,
    OverallMeasure,
    of_type,
)
from faster_isnet.evaluation.predictions import Predictions, check_same_images
from faster_isnet.evaluation.results import ClassScores, Differences
from faster_isnet.evaluation.thresholds import Thresholds


@renamed_arguments(samples="resamples")
def differences(
    first: Predictions,
    second: Predictions,
    first_thresholds: Thresholds = None,
    second_thresholds: Thresholds = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    measures: Sequence[Measure] = MEASURES,
) -> Differences:
    """Compare two classifiers' predictions of the same images.

    Parameters
    ----------
    first, second
        In the same order.
    first_thresholds, second_thresholds
        For multi-label predictions, see :func:`~faster_isnet.evaluation.scores`.
    resamples
        Number of resamples of groups of images, see :func:`~faster_isnet.evaluation.scores`.
    level
        Of the intervals, in (0, 1).
    seed
        Of the resampling.
    measures
        Those of all predictions and of classes are compared.

    Returns
    -------
    Differences
        Second minus first. Both are measured on the same resamples of groups; the intervals of a
        class's AUC are DeLong's, with the two-sided ``p`` of no difference.

    Raises
    ------
    ValueError
        If they are not of the same images and classes, or as
        :func:`~faster_isnet.evaluation.scores` does.
    """
    check_same_images(first, second)
    weights = original_and_resamples(len(first.names), first.groups, resamples, seed)
    one = Outcomes.of(first, first_thresholds, weights)
    two = Outcomes.of(second, second_thresholds, weights)
    by_class = [(m, m.function(one), m.function(two)) for m in of_type(measures, ClassMeasure)]

    def scored(measure: Measure, a: Floats, b: Floats) -> Score:
        return score(b - a, level, "one of the two has no value", measure.interval)

    def of_class(c: int) -> ClassScores:
        has = first.has_class[:, c]
        pair = first.probabilities[:, c], second.probabilities[:, c]
        return ClassScores(
            int(has.sum()),
            {
                m.name: m.class_difference(has, *pair, level)
                if m.class_difference
                else scored(m, a[:, c], b[:, c])
                for m, a, b in by_class
            },
        )

    return Differences(
        images=len(first.names),
        overall={
            m.name: scored(m, m.function(one), m.function(two))
            for m in of_type(measures, OverallMeasure)
        },
        macro={
            m.name: scored(m, mean_over_classes(a), mean_over_classes(b)) for m, a, b in by_class
        },
        classes={name: of_class(c) for c, name in enumerate(first.class_names)},
    )
