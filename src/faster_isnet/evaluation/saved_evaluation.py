"""Save evaluations as folders, and load them to report and to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from faster_isnet.common.environment import machine
from faster_isnet.common.files import file_hash, write_atomically
from faster_isnet.common.spreadsheets import safe_csv
from faster_isnet.evaluation.evaluator import Evaluation, EvaluationSettings, Evaluator
from faster_isnet.evaluation.json_format import (
    key_of,
    measures_from_json,
    measures_to_json,
    results_from_json,
    results_to_json,
)
from faster_isnet.evaluation.measures import Measure
from faster_isnet.evaluation.predictions import Predictions
from faster_isnet.evaluation.results import DrawnPicture, Picture, SavedPicture, SavedResults

METRICS = "metrics.json"
_KEYS = ("name", "checkpoint", "task", "class_names", "sets", "settings", "seconds")
_RENAMED_SETTINGS = {"samples": "resamples"}  # since 0.1
_ADDED_SETTINGS = {  # since 0.1
    name: getattr(EvaluationSettings(), name) for name in ("specificity", "second_opinion")
}


@dataclass(frozen=True, eq=False)
class SavedEvaluation:
    """Hold a classifier's evaluation on one or more data sets, read from a folder.

    Attributes
    ----------
    name
        What the classifier is called in tables.
    folder
        Where the files are.
    checkpoint
        Which checkpoint was evaluated.
    task
        ``"multiclass"`` or ``"multilabel"``.
    class_names
        In the order of their indices.
    sets
        What was found on each data set, by its name.
    measures
        How the measures of ``sets`` are called and shown.
    settings
        How the classifier was evaluated.
    environment
        Versions and the machine.
    seconds
        Run times, by what took them.
    training_warnings
        What was not right at the end of the training.
    date
        When it was evaluated, by ISO 8601, in UTC; empty where that was not recorded.
    checkpoint_sha256
        The hash of the checkpoint's file; empty where that was not recorded.
    revision
        The hash of the commit that it was fetched from; empty if it was on this machine.
    """

    name: str
    folder: Path
    checkpoint: str
    task: str
    class_names: Sequence[str]
    sets: Mapping[str, SavedResults]
    measures: Sequence[Measure]
    settings: EvaluationSettings
    environment: Mapping[str, str | int]
    seconds: Mapping[str, float]
    training_warnings: Sequence[str] = ()
    date: str = ""
    checkpoint_sha256: str = ""
    revision: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> SavedEvaluation:
        """Load what :func:`save_evaluation` has written, or ``faster-isnet test`` of 0.1.

        Raises
        ------
        FileNotFoundError
            If the folder holds no evaluation.
        ValueError
            If it holds something else.
        """
        path = Path(folder) / METRICS
        content = _read(path)
        try:
            settings, environment = _split_settings(content["settings"])
            return cls(
                name=content["name"],
                folder=Path(folder),
                checkpoint=content["checkpoint"],
                task=content["task"],
                class_names=content["class_names"],
                sets={name: results_from_json(each) for name, each in content["sets"].items()},
                measures=measures_from_json(content.get("measures")),
                settings=settings,
                environment=environment,
                seconds=content["seconds"],
                training_warnings=[str(each) for each in content.get("training_warnings", ())],
                date=str(content.get("date", "")),
                checkpoint_sha256=str(content.get("checkpoint_sha256", "")),
                revision=str(content.get("revision", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{str(path)!r} is damaged ({error!r}); evaluate the run again: faster-isnet test"
            ) from error

    @property
    def details(self) -> dict[str, Any]:
        """Return date and checkpoint, the settings, the versions and the machine, by name."""
        recorded = {"date": self.date, "sha256 of the checkpoint": self.checkpoint_sha256}
        recorded["revision"] = self.revision
        known = {name: value for name, value in recorded.items() if value}
        return {**known, **asdict(self.settings), **self.environment}

    def predictions(self, data: str) -> Predictions:
        """Load the predictions of a data set's images."""
        return Predictions.load(_predictions_file(self.folder, data))

    def png(self, picture: SavedPicture) -> bytes:
        """Load a picture's PNG; see :meth:`read`."""
        return self.read(picture.file)

    def read(self, file: str) -> bytes:
        """Load the file of a picture, or of an opinion.

        Raises
        ------
        ValueError
            If it is not in the folder.
        """
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"the picture {file!r} lies outside of {str(self.folder)!r}")
        return path.read_bytes()


