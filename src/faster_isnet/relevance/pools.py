"""Power-average pooling whose root has finite derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isinf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.graph_nodes import SHARED, mark_between


def _lp_pool(
    average: Callable[..., Tensor],
    relevance_pass: RelevancePass,
    func: Callable[..., Tensor],
    args: Any,
    kwargs: Any,
) -> Tensor:
    """Compute (Σ x^p)^(1/p) over windows, whose derivatives are 0 where the sum is 0.

    PyTorch's own second derivative is NaN there (0 · ∞), and so is a heatmap's gradient. The
    function is homogeneous, so its gradient keeps relevance: R_i = x_i^p / Σ x^p · R.
    """
    x, p, size, stride, ceil = _arguments(*args, **kwargs)
    if isinf(p) or not p or not x.requires_grad:
        return func(*args, **kwargs)
    # Below 2 the second derivative of a power is infinite at 0.
    base = x.masked_fill(x == 0, 1) if p < 2 and p != 1 else x
    powers = base.pow(p) if base is x else base.pow(p).masked_fill(x == 0, 0)
    windows = size if isinstance(size, (tuple, list)) else (size,) * (x.dim() - 2)
    stride = size if stride is None else stride
    sums = average(powers, size, stride, 0, ceil) * prod(windows)
    roots = sums.masked_fill(sums == 0, 1).pow(1 / p)
    y = roots.masked_fill(sums == 0, 0)
    mark_between(y, [x], SHARED)
    return y


def _arguments(
    input: Tensor,  # noqa: A002 - torch's name
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> tuple[Tensor, float, Any, Any, bool]:
    """Read the arguments of ``F.lp_pool2d``."""
    return input, norm_type, kernel_size, stride, ceil_mode


LP_POOLS = {
    F.lp_pool1d: partial(_lp_pool, torch.avg_pool1d),
    F.lp_pool2d: partial(_lp_pool, F.avg_pool2d),
    F.lp_pool3d: partial(_lp_pool, F.avg_pool3d),
}
"""What takes the place of power-average pooling."""
