"""Where a model looks: how much of its relevance falls on the background."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from faster_isnet.explain import Explainer

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
    spatial = masks.shape[2:]
    if masks.shape[:2] != (len(heatmaps), 1) or heatmaps.shape[-len(spatial) :] != spatial:
        raise ValueError(
            f"masks must be [B, 1, ...] of the heatmaps' batch and size, got "
            f"{list(masks.shape)} for heatmaps {list(heatmaps.shape)}"
        )
    sizes = heatmaps.abs().reshape(len(heatmaps), -1, *spatial)
    total = sizes.flatten(1).sum(1)
    outside = (sizes * (1 - masks.to(sizes))).flatten(1).sum(1)
    return outside / total.clamp(min=torch.finfo(total.dtype).tiny)


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
    for images, _, masks in batches:
        mean.update(background_share(explainer(images, PREDICTION).heatmap, masks))
    return float(mean.compute())
