"""Test timing in rounds, and quartiles."""

from __future__ import annotations

import gc
from itertools import count

import pytest

from faster_isnet.benchmark.timing import Quartiles, time_rounds


def test_each_round_runs_every_function_once_in_random_order() -> None:
    ran: list[str] = []
    seconds = time_rounds({name: lambda name=name: ran.append(name) for name in "abc"}, rounds=12)
    rounds = [ran[start : start + 3] for start in range(0, 36, 3)]
    assert all(sorted(one) == list("abc") for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys("abc", 12)


def test_seconds_include_pending_work() -> None:
    ticks = count()
    waited = []
    seconds = time_rounds(
        {"a": lambda: None},
        rounds=3,
        clock=lambda: float(next(ticks)),
        finish=lambda: waited.append(True),
    )
    assert seconds == {"a": [1.0, 1.0, 1.0]}
    assert len(waited) == 6  # before and after each


def test_garbage_collection_is_off_during_a_round_and_restored() -> None:
    seen: list[bool] = []
    time_rounds({"a": lambda: seen.append(gc.isenabled())}, rounds=2)
    assert seen == [False, False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        time_rounds({"a": lambda: 1 / 0}, rounds=2)
    assert gc.isenabled()


def test_quartiles() -> None:
    assert Quartiles.of([3.0]) == Quartiles(3.0, 3.0, 3.0)
    assert Quartiles.of([1.0, 3.0, 2.0]).median == 2.0
