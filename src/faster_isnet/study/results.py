"""Read what runs have found, and summarise it over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from faster_isnet.data.splits import DEFAULT_FRACTIONS
from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.measures import BACKGROUND_SHARE, MEASURES, Measure
from faster_isnet.evaluation.results import SavedResults
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.study.plan import Entry
from faster_isnet.study.records import costs_of
from faster_isnet.study.run_study import EntryOutcome
from faster_isnet.study.statistics import mean_score

TEST = "test"
"""The folder of a run's evaluation."""
WORST_SET, SHARE = "worst accuracy", "relevance in the background"
WORST_BACKGROUND = "worst background"
TOTAL, RELATIVE_TOTAL = "training, s", "training, relative"


@dataclass(frozen=True)
class Quantity:
    """Describe a value that each run has.

    Attributes
    ----------
    name
        What tables and files call it.
    group
        The table that it is in.
    measure
        Its unit and direction.
    """

    name: str
    group: str
    measure: Measure


@dataclass(frozen=True)
class RunResult:
    """Hold what a run has found: its values by the names of quantities, and its evaluation."""

    values: Mapping[str, float]
    evaluation: SavedEvaluation


@dataclass(frozen=True)
class MethodResult:
    """Hold the results of a method on a data set.

    Attributes
    ----------
    outcome
        What became of its runs.
    runs
        By seed, the finished ones.
    means
        By quantity, over seeds.
    differences
        By quantity, to the baseline's run with the same seed, over seeds; empty without one.
    """

    outcome: EntryOutcome
    runs: Mapping[int, RunResult]
    means: Mapping[str, Score]
    differences: Mapping[str, Score]


@dataclass(frozen=True)
class DataResult:
    """Hold the results of all methods on a data set.

    Attributes
    ----------
    name
        Of the data set.
    methods
        By name.
    quantities
        What any of the runs has.
    sets
        Names of the test sets.
    """

    name: str
    methods: Mapping[str, MethodResult]
    quantities: Sequence[Quantity]
    sets: Sequence[str]


def collect(outcomes: Sequence[EntryOutcome], baseline: str) -> list[DataResult]:
    """Read the results of finished runs, by data set.

    Parameters
    ----------
    outcomes
        Of :func:`~faster_isnet.study.run_study`.
    baseline
        The method that others are compared with, if it is there.
    """
    names = dict.fromkeys(outcome.entry.data for outcome in outcomes)
    return [_of_data([o for o in outcomes if o.entry.data == name], baseline) for name in names]


def _of_data(outcomes: Sequence[EntryOutcome], baseline: str) -> DataResult:
    runs = {
        outcome.entry.method: {seed: read_run(run.folder) for seed, run in outcome.runs.items()}
        for outcome in outcomes
    }
    compared = runs.get(baseline, {})
    runs = {
        method: {
            seed: RunResult(_with_ratios(run.values, compared.get(seed)), run.evaluation)
            for seed, run in by_seed.items()
        }
        for method, by_seed in runs.items()
    }
    found = [run for by_seed in runs.values() for run in by_seed.values()]
    sets = list(dict.fromkeys(name for run in found for name in run.evaluation.sets))
    quantities = [q for q in _quantities(found, sets) if any(q.name in r.values for r in found)]
    methods, ratio = {}, _test_to_train(outcomes[0].entry)
    for outcome in outcomes:
        method = outcome.entry.method
        differences = {}
        if method != baseline:
            differences = _differences(runs[method], compared, quantities, ratio)
        means = {q.name: _mean(runs[method], q, ratio) for q in quantities}
        methods[method] = MethodResult(outcome, runs[method], means, differences)
    return DataResult(outcomes[0].entry.data, methods, quantities, sets)


def read_run(folder: Path) -> RunResult:
    """Return the values of a finished run."""
    evaluation, costs = SavedEvaluation.load(folder / TEST), costs_of(folder)
    sets = evaluation.sets
    accuracies = {name: _value(each.scores.overall["accuracy"]) for name, each in sets.items()}
    values = {_accuracy(name): value for name, value in accuracies.items()}
    values[WORST_SET] = min(accuracies.values())
    if backgrounds := _on_backgrounds(list(sets.values())):
        values |= backgrounds | {WORST_BACKGROUND: min(backgrounds.values())}
    shares = [
        _value(each.attention.overall[BACKGROUND_SHARE]) for each in sets.values() if each.attention
    ]
    if shares:
        values[SHARE] = mean(shares)
    values |= {
        "s per epoch": costs.seconds_per_epoch,
        TOTAL: costs.seconds,
        "epochs": float(costs.epochs),
        "ms per image": costs.milliseconds,
        "parameters": costs.parameters / 1e6,
    }
    return RunResult(values, evaluation)


