"""Keep in each run's folder what it was made with, how far it is, and what was found."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from faster_isnet.common.files import write_atomically
from faster_isnet.study.plan import Run

RUN, RESULT, FAILED, LOG = "run.json", "result.json", "failed.json", "log.txt"


class State(Enum):
    """How far a run is."""

    FINISHED = "finished"
    OPEN = "to be trained or evaluated"
    CHANGED = "trained with other settings"


@dataclass(frozen=True)
class Costs:
    """Hold what a run cost.

    Attributes
    ----------
    seconds
        Of the whole training with its validation, in all processes that it took.
    seconds_per_epoch
        Of the training without validation.
    epochs
        How many were trained.
    milliseconds
        Per image, to predict one image at a time; the median.
    parameters
        Of the network that is used after the training.
    """

    seconds: float
    seconds_per_epoch: float
    epochs: int
    milliseconds: float
    parameters: int


def state_of(run: Run) -> State:
    """Tell how far a run is, from the files in its folder."""
    record = _read(run.folder / RUN)
    if record is None:
        return State.OPEN
    if record["training"] != run.training:
        started = record["trained"] or any(run.folder.glob("checkpoints/*.ckpt"))
        return State.CHANGED if started else State.OPEN
    result = _read(run.folder / RESULT)
    same = result is not None and result["evaluation"] == run.evaluation
    return State.FINISHED if record["trained"] and same else State.OPEN


def changes(run: Run) -> list[str]:
    """Return which settings of a run's training differ from those in its folder, as text."""
    record = _read(run.folder / RUN)
    before = {} if record is None else _flat(record["training"])
    now = _flat(run.training)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name}: {before.get(name)!r} -> {now.get(name)!r}" for name in names]


def prepare(run: Run) -> None:
    """Write what a run's process reads; the training is kept if its settings are the same."""
    record = _read(run.folder / RUN)
    trained = record is not None and record["training"] == run.training and record["trained"]
    (run.folder / FAILED).unlink(missing_ok=True)
    _write_run(run, bool(trained))


def load_run(folder: Path) -> tuple[Run, bool]:
    """Return the run that :func:`prepare` wrote, and whether it has been trained."""
    record = _read(folder / RUN)
    if record is None:
        raise FileNotFoundError(f"there is no {folder / RUN}; start runs by faster-isnet study")
    run = Run(folder, record["training"], record["evaluation"], record["drawn_masks"])
    return run, record["trained"]


def record_training(run: Run) -> None:
    """Record that a run has been trained to its end."""
    _write_run(run, True)


def record_result(run: Run, costs: Costs) -> None:
    """Record that a run is finished, and what it cost."""
    _write(run.folder / RESULT, {"evaluation": run.evaluation, "costs": asdict(costs)})


def record_failure(folder: Path, error: str) -> None:
    """Record why a run failed."""
    _write(folder / FAILED, {"error": error})


def failure_of(run: Run) -> str | None:
    """Return why a run failed with these settings; ``None`` if it did not, or was stopped."""
    content, record = _read(run.folder / FAILED), _read(run.folder / RUN)
    if content is None or record is None or record["training"] != run.training:
        return None
    return str(content["error"])


def costs_of(folder: Path) -> Costs:
    """Return what a finished run cost."""
    content = _read(folder / RESULT)
    if content is None:
        raise FileNotFoundError(f"there is no {folder / RESULT}; run the study again")
    return Costs(**content["costs"])


def remove(folder: Path) -> None:
    """Remove a run's folder, if it is one."""
    if (folder / RUN).is_file():
        shutil.rmtree(folder)


def _write_run(run: Run, trained: bool) -> None:
    settings = {"training": run.training, "evaluation": run.evaluation}
    _write(run.folder / RUN, {**settings, "drawn_masks": run.drawn_masks, "trained": trained})


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is no JSON ({error}); remove the folder, to train that run again"
        ) from error
    return dict(content)


def _flat(options: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(options, dict) or not options:
        return {path: options}
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value, f"{path}.{name}" if path else name)
    return flat
