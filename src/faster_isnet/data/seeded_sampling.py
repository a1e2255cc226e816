"""Draw samples with a seed for each, so that worker processes change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import Sampler


class SeededIndex(int):
    """The index of a sample, and the seed of its random changes.

    Attributes
    ----------
    seed
        In [0, 2⁶³ − 1).

    Examples
    --------
    >>> index = SeededIndex(3, seed=7)
    >>> "abcd"[index], index.seed
    ('d', 7)
    """

    seed: int

    def __new__(cls, index: int, seed: int = 0) -> SeededIndex:
        """Make an index that has a seed."""
        made = super().__new__(cls, index)
        made.seed = seed
        return made


class SeededSampler(Sampler[SeededIndex]):
    """Yield what another sampler yields, each index with a seed.

    A worker process has a random state of its own, so what it draws depends on how many there are.
    These seeds are drawn in the main process, by a generator that takes one number of torch's
    global one at the beginning of each epoch.

    Parameters
    ----------
    sampler
        Of indices.
    """

    def __init__(self, sampler: Sampler[int]) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        """Return the number of samples of an epoch."""
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[SeededIndex]:
        """Draw an epoch."""
        generator = torch.Generator()
        generator.manual_seed(int(torch.randint(2**63 - 1, ())))
        for index in self.sampler:
            yield SeededIndex(index, int(torch.randint(2**63 - 1, (), generator=generator)))


@contextmanager
def seeded(index: int) -> Iterator[None]:
    """Draw by the seed of an index inside the block, if it has one, and not by the global state.

    The state of accelerators is left alone: images are augmented on the host.
    """
    if not isinstance(index, SeededIndex):
        yield
        return
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(index.seed)
        yield
