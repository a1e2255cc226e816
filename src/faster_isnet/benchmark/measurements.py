"""Measure time and memory of workloads; a workload that fails gets its error as the result."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from faster_isnet.benchmark.memory import peak_memory
from faster_isnet.benchmark.settings import BenchmarkSettings
from faster_isnet.benchmark.suites import MEMORY, Case, CaseGroup
from faster_isnet.benchmark.timing import Quartiles, time_rounds
from faster_isnet.benchmark.workloads import BASELINE, Run, Setup, Workload, check_heatmap

WARM_UPS = 2

RunKey = tuple[int, str]
"""The number of a case in its group, and the name of a workload."""


@dataclass(frozen=True)
class Measurement:
    """The result of one workload in one case.

    Attributes
    ----------
    suite, architecture, classes, batch, size, workload
        What was measured.
    rounds
        How often.
    seconds
        Of one run; ``None`` if memory was measured.
    peak_bytes
        Of tensors; ``None`` if time was measured.
    ratios
        By the name of the reference: the ratio to its measurement in the same round.
    error
        Why the workload could not be measured; empty if it was.
    remark
        A note for the table, such as on an implausible heatmap; empty if there is none.
    """

    suite: str
    architecture: str
    classes: int
    batch: int
    size: int
    workload: str
    rounds: int = 0
    seconds: Quartiles | None = None
    peak_bytes: int | None = None
    ratios: Mapping[str, Quartiles] = field(default_factory=dict)
    error: str = ""
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the attributes as values for a JSON file."""
        return asdict(self)


def measure_group(group: CaseGroup, settings: BenchmarkSettings) -> list[Measurement]:
    """Measure every workload of every case, in their order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages warn about every model
        if group[0].suite == MEMORY:
            return [found for case in group for found in _measure_memory(case, settings)]
        return _measure_time(group, settings)


def _measure_time(group: CaseGroup, settings: BenchmarkSettings) -> list[Measurement]:
    runs: dict[RunKey, Run] = {}
    outcomes: dict[RunKey, dict[str, str]] = {}
    for number, case in enumerate(group):
        shared = case.new_setup(settings)
        for workload in case.workloads:
            setup = case.new_setup(settings) if workload.is_external else shared
            key = (number, workload.name)
            outcomes[key] = _outcome(partial(_warm_up, workload, setup, runs, key))
    finish = _synchronise(settings.device)
    clock = time.process_time if settings.clock == "processor" else time.perf_counter
    seconds = time_rounds(runs, settings.rounds, settings.seed, clock, finish)
    return [_time_measurement(group, key, seconds, outcomes[key]) for key in outcomes]


def _warm_up(workload: Workload, setup: Setup, runs: dict[RunKey, Run], key: RunKey) -> str:
    """Prepare a workload and run it; add it to ``runs`` if it does not fail."""
    run = workload.make(setup)
    for _ in range(WARM_UPS):
        result = run()
    remark = check_heatmap(result, setup) if workload.is_external else ""
    runs[key] = run
    return remark


def _outcome(work: Callable[[], str]) -> dict[str, str]:
    """Return the remark that ``work`` returns, or its error, by attributes of a measurement."""
    try:
        return {"remark": work()}
    except Exception as error:  # of any type: it is shown in the table, and the others go on
        message = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {message}"[:300]}


def _time_measurement(
    group: CaseGroup,
    key: RunKey,
    seconds: Mapping[RunKey, Sequence[float]],
    outcome: Mapping[str, str],
) -> Measurement:
    number, name = key
    case = group[number]
    if key not in seconds:
        return _measurement(case, name, **outcome)
    ratios = {
        reference: _ratio(seconds[key], seconds[number, reference])
        for reference in case.references
        if reference != name and (number, reference) in seconds
    }
    if (
        number
        and {(0, name), (0, BASELINE), (number, BASELINE)} <= seconds.keys()
        and name != BASELINE
    ):
        ratios[growth_reference(group[0])] = _growth(seconds, key)
    return _measurement(
        case,
        name,
        rounds=len(seconds[key]),
        seconds=Quartiles.of(seconds[key]),
        ratios=ratios,
        **outcome,
    )


def growth_reference(case: Case) -> str:
    """Return the name of the reference for growth: the first case of a sweep."""
    return f"{case.classes} classes"


def _growth(seconds: Mapping[RunKey, Sequence[float]], key: RunKey) -> Quartiles:
    """Return the ratio to the first case, after subtracting the growth of the standard step."""
    number, name = key
    columns = ((number, name), (number, BASELINE), (0, BASELINE), (0, name))
    rounds = zip(*(seconds[column] for column in columns), strict=True)
    return Quartiles.of(
        [(now - (base_now - base)) / first for now, base_now, base, first in rounds]
    )


def _ratio(seconds: Sequence[float], reference: Sequence[float]) -> Quartiles:
    return Quartiles.of([a / b for a, b in zip(seconds, reference, strict=True)])


def _measure_memory(case: Case, settings: BenchmarkSettings) -> list[Measurement]:
    peaks: dict[str, int] = {}
    outcomes = {
        workload.name: _outcome(partial(_record_peak, workload, case, settings, peaks))
        for workload in case.workloads
    }
    measurements = []
    for name, outcome in outcomes.items():
        peak = peaks.get(name)
        ratios = {
            reference: Quartiles.of([peak / peaks[reference]])
            for reference in case.references
            if reference != name and peak is not None and reference in peaks
        }
        rounds = 0 if peak is None else 1
        measurements.append(
            _measurement(case, name, rounds=rounds, peak_bytes=peak, ratios=ratios, **outcome)
        )
    return measurements


def _record_peak(
    workload: Workload, case: Case, settings: BenchmarkSettings, peaks: dict[str, int]
) -> str:
    """Measure the peak of all that a workload needs: weights, gradients, momentum, the batch."""

    def work() -> None:
        run = workload.make(case.new_setup(settings))
        for _ in range(WARM_UPS):  # momentum exists from the second step on
            run()

    first_run = workload.make(case.new_setup(settings))
    first_run()  # what is allocated once only must not count
    del first_run
    peaks[workload.name] = peak_memory(work, settings.device)
    return ""


def _measurement(case: Case, workload: str, **figures: object) -> Measurement:
    return Measurement(
        *(case.suite, case.architecture, case.classes, case.batch, case.size, workload),
        **figures,  # type: ignore[arg-type]
    )


def _synchronise(device: str) -> Callable[[], object]:
    if torch.device(device).type == "cuda":
        return torch.cuda.synchronize
    return lambda: None
