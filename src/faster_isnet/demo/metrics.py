"""Hold the scores of a demo run, the content of its ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from numbers import Real
from typing import Any

TEST_SETS = ("biased", "unbiased", "deceiving")
_SCORES = (*TEST_SETS, "background_share")


@dataclass(frozen=True)
class ModelScores:
    """Hold one model's scores, fractions in [0, 1].

    Parameters
    ----------
    biased, unbiased, deceiving
        Accuracies on the three test sets.
    background_share
        Mean share of absolute relevance in the background.

    Raises
    ------
    TypeError
        If a score is not a number.
    ValueError
        If a score is outside of [0, 1] (NaN included).

    Examples
    --------
    >>> ModelScores(biased=1, unbiased=1, deceiving=0.75, background_share=0.1).largest_gap
    0.25
    """

    biased: float
    unbiased: float
    deceiving: float
    background_share: float

    def __post_init__(self) -> None:
        """Check the scores, and make them floats."""
        for name in _SCORES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not 0 <= float(value) <= 1:  # written so that NaN fails too
                raise ValueError(f"{name} must be a fraction in [0, 1], got {value!r}")
            object.__setattr__(self, name, float(value))

    @property
    def accuracies(self) -> dict[str, float]:
        """Return the accuracy on each of :data:`TEST_SETS`."""
        return {name: getattr(self, name) for name in TEST_SETS}

    @property
    def largest_gap(self) -> float:
        """Return the best minus the worst accuracy."""
        return max(self.accuracies.values()) - min(self.accuracies.values())


@dataclass(frozen=True)
class DemoMetrics:
    """Hold what a demo run found, and how.

    Parameters
    ----------
    models
        The scores of each model, by its name.
    settings
        Settings, versions and the machine, by name.
    seconds
        Run times, by what took them.

    Raises
    ------
    ValueError
        If there is no model, or a run time is not finite.
    """

    models: Mapping[str, ModelScores]
    settings: Mapping[str, Any]
    seconds: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check that there are models, and that run times are numbers."""
        if not self.models:
            raise ValueError("there are no scores of a model")
        for name, value in self.seconds.items():
            if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
                raise ValueError(f"seconds[{name!r}] must be a finite number, got {value!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``: scores by model, settings and run times."""
        scores = {name: asdict(model) for name, model in self.models.items()}
        return {**scores, "settings": dict(self.settings), "seconds": dict(self.seconds)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DemoMetrics:
        """Read the content of ``metrics.json``.

        Raises
        ------
        TypeError
            If an entry is of the wrong type.
        ValueError
            If an entry or a score is missing, or a number out of range.

        Examples
        --------
        >>> DemoMetrics.from_json({"isnet": {"biased": 1}, "settings": {}, "seconds": {}})
        Traceback (most recent call last):
        ...
        ValueError: metrics['isnet'] lacks 'unbiased', 'deceiving', 'background_share'
        """
        tables: dict[str, dict[str, Any]] = {"settings": {}, "seconds": {}}
        for name in tables:
            if name not in content:
                raise ValueError(f"metrics lacks {name!r}; its keys: {list(content)}")
            tables[name] = _mapping(name, content[name], "a mapping")
        models = {
            name: _model_scores(name, entry)
            for name, entry in content.items()
            if name not in tables
        }
        return cls(models, tables["settings"], tables["seconds"])


def _model_scores(name: str, entry: object) -> ModelScores:
    scores = _mapping(name, entry, "a mapping of scores")
    if missing := [repr(score) for score in _SCORES if score not in scores]:
        raise ValueError(f"metrics[{name!r}] lacks {', '.join(missing)}")
    try:
        return ModelScores(**{score: scores[score] for score in _SCORES})
    except (TypeError, ValueError) as error:
        raise type(error)(f"metrics[{name!r}]: {error}") from error


def _mapping(name: str, entry: object, wanted: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise TypeError(f"metrics[{name!r}] must be {wanted}, got {entry!r}")
    return dict(entry)
