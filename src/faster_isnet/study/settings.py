"""Hold the settings of a study, as its YAML file has them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.common.recipes import ARGUMENTS, CLASS
from faster_isnet.evaluation.evaluator import EvaluationSettings
from faster_isnet.evaluation.measures import MEASURES, OverallMeasure, of_type

Options = dict[str, Any]
"""Options of a part of ``faster-isnet fit``, as its YAML file has them."""
ON_BACKGROUNDS = "background_accuracy"
OBJECTIVES = (ON_BACKGROUNDS, *(measure.name for measure in of_type(MEASURES, OverallMeasure)))
CHECKPOINTS = ("best", "last")
PARTS = ("model", "trainer", "checkpoint")
"""Parts of a configuration that methods have in common, and may differ in."""


@dataclass(frozen=True)
class Range:
    """Search a number in a range.

    Parameters
    ----------
    low, high
        The ends, both included.
    log
        Whether to search its logarithm, for numbers whose order of magnitude is unknown.
    whole
        Whether it is a whole number.

    Raises
    ------
    ValueError
        If the ends are not finite or in the wrong order, or ``log`` is given with a ``low`` that is
        not above 0.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        """Check the ends."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"a range to search must have finite ends with low < high, got low={self.low} and "
                f"high={self.high}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithm needs low > 0, got low={self.low}; leave out log")


Space = dict[str, Range | list[Any]]
"""What is searched: by the option's path in the YAML of ``fit``, a range or a list of choices."""


@dataclass(frozen=True)
class SearchSettings:
    """Configure the search for options, which uses validation images alone.

    Parameters
    ----------
    trials
        Trainings for the search of each method on each data set, the same for all that have
        something to search; 0 for no search.
    objective
        What is to be highest: ``"background_accuracy"``, the geometric mean of the accuracies on
        all validation sets, as they are and with each replaced background, of which a classifier
        that uses the background has a low one; or the name of a measure of all predictions, such as
        ``"accuracy"``, on the first validation set. If the validation images have the bias of the
        training images, their accuracy alone chooses the options that use it most.
    seed
        Of the search, and of the trainings in it.
    common
        What is searched for every method, such as ``model.learning_rate``: a range (``low``,
        ``high``, ``log``, ``whole``) or a list of choices, by the option's path in the YAML of
        ``fit``.

    Raises
    ------
    ValueError
        If a number is out of range or the objective is unknown.
    """

    trials: int = 0
    objective: str = ON_BACKGROUNDS
    seed: int = 0
    common: Space = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check numbers and names."""
        check_range("search.trials", self.trials, 0)
        check_range("search.seed", self.seed, 0, 2**31)
        check_choice("search.objective", self.objective, OBJECTIVES)
        _check_space("search.common", self.common)


@dataclass(frozen=True)
class MethodEntry:
    """Describe one of the methods that are compared.

    Parameters
    ----------
    method
        Its name, or ``class_path`` and ``init_args``, as ``faster-isnet fit`` has them.
    model, trainer, checkpoint
        Options that differ from those of the study.
    search
        What is searched for this method, beside what is searched for all.

    Raises
    ------
    ValueError
        If the method has no name.
    """

    method: str | Options
    model: Options = field(default_factory=dict)
    trainer: Options = field(default_factory=dict)
    checkpoint: Options = field(default_factory=dict)
    search: Space = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the method has a name."""
        if isinstance(self.method, dict) and (
            CLASS not in self.method or not self.method.keys() <= {CLASS, ARGUMENTS}
        ):
            raise ValueError(
                f"method must be a name, or have {CLASS} and {ARGUMENTS}, got {self.method}"
            )
        _check_space("search", self.search)


def _default_data() -> dict[str, Options]:
    return {"digits": {CLASS: "BiasedDigitsData"}}


def _default_evaluation() -> EvaluationSettings:
    return EvaluationSettings(examples=1, worst=0)


