"""What tests have found, as folders: written once, read to report and to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faster_isnet.common.environment import machine
from faster_isnet.common.files import write_atomically
from faster_isnet.evaluation import Predictions
from faster_isnet.evaluation.evaluator import Judge, Judgement

METRICS = "metrics.json"
_KEYS = ("name", "checkpoint", "task", "class_names", "sets", "settings", "seconds")


@dataclass(frozen=True, eq=False)
class TestedRun:
    """What a test of one classifier found.

    Attributes
    ----------
    name
        What the classifier is called.
    folder
        Where all of it lies.
    metrics
        The content of ``metrics.json``.
    """

    __test__ = False  # for pytest, which takes the name for its own

    name: str
    folder: Path
    metrics: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> TestedRun:
        """Read what :func:`save_test` has written.

        Raises
        ------
        FileNotFoundError
            If the folder holds no test.
        ValueError
            If it holds something else.
        """
        path = Path(folder) / METRICS
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}; test the classifier first: faster-isnet test RUN"
            )
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is no JSON ({error}); test the run again") from error
        missing = [key for key in _KEYS if not isinstance(metrics, dict) or key not in metrics]
        if missing:
            raise ValueError(
                f"{str(path)!r} lacks {', '.join(missing)}: it is not of faster-isnet test"
            )
        return cls(metrics["name"], Path(folder), metrics)

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of their indices."""
        return list(self.metrics["class_names"])

    @property
    def sets(self) -> dict[str, dict[str, Any]]:
        """What was found on each data set, by its name."""
        return dict(self.metrics["sets"])

    def predictions(self, data: str) -> Predictions:
        """Return the predictions of a data set's images."""
        return Predictions.load(_predictions_file(self.folder, data))

    def picture(self, file: str) -> bytes:
        """Return a picture's PNG, by the name that the metrics give it.

        Raises
        ------
        ValueError
            If it does not lie in the folder.
        """
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"the picture {file!r} lies outside of {str(self.folder)!r}")
        return path.read_bytes()


def save_test(
    folder: str | Path,
    judgements: Mapping[str, Judgement],
    judge: Judge,
    *,
    name: str,
    checkpoint: Path,
    seconds: float,
) -> None:
    """Write what was found on data sets, by their names, into a folder.

    ``predictions/SET.csv``, ``attention/SET.csv``, ``pictures/SET/NUMBER-KIND.png``, and last
    ``metrics.json``, which names them and holds all else.

    Parameters
    ----------
    folder
        Where to; made if need be. Files of the same names are replaced, each at once.
    judgements
        By the data set's name, which can name a file.
    judge
        Who judged.
    name
        What to call the classifier in tables.
    checkpoint
        Where it came from.
    seconds
        How long it took.
    """
    folder = Path(folder)
    sets = {}
    for data, found in judgements.items():
        found.predictions.save(_predictions_file(folder, data))
        if len(found.attention):
            table = found.attention.to_csv(index=False).encode()
            write_atomically(folder / "attention" / f"{data}.csv", table)
        rows = []
        for number, picture in enumerate(found.pictures, 1):
            file = Path("pictures", data, f"{number:03}-{picture.kind}.png")
            write_atomically(folder / file, picture.png)
            rows.append({"file": file.as_posix(), **picture.row()})
        sets[data] = {**found.metrics, "pictures": rows}
    tasks = {found.predictions.task for found in judgements.values()}
    content = {
        "name": name,
        "checkpoint": str(checkpoint),
        "task": tasks.pop(),
        "class_names": judge.class_names,
        "sets": sets,
        "settings": {**asdict(judge.settings), **machine()},
        "seconds": {"test": round(seconds, 1)},
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / METRICS, text.encode())


def _predictions_file(folder: Path, data: str) -> Path:
    return folder / "predictions" / f"{data}.csv"
