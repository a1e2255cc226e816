"""Where a model looks: how much of its relevance falls on the background."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_MASK
from faster_isnet.common.logits import class_logits
from faster_isnet.evaluation.intervals import mean_score, original_and_resamples
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.explaining.targets import Target

PREDICTION = "highest-log-odds"
"""What is explained when a model is judged: the odds of the predicted class, not its logit, which
training leaves free to shift."""


def background_share(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of the absolute relevance that lies in the background.

    Parameters
    ----------
    heatmaps
        ``[B, K, C, ...]`` or ``[B, C, ...]``.
    masks
        ``[B, 1, ...]`` in {0, 1}, 1 in the foreground.

    Returns
    -------
    Tensor
        ``[B]`` in [0, 1]: Σ|R|⊙(1 − M) / Σ|R| over all heatmaps of a sample, 0 where a heatmap
        holds no relevance at all.

    Raises
    ------
    ValueError
        If heatmaps and masks differ in batch or size.

    Examples
    --------
    >>> heatmap = torch.tensor([[[[1.0, -3.0]]]])
    >>> background_share(heatmap, torch.tensor([[[[1.0, 0.0]]]]))
    tensor([0.7500])
    """
    _check_fit(heatmaps, masks)
    spatial = masks.shape[2:]
    sizes = heatmaps.abs().reshape(len(heatmaps), -1, *spatial)
    total = sizes.flatten(1).sum(1)
    outside = (sizes * (1 - masks.to(sizes))).flatten(1).sum(1)
    return outside / total.clamp(min=torch.finfo(total.dtype).tiny)


def relevance_mass_accuracy(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of the positive relevance that lies in the foreground.

    Relevance is summed over channels first. Only what is positive then counts: it is what speaks
    for the explained class.

    Parameters
    ----------
    heatmaps
        ``[B, K, C, ...]`` or ``[B, C, ...]``; of K heatmaps the mean is taken.
    masks
        ``[B, 1, ...]`` in {0, 1}, 1 in the foreground.

    Returns
    -------
    Tensor
        ``[B]`` in [0, 1], 0 for a heatmap without positive relevance.

    Raises
    ------
    ValueError
        If heatmaps and masks differ in batch or size.

    Notes
    -----
    Arras, Osman and Samek, Information Fusion 81, 2022, with their pooling "sum, pos".

    Examples
    --------
    >>> heatmap = torch.tensor([[[[3.0, -4.0, 1.0]]]])
    >>> relevance_mass_accuracy(heatmap, torch.tensor([[[[1.0, 0.0, 0.0]]]]))
    tensor([0.7500])
    """
    positive, inside = _positive(heatmaps, masks)
    total = positive.sum(-1).clamp(min=torch.finfo(positive.dtype).tiny)
    return ((positive * inside).sum(-1) / total).mean(1)


def relevance_rank_accuracy(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Return how many of the most relevant pixels lie in the foreground.

    Of as many pixels as the foreground has, those with the most positive relevance, see
    :func:`relevance_mass_accuracy`. Of pixels that are equal at the limit each counts in part, as
    the mean over all orders of them.

    Parameters
    ----------
    heatmaps, masks
        See :func:`relevance_mass_accuracy`.

    Returns
    -------
    Tensor
        ``[B]`` in [0, 1]; 0 for a mask without foreground.

    Raises
    ------
    ValueError
        If heatmaps and masks differ in batch or size.

    Examples
    --------
    >>> heatmap = torch.tensor([[[[3.0, -4.0, 1.0]]]])
    >>> relevance_rank_accuracy(heatmap, torch.tensor([[[[1.0, 1.0, 0.0]]]]))
    tensor([0.5000])
    """
    positive, inside = _positive(heatmaps, masks)
    size = inside.sum(-1)
    ordered = positive.sort(-1, descending=True).values
    last = (size.long() - 1).clamp(min=0)[..., None].expand(*ordered.shape[:-1], 1)
    limit = ordered.gather(-1, last)
    above, at = positive > limit, positive == limit
    free = (size - above.sum(-1)) / at.sum(-1)
    hits = (above * inside).sum(-1) + free * (at * inside).sum(-1)
    return (hits / size.clamp(min=1)).mean(1)


BACKGROUND_SHARE = "background share"
MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    BACKGROUND_SHARE: background_share,
    "mass accuracy": relevance_mass_accuracy,
    "rank accuracy": relevance_rank_accuracy,
}
"""What is measured of heatmaps and masks, by name."""


