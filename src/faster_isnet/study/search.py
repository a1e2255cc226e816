"""Search options of a method on validation images: each trial is a run of its own.

The options of a trial follow from the settings and the results of the trials before it, and those
are in the trials' folders. So a search that was stopped goes on where it was, without a file of its
own, and more trials continue a search that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

import numpy as np
from scipy.stats.qmc import Halton

from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.study.plan import Entry, Run
from faster_isnet.study.settings import ON_BACKGROUNDS, Range, SearchSettings, Space

_EVENLY = 10  # trials before the estimator has enough to go by, as Optuna has it by default
VALIDATION = "test-validation"
"""The folder of a trial's evaluation."""


@dataclass(frozen=True)
class Trial:
    """Hold the options of a trial, by their paths, and its objective; ``None`` if it failed."""

    options: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True)
class Found:
    """Hold the trials of a search, and the options with the highest objective."""

    options: Mapping[str, Any]
    trials: Sequence[Trial]

    @property
    def value(self) -> float | None:
        """The highest objective."""
        return max((t.value for t in self.trials if t.value is not None), default=None)


def search(entry: Entry, finish: Callable[[Run], bool]) -> Found:
    """Search the options of a method on a data set.

    Parameters
    ----------
    entry
        The method and the data set.
    finish
        Trains and evaluates a run if it is not finished, and returns whether that succeeded.

    Raises
    ------
    ValueError
        If all trials fail, or the objective cannot be measured.
    """
    settings = entry.settings.search
    trials: list[Trial] = []
    while entry.space and len(trials) < settings.trials:
        number = len(trials)
        own = entry.own_options() if number == 0 else None
        options = suggest(entry.space, trials, settings) if own is None else own
        run = entry.trial(number, options)
        succeeded = finish(run)
        value = None
        if succeeded:
            value = objective(SavedEvaluation.load(run.folder / VALIDATION), settings.objective)
        trials.append(Trial(options, value))
    if not trials:
        return Found({}, ())
    successful = [trial for trial in trials if trial.value is not None]
    if not successful:
        raise ValueError(
            f"all {len(trials)} trials of the search failed; see {entry.folder / 'search'}"
        )
    best = max(successful, key=lambda trial: trial.value or 0.0)
    return Found(best.options, tuple(trials))


def objective(evaluation: SavedEvaluation, name: str) -> float:
    """Return the objective of an evaluation on validation images; higher is better.

    Raises
    ------
    ValueError
        If the images with a replaced background are needed and none has a mask.
    """
    sets = list(evaluation.sets.values())
    if name != ON_BACKGROUNDS:
        value = sets[0].scores.overall[name].value
        assert value is not None  # it is a share of one image or more
        return value
    scores = [each.scores.overall["accuracy"] for each in sets]
    for each in sets:
        if each.sensitivity is not None:
            scores += [found["accuracy"] for found in each.sensitivity.backgrounds.values()]
    if len(scores) == len(sets):
        raise ValueError(
            f"search.objective {ON_BACKGROUNDS!r} replaces the background of validation images, "
            "but fewer than two have a mask; add masks, or give another: accuracy"
        )
    values = [score.value for score in scores if score.value is not None]
    # Not the lowest: where all trials are at chance on noise, noise would choose. Nor the mean, in
    # which a classifier that a background misleads can make up for it by reading the others.
    return geometric_mean(values) if min(values) else 0.0


def suggest(space: Space, trials: Sequence[Trial], settings: SearchSettings) -> dict[str, Any]:
    """Return the options of the next trial; they depend on the arguments alone.

    The first ten are the points of a scrambled Halton sequence, which cover the space more evenly
    than random ones; the others are by Optuna's tree-structured Parzen estimator.

    Parameters
    ----------
    space
        What is searched.
    trials
        Those before.
    settings
        Of the search.

    References
    ----------
    Sequences of low discrepancy for a few trials: J. Bergstra and Y. Bengio, JMLR 2012. The
    tree-structured Parzen estimator: J. Bergstra et al., NeurIPS 2011. Optuna: T. Akiba et al., KDD
    2019.
    """
    if len(trials) < _EVENLY:
        sequence = Halton(len(space), seed=np.random.default_rng(settings.seed))
        (point,) = sequence.fast_forward(len(trials)).random(1)
        return {
            path: _at(values, float(share))
            for (path, values), share in zip(space.items(), point, strict=True)
        }
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "a search needs Optuna: pip install 'faster-isnet[study]'; or give search.trials 0"
        ) from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = {path: _distribution(optuna, values) for path, values in space.items()}
    seed = 1000 * settings.seed + len(trials)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed % 2**32)
    )
    for trial in trials:
        study.add_trial(_as_optuna(optuna, trial, space, known))
    suggested = study.ask(known).params
    return {path: _value(space[path], suggested[path]) for path in space}


def _at(values: Range | list[Any], share: float) -> Any:
    """Return the value that lies at a share, in [0, 1), of a space."""
    if isinstance(values, list):
        return values[int(share * len(values))]
    if values.whole:  # each number has a part of its own, of equal width in the numbers or logs
        low, high = values.low - 0.5, values.high + 0.5
        return int(min(max(round(_between(low, high, share, values.log)), values.low), values.high))
    return _between(values.low, values.high, share, values.log)


def _between(low: float, high: float, share: float, log: bool) -> float:
    return low * (high / low) ** share if log else low + (high - low) * share


def _distribution(optuna: Any, values: Range | list[Any]) -> Any:
    if isinstance(values, list):  # by position: a choice may be of any type
        return optuna.distributions.CategoricalDistribution(range(len(values)))
    if values.whole:
        return optuna.distributions.IntDistribution(
            int(values.low), int(values.high), log=values.log
        )
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def _value(values: Range | list[Any], suggested: Any) -> Any:
    return values[suggested] if isinstance(values, list) else suggested


def _as_optuna(optuna: Any, trial: Trial, space: Space, distributions: Mapping[str, Any]) -> Any:
    """Return a trial as Optuna has it; one outside of the space counts with what lies in it."""
    inside = {}
    for path, value in trial.options.items():
        values = space[path]
        if not isinstance(values, list):
            inside[path] = min(max(value, values.low), values.high)
        elif value in values:
            inside[path] = values.index(value)
    failed = trial.value is None
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
        params=inside,
        distributions={path: distributions[path] for path in inside},
        value=trial.value,
    )
