"""Measure how predictions change when images are changed."""

from __future__ import annotations

from collections.abc import Sequence

from faster_isnet.common.renaming import renamed_arguments
from faster_isnet.evaluation.changes import Change
from faster_isnet.evaluation.intervals import Score, mean_score, original_and_resamples
from faster_isnet.evaluation.measures import MEASURES, Measure, SensitivityMeasure, of_type
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.thresholds import Thresholds


@renamed_arguments(samples="resamples")
def sensitivity(
    before: Predictions,
    after: Predictions,
    thresholds: Thresholds = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    measures: Sequence[Measure] = MEASURES,
) -> dict[str, Score]:
    """Compare predictions of images before and after the images were changed.

    Parameters
    ----------
    before, after
        Of the same images, such as with another background
        (:class:`~faster_isnet.data.backgrounds.ReplacedBackground`).
    thresholds
        For multi-label predictions, see :func:`~faster_isnet.evaluation.scores`.
    resamples, level, seed
        Of the intervals, which are of resampled groups; see
        :func:`~faster_isnet.evaluation.scores`.
    measures
        Those of sensitivity are computed.

    Returns
    -------
    dict
        A :class:`~faster_isnet.evaluation.intervals.Score` for each measure of sensitivity, by its
        name.

    Raises
    ------
    ValueError
        If they are not of the same images and classes, or as
        :func:`~faster_isnet.evaluation.scores` does.

    Examples
    --------
    >>> import numpy as np
    >>> labels, probabilities = np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> before = Predictions(["a", "b"], labels, probabilities, ["no", "yes"])
    >>> after = Predictions(["a", "b"], labels, probabilities[[0, 0]], ["no", "yes"])
    >>> sensitivity(before, after)["changed"].value
    0.5
    """
    change = Change.of(before, after, thresholds)
    weights = original_and_resamples(len(before.names), before.groups, resamples, seed)
    return {
        measure.name: mean_score(
            measure.function(change), weights, level, measure.interval, measure.is_share
        )
        for measure in of_type(measures, SensitivityMeasure)
    }