def mean_background_share(explainer: Explainer, batches: Iterable[tuple[Tensor, ...]]) -> float:
    """Return the mean :func:`background_share` of heatmaps of the predicted class's log-odds.

    Parameters
    ----------
    explainer
        Of the model to judge, in eval mode.
    batches
        ``(images, labels, masks)``; the labels are not looked at.
    """
    mean = MeanMetric()
    for batch in map(Batch.of, batches):
        heatmap = explainer(batch.images, PREDICTION).heatmap
        mean.update(background_share(heatmap, batch.needed("masks")))
    return float(mean.compute())


def measure_attention(
    explainer: Explainer,
    batches: Iterable[Sequence[Tensor]],
    names: Sequence[str],
    target: Target = PREDICTION,
) -> pd.DataFrame:
    """Measure where a model looks, for each image that has a mask.

    Parameters
    ----------
    explainer
        Of the model to judge, in eval mode.
    batches
        ``(images, labels, masks)`` in the order of ``names``; a mask filled with ``NO_MASK`` is
        none.
    names
        Of all images.
    target
        What is explained: the predicted class's log-odds, or for several labels such as
        ``"highest-logit"``.

    Returns
    -------
    pandas.DataFrame
        A row for each image with a mask: ``name``, ``predicted`` (index of the highest logit), and
        the :data:`MEASURES`.

    Raises
    ------
    ValueError
        If there are more or fewer names than images.
    """
    found: dict[str, list[Any]] = {column: [] for column in ("predicted", *MEASURES)}
    has_mask: list[bool] = []
    for batch in map(Batch.of, batches):
        images, masks = batch.images, batch.needed("masks")
        known = (masks != NO_MASK).flatten(1).all(1)
        has_mask += known.tolist()
        if not known.any():
            continue
        explanation = explainer(images[known], target)
        found["predicted"] += class_logits(explanation.logits).argmax(1).tolist()
        for column, measure in MEASURES.items():
            found[column] += measure(explanation.heatmap, masks[known]).tolist()
    if len(has_mask) != len(names):
        raise ValueError(f"there are {len(names)} names for {len(has_mask)} images")
    return pd.DataFrame({"name": list(compress(names, has_mask)), **found})


def attention_scores(
    attention: pd.DataFrame,
    predictions: Predictions,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Average where a model looks, over all images and those of each class.

    Parameters
    ----------
    attention
        Of :func:`measure_attention`.
    predictions
        Of the same images and maybe others, whose labels and groups count.
    samples, level, seed
        Of the intervals, which are of resampled groups; see
        :func:`~faster_isnet.evaluation.scores`.

    Returns
    -------
    dict
        Ready for JSON: how many ``images`` there are, a
        :data:`~faster_isnet.evaluation.intervals.Score` for each of :data:`MEASURES`, and under
        ``classes`` the same for the images of each true class.

    Raises
    ------
    ValueError
        If there is no image, or one is named twice or has no prediction.
    """
    chosen = predictions.take(positions(attention, predictions))
    weights = original_and_resamples(len(chosen.names), chosen.groups, samples, seed)

    def scored(counts: npt.NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "images": int(counts.sum()),
            **{name: mean_score(attention[name], weights * counts, level) for name in MEASURES},
        }

    return {
        **scored(np.ones(len(chosen.names), dtype=bool)),
        "classes": {
            name: scored(chosen.has_class[:, c]) for c, name in enumerate(chosen.class_names)
        },
    }


def worst(attention: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the images with the highest background share, the highest first."""
    return attention.sort_values(BACKGROUND_SHARE, ascending=False, kind="stable").head(count)


def positions(attention: pd.DataFrame, predictions: Predictions) -> list[int]:
    """Return where the images of :func:`measure_attention` are among those of predictions.

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


def _positive(heatmaps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' positive relevance ``[B, K, P]``, and the foreground ``[B, 1, P]``."""
    _check_fit(heatmaps, masks)
    spatial = masks.shape[2:]
    by_heatmap = heatmaps.reshape(len(heatmaps), -1, heatmaps.shape[-len(spatial) - 1], *spatial)
    pooled = by_heatmap.sum(2).clamp(min=0)
    return pooled.flatten(2), masks.to(pooled).flatten(2)


def _check_fit(heatmaps: Tensor, masks: Tensor) -> None:
    spatial = masks.shape[2:]
    if masks.shape[:2] != (len(heatmaps), 1) or heatmaps.shape[-len(spatial) :] != spatial:
        raise ValueError(
            f"masks must be [B, 1, ...] of the heatmaps' batch and size, got "
            f"{list(masks.shape)} for heatmaps {list(heatmaps.shape)}"
        )
