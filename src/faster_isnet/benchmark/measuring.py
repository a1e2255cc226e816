"""Measuring cases: rows of time and of memory, with the reason where there are no figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from faster_isnet.benchmark.cases import MEMORY, Case, Group
from faster_isnet.benchmark.contenders import PLAIN, Contender, Run, remark
from faster_isnet.benchmark.memory import peak_memory
from faster_isnet.benchmark.rows import Row
from faster_isnet.benchmark.settings import BenchmarkSettings
from faster_isnet.benchmark.setups import Setup
from faster_isnet.benchmark.timing import Quartiles, time_rounds

WARM_UPS = 2

Place = tuple[int, str]
"""The number of a case in its group, and the name of a contender."""


def measure(group: Group, settings: BenchmarkSettings) -> list[Row]:
    """Return a row for every contender of every case, in their order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say of the models is no news
        if group[0].suite == MEMORY:
            return [row for case in group for row in _measure_memory(case, settings)]
        return _measure_time(group, settings)


def _measure_time(group: Group, settings: BenchmarkSettings) -> list[Row]:
    runs: dict[Place, Run] = {}
    notes: dict[Place, dict[str, str]] = {}
    for number, case in enumerate(group):
        shared = case.new_setup(settings)
        for contender in case.contenders:
            setup = case.new_setup(settings) if contender.is_peer else shared
            place = (number, contender.name)
            notes[place] = _noted(partial(_warm_up, contender, setup, runs, place))
    seconds = time_rounds(runs, settings.rounds, settings.seed, finish=_waiting(settings.device))
    return [_timed(group, place, seconds, notes[place]) for place in notes]


def _warm_up(contender: Contender, setup: Setup, runs: dict[Place, Run], place: Place) -> str:
    """Make a contender and run it; it enters the race if it gets through."""
    run = contender.make(setup)
    for _ in range(WARM_UPS):
        result = run()
    found = remark(result, setup) if contender.is_peer else ""
    runs[place] = run
    return found


def _noted(work: Callable[[], str]) -> dict[str, str]:
    """Return the remark that work returns, or the error that it stops with, as a row names them."""
    try:
        return {"remark": work()}
    except Exception as error:  # whatever it is: the table says so, and the others go on
        message = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {message}"[:300]}


def _timed(
    group: Group, place: Place, seconds: Mapping[Place, Sequence[float]], notes: Mapping[str, str]
) -> Row:
    number, name = place
    case = group[number]
    if place not in seconds:
        return _row(case, name, **notes)
    ratios = {
        reference: _ratio(seconds[place], seconds[number, reference])
        for reference in case.references
        if reference != name and (number, reference) in seconds
    }
    if number and {(0, name), (0, PLAIN), (number, PLAIN)} <= seconds.keys() and name != PLAIN:
        ratios[growth_since(group[0])] = _growth(seconds, place)
    return _row(
        case,
        name,
        rounds=len(seconds[place]),
        seconds=Quartiles.of(seconds[place]),
        ratios=ratios,
        **notes,
    )


def growth_since(case: Case) -> str:
    """Return the name of the reference that says how a sweep's cost grows from its first case."""
    return f"{case.classes} classes"


def _growth(seconds: Mapping[Place, Sequence[float]], place: Place) -> Quartiles:
    """Return the ratio to the first case, with what the plain steps differ by taken out."""
    number, name = place
    columns = ((number, name), (number, PLAIN), (0, PLAIN), (0, name))
    rounds = zip(*(seconds[column] for column in columns), strict=True)
    return Quartiles.of(
        [(now - (plain_now - plain)) / first for now, plain_now, plain, first in rounds]
    )


def _ratio(seconds: Sequence[float], reference: Sequence[float]) -> Quartiles:
    return Quartiles.of([a / b for a, b in zip(seconds, reference, strict=True)])


def _measure_memory(case: Case, settings: BenchmarkSettings) -> list[Row]:
    peaks: dict[str, int] = {}
    notes = {}
    for contender in case.contenders:
        notes[contender.name] = _noted(partial(_weigh, contender, case, settings, peaks))
    rows = []
    for name in notes:
        peak = peaks.get(name)
        ratios = {
            reference: Quartiles.of([peak / peaks[reference]])
            for reference in case.references
            if reference != name and peak is not None and reference in peaks
        }
        rounds = 0 if peak is None else 1
        rows.append(_row(case, name, rounds=rounds, peak_bytes=peak, ratios=ratios, **notes[name]))
    return rows


def _weigh(
    contender: Contender, case: Case, settings: BenchmarkSettings, peaks: dict[str, int]
) -> str:
    """Note the peak of a contender with all it needs: weights, gradients, momentum, the batch."""

    def work() -> None:
        run = contender.make(case.new_setup(settings))
        for _ in range(WARM_UPS):  # momentum is there from the second step on
            run()

    work_only_once_warm = contender.make(case.new_setup(settings))
    work_only_once_warm()
    del work_only_once_warm
    peaks[contender.name] = peak_memory(work, settings.device)
    return ""


def _row(case: Case, contender: str, **figures: object) -> Row:
    return Row(
        *(case.suite, case.architecture, case.classes, case.batch, case.size, contender),
        **figures,  # type: ignore[arg-type]
    )


def _waiting(device: str) -> Callable[[], object]:
    if torch.device(device).type == "cuda":
        return torch.cuda.synchronize
    return lambda: None
