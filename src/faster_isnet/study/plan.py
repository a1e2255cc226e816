"""List the runs of a study: which configuration is trained and evaluated in which folder."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faster_isnet.common.recipes import ARGUMENTS, CLASS
from faster_isnet.study.settings import PARTS, Options, Space, StudySettings

SEARCH = "search"
_DRAWN_MASKS = "drawn-masks"
TIMER = "lightning.pytorch.callbacks.Timer"
_TIMER = {CLASS: TIMER, ARGUMENTS: {"interval": "step"}}  # its default cannot be written as YAML


@dataclass(frozen=True)
class Run:
    """Describe one training and its evaluation.

    Attributes
    ----------
    folder
        Where its files are.
    training
        The configuration of ``faster-isnet fit``: plain values.
    evaluation
        ``"settings"`` of the evaluation, ``"tested"``, which checkpoint, ``"validation"``, whether
        on validation images instead of test images, and ``"name"`` of the method: plain values.
    drawn_masks
        Folder of the masks that are drawn for images without one, relative to ``folder``: the same
        for all runs with the same data and seed, which have the same masks then.
    """

    folder: Path
    training: Options
    evaluation: Options
    drawn_masks: str


@dataclass(frozen=True)
class Entry:
    """Describe the runs of one method on one data set.

    Attributes
    ----------
    data, method
        Their names.
    folder
        Where the folders of its runs are.
    config
        The configuration of ``faster-isnet fit`` without a seed.
    space
        What is searched.
    settings
        Of the study.
    """

    data: str
    method: str
    folder: Path
    config: Options
    space: Space
    settings: StudySettings

    def run(self, seed: int, options: Mapping[str, Any]) -> Run:
        """Return the run with a seed and options that were searched, to be tested."""
        folder = self.folder / f"seed-{seed}"
        return self._run(folder, seed, options, asdict(self.settings.evaluation), False)

    def trial(self, number: int, options: Mapping[str, Any]) -> Run:
        """Return a run of the search, of which only validation images are evaluated."""
        folder = self.folder / SEARCH / f"trial-{number}"
        evaluation = {**asdict(self.settings.evaluation), "examples": 0, "worst": 0}
        return self._run(folder, self.settings.search.seed, options, evaluation, True)

    def own_options(self) -> dict[str, Any] | None:
        """Return the values of what is searched that the study gives, ``None`` if it lacks one."""
        found = {}
        for path in self.space:
            value: Any = self.config
            for key in path.split("."):
                if not isinstance(value, dict) or key not in value:
                    return None
                value = value[key]
            found[path] = value
        return found

    def _run(
        self,
        folder: Path,
        seed: int,
        options: Mapping[str, Any],
        evaluation: Options,
        validation: bool,
    ) -> Run:
        training = {**with_options(self.config, options), "seed_everything": seed}
        if self.settings.folds is not None:
            fold = {"number": seed % self.settings.folds, "of": self.settings.folds}
            training["data"] = {**training["data"], "fold": fold}
        how = {
            "settings": evaluation,
            "tested": self.settings.tested,
            "validation": validation,
            "name": self.method,
        }
        masks = os.path.relpath(self.folder.parent.parent / _masks_folder(training), folder)
        training, how = json.loads(json.dumps([training, how], allow_nan=False))
        return Run(folder, training, how, masks)


def entries(settings: StudySettings, out: Path) -> list[Entry]:
    """Return all methods on all data sets, in the order of the settings."""
    return [
        Entry(
            data,
            method,
            out / data / method,
            _config(settings, data, method),
            settings.search.common | settings.methods[method].search,
            settings,
        )
        for data in settings.data
        for method in settings.methods
    ]


def merged(first: Options, second: Options) -> Options:
    """Return options with those of ``second`` in place of the same ones in ``first``.

    Examples
    --------
    >>> merged({"model": {"a": 1, "b": 1}}, {"model": {"b": 2}})
    {'model': {'a': 1, 'b': 2}}
    """
    result = dict(first)
    for name, value in second.items():
        before = result.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        result[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def with_options(config: Options, options: Mapping[str, Any]) -> Options:
    """Return a configuration with options set by their paths.

    Raises
    ------
    ValueError
        If a path leads into something that holds no options.

    Examples
    --------
    >>> with_options({"model": {}}, {"model.learning_rate": 0.1})
    {'model': {'learning_rate': 0.1}}
    """
    result = copy.deepcopy(config)
    for path, value in options.items():
        *parents, name = path.split(".")
        target = result
        for key in parents:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ValueError(
                    f"{path!r} is searched, but {key!r} has the value {target!r}; write it with "
                    f"{CLASS} and {ARGUMENTS}"
                )
        target[name] = value
    return result


def _masks_folder(training: Options) -> Path:
    """Return a folder that runs share whose images and masks, and whose segmenter, are the same."""
    same = json.dumps([training["data"], training["seed_everything"]], sort_keys=True)
    return Path(_DRAWN_MASKS, hashlib.sha256(same.encode()).hexdigest()[:12])


def _config(settings: StudySettings, data: str, method: str) -> Options:
    entry = settings.methods[method]
    config = {part: merged(getattr(settings, part), getattr(entry, part)) for part in PARTS}
    trainer = config["trainer"]
    given = trainer.get("callbacks") or []
    callbacks = given if isinstance(given, list) else [given]
    if not any(isinstance(each, dict) and each.get(CLASS) == TIMER for each in callbacks):
        callbacks = [*callbacks, _TIMER]
    config["trainer"] = {"enable_progress_bar": False, **trainer, "callbacks": callbacks}
    kind = entry.method if isinstance(entry.method, dict) else {CLASS: entry.method}
    return {"data": settings.data[data], "method": {ARGUMENTS: {}, **kind}, **config}
