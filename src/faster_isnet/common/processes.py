"""Exchange values between the processes of a distributed run."""

from __future__ import annotations

from typing import TypeVar

import torch

T = TypeVar("T")


def process_count() -> int:
    """Return how many processes run together; 1 without a process group."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def gather(value: T) -> list[T]:
    """Return the value of each process, by its rank; all have to call this.

    Examples
    --------
    >>> gather({"samples": 3})
    [{'samples': 3}]
    """
    gathered = [value] * process_count()
    if len(gathered) > 1:
        torch.distributed.all_gather_object(gathered, value)
    return gathered
