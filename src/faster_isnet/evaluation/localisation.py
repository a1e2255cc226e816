"""Measure how much of a heatmap's relevance lies inside and outside of a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from faster_isnet.common.precision import at_least_float32


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


def background_area(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of the image that is background: the :func:`background_share` of chance.

    Parameters
    ----------
    heatmaps
        ``[B, ...]``, of which nothing but the number and the size is used.
    masks
        ``[B, 1, ...]`` in {0, 1}, 1 in the foreground.

    Returns
    -------
    Tensor
        ``[B]`` in [0, 1].

    Raises
    ------
    ValueError
        If heatmaps and masks differ in batch or size.

    Examples
    --------
    >>> background_area(torch.rand(1, 3, 1, 4), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]]))
    tensor([0.7500])
    """
    _check_fit(heatmaps, masks)
    return 1 - masks.to(at_least_float32(heatmaps)).flatten(1).mean(1)


def relevance_mass_accuracy(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of the positive relevance that lies in the foreground.

    Relevance is summed over channels first. Only what is positive then counts: it is the evidence
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
