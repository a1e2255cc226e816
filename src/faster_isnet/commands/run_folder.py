"""Find the files of a run's folder, and keep two runs out of one folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from faster_isnet.common.files import remove_leftovers, write_atomically
from faster_isnet.common.locks import locked
from faster_isnet.evaluation.saved_evaluation import METRICS
from faster_isnet.segmentation.completion import remove_drawn_masks

log = logging.getLogger(__name__)

CHECKPOINTS, BEST, LAST = "checkpoints", "best", "last"
CONFIG, DIVISION, CURVES, CALIBRATION = "config.yaml", "division.json", "curves", "calibration.json"
MASKS = "masks"  # those that were drawn for images without one
TRAINING = "training.json"


def checkpoint_folder(run: str | Path) -> Path:
    """Return where a run's checkpoints are."""
    return Path(run) / CHECKPOINTS


def best_checkpoint(run: Path) -> Path:
    """Return a run's best checkpoint.

    Raises
    ------
    FileNotFoundError
        If it has none.
    """
    cure = f"; train first (faster-isnet fit --out {run}), or name a checkpoint"
    return _checkpoint(run, BEST, cure)


def last_checkpoint(run: Path) -> Path:
    """Return the checkpoint of a run's last epoch.

    Raises
    ------
    FileNotFoundError
        If no epoch has ended.
    """
    cure = (
        f" to go on from: no epoch of the run in {str(run)!r} has ended; begin it anew, without "
        "--ckpt_path, or name the run's folder with --out"
    )
    return _checkpoint(run, LAST, cure)


def _checkpoint(run: Path, name: str, cure: str) -> Path:
    path = checkpoint_folder(run) / f"{name}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}{cure}")
    return path


def run_folder(run: Path) -> Path:
    """Return a run's folder, of the folder itself or of one of its checkpoints."""
    if run.is_dir():
        return run
    return run.parent.parent if run.parent.name == CHECKPOINTS else run.parent


def recorded_division(run: Path) -> Path | None:
    """Return the file that says how a run's images were divided, ``None`` if there is none.

    Then a warning says what cannot be checked.
    """
    path = run / DIVISION
    if path.is_file():
        return path
    log.warning(
        "There is no %s, which runs have since version 0.2: the data are divided anew, and it "
        "cannot be checked which images the run was trained on. If images were added, removed or "
        "renamed since, some that it was trained on may count as validation or test images.",
        path,
    )
    return None


def save_training_warnings(run: Path, warnings: Sequence[str]) -> None:
    """Save what was not right at the end of a run's training."""
    text = json.dumps({"warnings": list(warnings)}, indent=2) + "\n"
    write_atomically(run / TRAINING, text.encode())


def training_warnings(run: Path) -> list[str]:
    """Load what was not right at the end of a run's training; nothing if that is not known.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = run / TRAINING
    if not path.is_file():
        return []
    try:
        return [str(each) for each in json.loads(path.read_text("utf-8"))["warnings"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error!r}); remove it, or train the run again"
        ) from error


def how_to_go_on(run: Path) -> str:
    """Say how a training that was stopped goes on."""
    command = f"faster-isnet fit --config {run / CONFIG}"
    if not (run / CONFIG).is_file():
        return "Nothing has been trained yet; run the command again."
    if (checkpoint_folder(run) / f"{LAST}.ckpt").is_file():
        return f"Go on after the last whole epoch with: {command} --ckpt_path last"
    return f"No epoch has ended yet; begin anew with: {command}"


def check_unused(run: Path) -> None:
    """Raise ``FileExistsError`` if a folder holds checkpoints of a run, which would be mixed."""
    checkpoints = sorted(checkpoint_folder(run).glob("*.ckpt"))
    if checkpoints:
        raise FileExistsError(
            f"{str(run)!r} holds an earlier run ({checkpoints[0].name} and what belongs to it); "
            "to go on with it: --ckpt_path last; to replace it: --overwrite; to keep it, name "
            "another folder: --out"
        )


def remove_run(run: Path) -> None:
    """Remove what an earlier run and its evaluations left in a folder, and nothing else."""
    for path in checkpoint_folder(run).glob("*.ckpt"):
        path.unlink()
    for name in (CONFIG, DIVISION, CALIBRATION, TRAINING):
        (run / name).unlink(missing_ok=True)
    remove_drawn_masks(run / MASKS)
    tests = {path.parent for path in run.glob(f"test*/{METRICS}")}
    for folder in (*(run / CURVES).glob("version_*"), *tests):
        shutil.rmtree(folder)


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Keep other processes from training into a folder, and remove what killed ones left.

    Raises
    ------
    FileExistsError
        If another process trains into it.
    """
    message = (
        f"another process is training into {str(run)!r}; wait for its end, or name another "
        "folder: --out"
    )
    with locked(run, message):
        remove_leftovers(run)
        remove_leftovers(checkpoint_folder(run))
        yield