def _on_backgrounds(sets: Sequence[SavedResults]) -> dict[str, float]:
    """Return the accuracy with each replaced background, the lowest of the test sets'."""
    found: dict[str, list[float]] = {}
    for each in sets:
        if each.sensitivity is not None:
            for kind, scores in each.sensitivity.backgrounds.items():
                found.setdefault(_background(kind), []).append(_value(scores["accuracy"]))
    return {kind: min(values) for kind, values in found.items()}


def _with_ratios(values: Mapping[str, float], baseline: RunResult | None) -> dict[str, float]:
    """Add the ratios of training times to those of the baseline with the same seed."""
    result = dict(values)
    for name, ratio in (("s per epoch", "epoch, relative"), (TOTAL, RELATIVE_TOTAL)):
        if baseline is not None and baseline.values[name] > 0:
            result[ratio] = values[name] / baseline.values[name]
    return result


def _quantities(runs: Sequence[RunResult], sets: Sequence[str]) -> list[Quantity]:
    """Return all quantities that runs may have, in the order of columns."""
    accuracy = next(m for m in MEASURES if m.name == "accuracy")
    share = next(m for m in MEASURES if m.name == BACKGROUND_SHARE)
    kinds = dict.fromkeys(
        kind
        for run in runs
        for each in run.evaluation.sets.values()
        if each.sensitivity is not None
        for kind in each.sensitivity.backgrounds
    )
    return [
        *(Quantity(_accuracy(name), ACCURACY, accuracy) for name in sets),
        Quantity(WORST_SET, ACCURACY, accuracy),
        *(Quantity(_background(kind), BACKGROUNDS, accuracy) for kind in kinds),
        Quantity(WORST_BACKGROUND, BACKGROUNDS, accuracy),
        Quantity(SHARE, BACKGROUNDS, share),
        _cost("s per epoch", "s"),
        _cost("epoch, relative", "×"),
        _cost("epochs", ""),
        _cost(TOTAL, "s"),
        _cost(RELATIVE_TOTAL, "×"),
        _cost("ms per image", "ms"),
        _cost("parameters", "M"),
    ]


ACCURACY = "Accuracy on the test images"
BACKGROUNDS = "Accuracy with other backgrounds, the lowest of the test sets', and relevance"
COSTS = "Costs"


def _cost(name: str, unit: str) -> Quantity:
    measure = Measure(name="cost", kind="overall", title=name, unit=unit, better="lower")
    return Quantity(name, COSTS, measure)


def _accuracy(name: str) -> str:
    return f"accuracy, {name}"


def _background(kind: str) -> str:
    return f"background: {kind}"


def _test_to_train(entry: Entry) -> float | None:
    """Return the number of test images over that of training images, if there are folds."""
    folds = entry.settings.folds
    if folds is None:
        return None
    fractions = entry.settings.data[entry.data].get("fractions") or DEFAULT_FRACTIONS
    trained = fractions["train"] / (fractions["train"] + fractions.get("val", 0.0))
    return float(1 / ((folds - 1) * trained))


def _value(score: Score) -> float:
    assert score.value is not None  # means over one image or more
    return score.value


def _mean(runs: Mapping[int, RunResult], quantity: Quantity, ratio: float | None) -> Score:
    values = [run.values[quantity.name] for run in runs.values() if quantity.name in run.values]
    return mean_score(
        values, low=0, high=math.inf if quantity.group == COSTS else 1, test_to_train=ratio
    )


def _differences(
    runs: Mapping[int, RunResult],
    compared: Mapping[int, RunResult],
    quantities: Sequence[Quantity],
    ratio: float | None,
) -> dict[str, Score]:
    """Return the paired differences of all but the costs, which have ratios."""
    both = [seed for seed in runs if seed in compared]
    found = {}
    for name in (q.name for q in quantities if q.group != COSTS):
        pairs = [(runs[seed].values.get(name), compared[seed].values.get(name)) for seed in both]
        values = [a - b for a, b in pairs if a is not None and b is not None]
        found[name] = mean_score(values, test_to_train=ratio)
    return found if both else {}
