"""Time functions in turn, so that other load on the machine affects all of them."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Quartiles:
    """The median and quartiles of some numbers.

    Examples
    --------
    >>> Quartiles.of([4.0, 1.0, 2.0, 3.0, 5.0])
    Quartiles(lower=2.0, median=3.0, upper=4.0)
    """

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Compute the quartiles of at least one value."""
        return cls(*np.quantile(values, (0.25, 0.5, 0.75)).tolist())


def time_rounds(
    runs: Mapping[Key, Callable[[], object]],
    rounds: int,
    seed: int = 0,
    clock: Callable[[], float] = perf_counter,
    finish: Callable[[], object] = lambda: None,
) -> dict[Key, list[float]]:
    """Time every function once in each round, in random order.

    Times of the same round are paired: their ratio does not depend on load that lasts longer than
    a round. Garbage is collected between rounds, never within.

    Parameters
    ----------
    runs
        The functions by name, already warmed up.
    rounds
        Number of rounds.
    seed
        Seed of the order.
    clock
        Returns the time in seconds.
    finish
        Waits for pending work: synchronises a GPU.

    Returns
    -------
    dict
        The seconds of every round, by name.
    """
    order = random.Random(seed)
    names = list(runs)
    seconds: dict[Key, list[float]] = {name: [] for name in names}
    with _without_garbage_collection():
        for _ in range(rounds):
            gc.collect()
            for name in order.sample(names, len(names)):
                finish()
                started = clock()
                runs[name]()
                finish()
                seconds[name].append(clock() - started)
    return seconds


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
