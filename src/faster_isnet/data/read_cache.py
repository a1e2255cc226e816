"""Keep images and masks in memory that were read from files, up to a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from faster_isnet.common.checks import check_range

_GIB = 2**30

Read = tuple[Tensor, list[Tensor | None]]
"""An image and its masks."""


class ReadCache:
    """Keep images and masks by index; those that find no room are read at each access.

    A process that loads for a :class:`~torch.utils.data.DataLoader` has a cache of its own, with
    its share of the room. A copy that is sent to another process starts empty.

    Parameters
    ----------
    gib
        Room in GiB, ≥ 0; 0 keeps nothing.

    Raises
    ------
    ValueError
        If ``gib`` is negative.

    Examples
    --------
    >>> import torch
    >>> cache = ReadCache(1e-6)  # 1073 bytes
    >>> for index in (0, 1):
    ...     image, masks = cache.get(index, lambda _: (torch.zeros(3, 8, 8), []))
    >>> len(cache)
    1
    """

    def __init__(self, gib: float) -> None:
        self._room = check_range("cache_gib", gib, 0) * _GIB
        self._kept: dict[int, Read] = {}
        self._used = 0

    def __len__(self) -> int:
        """Return how many images are kept."""
        return len(self._kept)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs: the room, without what is kept."""
        return {**self.__dict__, "_kept": {}, "_used": 0}

    def get(self, index: int, read: Callable[[int], Read]) -> Read:
        """Return what ``read`` gives for an index, without calling it if that is kept.

        The tensors are the kept ones; do not change them in place.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image, masks = read(index)
        tensors = [image, *(mask for mask in masks if mask is not None)]
        size = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        worker = get_worker_info()
        if self._used + size <= self._room / (1 if worker is None else worker.num_workers):
            self._kept[int(index)] = image, masks
            self._used += size
        return image, masks
