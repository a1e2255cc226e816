"""``torch.nn.SyncBatchNorm`` on the CPU.

It has kernels for GPUs only. These are the same five for the CPU, so that its own Python code, and
what it sends between processes, can be tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from faster_isnet.relevance.normalisations import per_channel


def forward(module: nn.SyncBatchNorm, input: Tensor) -> Tensor:  # noqa: A002
    """Run the module's own forward, which takes the CPU for a device of its kind."""
    with mock.patch.object(torch._C, "_get_privateuse1_backend_name", return_value="cpu"):
        return _forward(module, input)


@contextmanager
def cpu_allowed() -> Iterator[None]:
    """Have the module, and DDP, accept the CPU."""
    with (
        mock.patch.object(nn.SyncBatchNorm, "forward", forward),
        mock.patch.object(DistributedDataParallel, "_passing_sync_batchnorm_handle"),
    ):
        yield


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, _all_but_channels(x), correction=0)
    return mean, (variance + eps).rsqrt()


def gather_stats_with_counts(
    x: Tensor,
    means: Tensor,
    rstds: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    n, means, rstds = counts.double().sum(), means.double(), rstds.double()
    shares = (counts / n)[:, None]
    mean = (shares * means).sum(0)
    variance = (shares * (rstds**-2 - eps + (means - mean) ** 2)).sum(0)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(x), momentum)
        running_var.lerp_((variance * n / (n - 1)).to(x), momentum)
    return mean.to(x), (variance + eps).rsqrt().to(x)


def elemt(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, eps: float
) -> Tensor:
    scale = rstd if weight is None else rstd * weight
    y = (x - per_channel(mean, x)) * per_channel(scale, x)
    return y if bias is None else y + per_channel(bias, x)


def backward_reduce(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, *_needed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_bias = grad.sum(_all_but_channels(x))
    sum_dy_xmu = (grad * (x - per_channel(mean, x))).sum(_all_but_channels(x))
    return of_bias, sum_dy_xmu, sum_dy_xmu * rstd, of_bias.clone()


def backward_elemt(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    counts: Tensor,
) -> Tensor:
    n, scale = counts.sum(), rstd if weight is None else rstd * weight
    slope = (x - per_channel(mean, x)) * per_channel(rstd.square() * sum_dy_xmu / n, x)
    return (grad - per_channel(sum_dy / n, x) - slope) * per_channel(scale, x)


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


_forward = nn.SyncBatchNorm.forward
_library = torch.library.Library("aten", "IMPL")
for _kernel in (stats, gather_stats_with_counts, elemt, backward_reduce, backward_elemt):
    _name = f"batch_norm_{_kernel.__name__}"
    # pytest may import this file twice, under two names, and torch 2.6 refuses a second kernel.
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_name}", "CPU"):
        _library.impl(_name, _kernel, "CPU")
