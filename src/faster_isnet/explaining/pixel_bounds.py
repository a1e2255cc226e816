"""The bounds of pixel values, which the zB rule needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Bound = float | Sequence[float] | Tensor
"""A bound of the pixel values: one for all channels, or one for each."""


def read_bound(name: str, bound: Bound) -> Tensor:
    """Return a bound as a tensor, of one value or one for each channel; ``name`` is for errors."""
    try:
        values = torch.as_tensor(bound).flatten().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be a number or one for each channel, got {bound!r}"
        ) from error
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {bound!r}")
    return values


def check_bound(bound: Tensor, pixels: Tensor) -> None:
    """Check that a bound has as many values as the pixels have channels."""
    if len(bound) not in (1, pixels.shape[1]):
        raise ValueError(
            f"input_low and input_high must be scalars or have one value for each of the "
            f"{pixels.shape[1]} channels, got {len(bound)}"
        )


def corner(bound: Tensor, pixels: Tensor) -> Tensor:
    """Return an image whose pixels all have a bound's values, as relevance can be asked of it."""
    check_bound(bound, pixels)
    bound = bound.to(pixels).reshape(1, -1, *(1,) * (pixels.dim() - 2))
    return bound.expand_as(pixels).clone().requires_grad_()
