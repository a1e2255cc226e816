"""Measure the peak memory of tensors."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_memory(work: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Measure the peak number of bytes of the tensors that ``work`` creates.

    On CUDA it is what the caching allocator handed out; on the CPU the sum over every allocation
    and release that PyTorch's allocator reports to the profiler, which includes the workspaces
    of its kernels. Both are exact and repeatable, unlike the resident size of the process, which
    depends on the caching of malloc and on earlier code. Tensors created before do not count.

    Parameters
    ----------
    work
        What to measure. To include weights and gradients, create the model in it.
    device
        The device of its tensors.

    Examples
    --------
    >>> peak_memory(lambda: [torch.ones(1000), torch.ones(500)])
    6000
    """
    gc.collect()
    device = torch.device(device)
    if device.type == "cuda":
        return _cuda_peak(work, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():  # in the order in which they happened
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def _cuda_peak(work: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
