"""Choose the floating-point precision of computations."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Convert values to float32; keep float64.

    Examples
    --------
    >>> at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values if values.dtype == torch.float64 else values.float()


def autocasts(device: str) -> bool:
    """Return whether autocast is on for a device type; ``False`` where autocast is unavailable."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def as_autocast_would(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Convert the operands of a convolution or dense layer to the dtype that autocast uses.

    For user-defined autograd functions, which autocast does not convert. Without autocast, and for
    float64, operands are unchanged.

    Examples
    --------
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     x, bias = as_autocast_would(torch.ones(2), None)
    >>> x.dtype, bias
    (torch.bfloat16, None)
    """
    device = next(t.device.type for t in tensors if t is not None)
    if not autocasts(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors)