def save_evaluation(
    folder: str | Path,
    evaluations: Mapping[str, Evaluation],
    evaluator: Evaluator,
    *,
    name: str,
    checkpoint: Path,
    seconds: float,
    revision: str = "",
    training_warnings: Sequence[str] = (),
) -> None:
    """Save evaluations on data sets, by the data sets' names, in a folder.

    ``predictions/SET.csv``, ``attention/SET.csv``, ``pictures/SET/NUMBER-KIND.png``, beside it
    ``NUMBER-KIND-METHOD.png`` where a second opinion was asked, and last
    ``metrics.json``, which names the pictures and holds all else.

    Parameters
    ----------
    folder
        Where to; made if need be. Files of the same names are replaced, each at once.
    evaluations
        By the data set's name, which must be valid as a file's name.
    evaluator
        That made them.
    name
        What to call the classifier in tables.
    checkpoint
        Which checkpoint was evaluated.
    seconds
        How long it took.
    revision
        The hash of the commit that the classifier was fetched from.
    training_warnings
        What was not right at the end of the training.
    """
    folder = Path(folder)
    sets = {}
    for data, found in evaluations.items():
        found.predictions.save(_predictions_file(folder, data))
        if len(found.attention):
            table = safe_csv(found.attention.rename(columns=key_of))
            write_atomically(folder / "attention" / f"{data}.csv", table)
        pictures = [
            _save_picture(
                folder, Path("pictures", data, f"{number:03}-{picture.kind}.png"), picture
            )
            for number, picture in enumerate(found.pictures, 1)
        ]
        sets[data] = results_to_json(found.results, pictures)
    tasks = {found.predictions.task for found in evaluations.values()}
    content = {
        "name": name,
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": file_hash(checkpoint) if checkpoint.is_file() else "",
        "revision": revision,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "task": tasks.pop(),
        "class_names": evaluator.class_names,
        "sets": sets,
        "measures": measures_to_json(evaluator.measures),
        "settings": {**asdict(evaluator.settings), **machine()},
        "seconds": {"test": round(seconds, 1)},
        "training_warnings": list(training_warnings),
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / METRICS, text.encode())


def _read(path: Path) -> dict[str, Any]:
    """Read the file, and check that it is of an evaluation."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; evaluate the classifier first: faster-isnet test RUN"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON ({error}); test the run again") from error
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(
            f"{str(path)!r} lacks {', '.join(missing)}: it is not of faster-isnet test"
        )
    return dict(content)


def _split_settings(
    content: Mapping[str, Any],
) -> tuple[EvaluationSettings, dict[str, str | int]]:
    """Tell the settings from the versions and the machine, which files hold together."""
    renamed = {_RENAMED_SETTINGS.get(name, name): value for name, value in content.items()}
    entries = {**_ADDED_SETTINGS, **renamed}
    known = [field.name for field in fields(EvaluationSettings)]
    settings = EvaluationSettings(**{name: entries.pop(name) for name in known})
    return settings, entries


def _save_picture(folder: Path, file: Path, picture: DrawnPicture) -> SavedPicture:
    write_atomically(folder / file, picture.png)
    described = {field.name: getattr(picture, field.name) for field in fields(Picture)}
    drawn = file.with_suffix("").as_posix()
    opinions = [opinion.save(folder, drawn) for opinion in picture.opinions]
    return SavedPicture(file=file.as_posix(), opinions=opinions, **described)


def _predictions_file(folder: Path, data: str) -> Path:
    return folder / "predictions" / f"{data}.csv"