@dataclass(frozen=True)
class StudySettings:
    """Configure a study: all methods are trained on all data sets with all seeds.

    Parameters
    ----------
    methods
        By names of your own: ``method``, options of ``model``, ``trainer`` and ``checkpoint`` that
        differ from the others', and what to ``search``.
    data
        By names of your own, the options ``data`` of ``faster-isnet fit``, or ``class_path`` and
        ``init_args`` of a class of data; by default the digits with a background bias.
    model, trainer, checkpoint
        Options of ``faster-isnet fit`` that all methods have in common.
    seeds
        Of weights, order and augmentation; one run each. Intervals are over seeds.
    folds
        Cross-validation: the images are divided in so many parts (≥ 2), and the run with the seed
        s is tested on part s modulo ``folds``; so there are as many seeds, such as 0 to ``folds``
        − 1, and each image is tested on once. ``None`` tests all runs on the same images.
    search
        How options are searched on validation images.
    evaluation
        How the classifiers are evaluated, as by ``faster-isnet test``.
    tested
        Which epoch is evaluated: ``"best"``, chosen on validation images as ``checkpoint`` says,
        or ``"last"``.
    baseline
        The name of the method that costs and accuracies are compared with, if it is there.

    Raises
    ------
    ValueError
        If there is no method, data set or seed, a seed is there twice, or a name cannot be a
        folder's; if the seeds do not test on each fold once, options are to be searched with
        folds, or data cannot be divided in folds.

    Examples
    --------
    >>> settings = StudySettings({"standard": MethodEntry("standard")}, seeds=[0, 1])
    >>> list(settings.data)
    ['digits']
    """

    methods: dict[str, MethodEntry]
    data: dict[str, Options] = field(default_factory=_default_data)
    model: Options = field(default_factory=dict)
    trainer: Options = field(default_factory=dict)
    checkpoint: Options = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    folds: int | None = None
    search: SearchSettings = field(default_factory=SearchSettings)
    evaluation: EvaluationSettings = field(default_factory=_default_evaluation)
    tested: str = "best"
    baseline: str = "standard"

    def __post_init__(self) -> None:
        """Check that there is something to do, and that names can be folders'."""
        for what in ("methods", "data", "seeds"):
            if not getattr(self, what):
                raise ValueError(f"{what} is empty; a study needs at least one entry there")
            _check_folder_names(what, map(str, getattr(self, what)))
        for seed in self.seeds:
            check_range("seeds", seed, 0, 2**32 - 1)
        check_choice("tested", self.tested, CHECKPOINTS)
        if self.folds is not None:
            self._check_folds(self.folds)

    def _check_folds(self, folds: int) -> None:
        check_range("folds", folds, 2)
        if sorted(seed % folds for seed in self.seeds) != list(range(folds)):
            raise ValueError(
                f"the seeds {self.seeds} do not test on each of {folds} folds once; give "
                f"{list(range(folds))}"
            )
        if self.search.trials:
            raise ValueError(
                "search has trials, and there are folds: options that are chosen on one fold's "
                "validation images have seen other folds' test images; search in a study without "
                "folds, and give what it found"
            )
        for name, options in self.data.items():
            if given := sorted(options.keys() & {CLASS, "division", "fold"}):
                raise ValueError(
                    f"data {name!r} cannot be divided in folds, since it has {', '.join(given)}; "
                    "leave that out, or folds"
                )


def _check_space(what: str, space: Space) -> None:
    for path, values in space.items():
        if isinstance(values, list) and not values:
            raise ValueError(f"{what} has no choices for {path!r}; list some")
        if path.partition(".")[0] not in ("method", "model", "trainer", "checkpoint"):
            raise ValueError(
                f"{what} has {path!r}; what is searched is an option of method, model, trainer or "
                "checkpoint, by its path: method.init_args.NAME, model.learning_rate"
            )


def _check_folder_names(what: str, names: Iterable[str]) -> None:
    known: set[str] = set()
    for name in names:
        if PurePath(name).name != name or name.startswith((".", "-")) or "\\" in name:
            raise ValueError(f"{what} has the name {name!r}, which cannot be a folder's; rename it")
        if name.casefold() in known:
            raise ValueError(f"{what} has {name!r} twice; remove or rename one")
        known.add(name.casefold())
