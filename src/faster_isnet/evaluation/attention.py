"""Measure where a model's relevance lies, image by image and on average."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor
from torchmetrics import MeanMetric

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_MASK
from faster_isnet.common.logits import class_logits
from faster_isnet.common.renaming import renamed_arguments
from faster_isnet.evaluation.intervals import Score, mean_score, original_and_resamples
from faster_isnet.evaluation.localisation import background_share
from faster_isnet.evaluation.measures import (
    BACKGROUND_SHARE,
    MEASURES,
    AttentionMeasure,
    Measure,
    of_type,
)
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.results import Attention, ClassScores
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.explaining.targets import Target

PREDICTION = "highest-log-odds"
"""What is explained when a model is evaluated: the log-odds of the predicted class, not its logit,
which training leaves free to shift."""


def mean_background_share(explainer: Explainer, batches: Iterable[tuple[Tensor, ...]]) -> float:
    """Return the mean :func:`background_share` of heatmaps of the predicted class's log-odds.

    Parameters
    ----------
    explainer
        Of the model to evaluate, in eval mode.
    batches
        ``(images, labels, masks)``; the labels are not used.
    """
    mean = MeanMetric()
    for batch in map(Batch.of, batches):
        heatmap = explainer(batch.images, PREDICTION).heatmap
        mean.update(background_share(heatmap, batch.needed("masks")))
    return float(mean.compute())


def measure_attention(
    explainer: Explainer,
    batches: Iterable[Any],
    names: Sequence[str],
    target: Target = PREDICTION,
    measures: Sequence[Measure] = MEASURES,
) -> pd.DataFrame:
    """Measure where a model's relevance lies, for each image that has a mask.

    Parameters
    ----------
    explainer
        Of the model to evaluate, in eval mode.
    batches
        ``(images, labels, masks)`` in the order of ``names``; a mask filled with ``NO_MASK`` is
        none.
    names
        Of all images.
    target
        What is explained: the predicted class's log-odds, or if multi-label such as
        ``"highest-logit"``.
    measures
        Those of attention are computed, see :data:`~faster_isnet.evaluation.measures.MEASURES`.

    Returns
    -------
    pandas.DataFrame
        A row for each image with a mask: ``name``, ``predicted`` (index of the highest logit), and
        a column for each measure.

    Raises
    ------
    ValueError
        If there are more or fewer names than images.
    """
    of_attention = of_type(measures, AttentionMeasure)
    found: dict[str, list[Any]] = {"predicted": [], **{m.name: [] for m in of_attention}}
    has_mask: list[bool] = []
    for batch in map(Batch.of, batches):
        images, masks = batch.images, batch.needed("masks")
        known = (masks != NO_MASK).flatten(1).all(1)
        has_mask += known.tolist()
        if not known.any():
            continue
        explanation = explainer(images[known], target)
        found["predicted"] += class_logits(explanation.logits).argmax(1).tolist()
        for measure in of_attention:
            found[measure.name] += measure.function(explanation.heatmap, masks[known]).tolist()
    if len(has_mask) != len(names):
        raise ValueError(f"there are {len(names)} names for {len(has_mask)} images")
    return pd.DataFrame({"name": list(compress(names, has_mask)), **found})


@renamed_arguments(samples="resamples")
def attention_scores(
    attention: pd.DataFrame,
    predictions: Predictions,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    measures: Sequence[Measure] = MEASURES,
) -> Attention:
    """Average measures of attention over all images and over those of each class.

    Parameters
    ----------
    attention
        Of :func:`measure_attention`.
    predictions
        Of the same images and possibly others; their labels and groups are used.
    resamples, level, seed
        Of the intervals, which are of resampled groups; see
        :func:`~faster_isnet.evaluation.scores`.
    measures
        Those of attention that ``attention`` has a column of.

    Raises
    ------
    ValueError
        If there is no image, or one is named twice or has no prediction.
    """
    chosen = predictions.take(positions(attention, predictions))
    weights = original_and_resamples(len(chosen.names), chosen.groups, resamples, seed)

    def averaged(counted: npt.NDArray[np.bool_]) -> dict[str, Score]:
        return {
            m.name: mean_score(attention[m.name], weights * counted, level, m.interval)
            for m in of_type(measures, AttentionMeasure)
            if m.name in attention
        }

    return Attention(
        len(chosen.names),
        averaged(np.ones(len(chosen.names), dtype=bool)),
        {
            name: ClassScores(int(of_class.sum()), averaged(of_class))
            for name, of_class in zip(chosen.class_names, chosen.has_class.T, strict=True)
        },
    )


def worst(attention: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the images with the highest background share, the highest first."""
    return attention.sort_values(BACKGROUND_SHARE, ascending=False, kind="stable").head(count)


def positions(attention: pd.DataFrame, predictions: Predictions) -> list[int]:
    """Return the indices of the images of :func:`measure_attention` among the predictions.

    Raises
    ------
    ValueError
        If an image is named twice, or has no prediction.
    """
    place = {name: position for position, name in enumerate(predictions.names)}
    if len(place) < len(predictions.names) or attention["name"].duplicated().any():
        raise ValueError("two images have the same name; leave one out, or rename it")
    if unknown := [name for name in attention["name"] if name not in place]:
        raise ValueError(f"there is no prediction for {unknown[0]!r}; predict the same images")
    return [place[name] for name in attention["name"]]
