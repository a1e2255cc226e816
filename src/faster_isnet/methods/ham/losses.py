"""Compare attention maps with masks and with each other, as hierarchical attention mining does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.common.precision import at_least_float32

# Of the published code.
_SLOPE = 100.0
_IN_MASK = 0.4  # of a map in [0, 1]: what is above it is attended to
_CERTAIN = 0.75  # of a map as it is
_SMALL = 1e-5


def soft_mask(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return which pixels maps attend to, as a number in (0, 1) for each.

    Each map is enlarged to the image, scaled to [0, 1], and passed through sigmoid(100 (x − 0.4)).

    Parameters
    ----------
    maps
        ``[B, K, h, w]``, ≥ 0.
    size
        ``(H, W)`` of the image.

    Returns
    -------
    Tensor
        ``[B, K, H, W]``.
    """
    enlarged = F.interpolate(at_least_float32(maps), size, mode="bilinear", align_corners=True)
    low, high = (f(enlarged, (2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    return (_SLOPE * ((enlarged - low) / (high - low).clamp(min=_SMALL) - _IN_MASK)).sigmoid()


def mask_loss(attended: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Return how far soft masks are from the true ones: Σ(S − M)² / Σ(S + M).

    The sums are over pixels and over the samples of a class; the loss is the mean over the classes
    that occur, 0 if none does.

    Parameters
    ----------
    attended
        S, ``[B, K, H, W]`` in [0, 1].
    masks
        M, ``[B, 1, H, W]``, 1 in the foreground and 0 in the background.
    weights
        ``[B, K]`` in [0, 1]: 1 where the class is present and the sample has a mask.

    Returns
    -------
    Tensor
        A scalar in [0, 1].

    Examples
    --------
    >>> masks = torch.tensor([[[[1.0, 0.0]]]])
    >>> mask_loss(masks, masks, torch.ones(1, 1)).item()
    0.0
    >>> mask_loss(1 - masks, masks, torch.ones(1, 1)).item()
    1.0
    """
    errors = ((attended - masks).square().sum((2, 3)) * weights).sum(0)
    sizes = ((attended.sum((2, 3)) + masks.sum((2, 3))) * weights).sum(0)
    return _mean_of_present(errors / sizes.clamp(min=_SMALL), weights)


def outside_loss(inner: Tensor, outer: Tensor, weights: Tensor) -> Tensor:
    """Return which share of maps lies outside of others: 1 − Σ min(I, O) T(I) / Σ I.

    T(I) = sigmoid(100 (I − 0.75)) leaves the places that count: what a map has elsewhere counts as
    outside. The loss is the mean over the samples of each class, then over the classes that occur.

    Parameters
    ----------
    inner, outer
        I and O, ``[B, K, h, w]``, ≥ 0; K of either may be 1.
    weights
        ``[B, K]`` in [0, 1]: 1 where the class is present.

    Returns
    -------
    Tensor
        A scalar in [0, 1].

    Examples
    --------
    >>> small, large = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[2.0, 2.0]]]])
    >>> outside_loss(small, large, torch.ones(1, 1)).item()
    0.0
    >>> outside_loss(large, small, torch.ones(1, 1)).item()
    0.5
    """
    inner, outer = at_least_float32(inner), at_least_float32(outer)
    certain = (_SLOPE * (inner - _CERTAIN)).sigmoid()
    total = inner.sum((2, 3))
    inside = (torch.minimum(inner, outer) * certain).sum((2, 3))
    shares = (total - inside) / total.clamp(min=_SMALL)
    of_classes = (shares * weights).sum(0) / weights.sum(0).clamp(min=_SMALL)
    return _mean_of_present(of_classes, weights)


def _mean_of_present(losses: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the losses ``[K]`` of the classes that have a weight."""
    return losses.sum() / (weights.sum(0) > 0).sum().clamp(min=1)
