"""Train and evaluate one run of a study; the program of the processes of ``faster-isnet study``.

``python -m faster_isnet.commands.study_run FOLDER`` does what ``faster-isnet fit`` and ``test`` do,
with the settings that the study wrote into the folder, and goes on where an earlier process was.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import yaml

from faster_isnet.commands import testing, training
from faster_isnet.commands.model_bundle import ModelBundle
from faster_isnet.commands.run_folder import LAST, checkpoint_folder
from faster_isnet.common.files import write_atomically
from faster_isnet.common.locks import locked
from faster_isnet.common.messages import show_own_messages
from faster_isnet.common.stopping import raising_when_stopped, stopped_by
from faster_isnet.study.costs import measure_costs
from faster_isnet.study.plan import Run
from faster_isnet.study.records import (
    LOG,
    load_run,
    record_failure,
    record_result,
    record_training,
)

_CONFIG, _LOCK = "fit.yaml", ".study.lock"
_PATIENCE = 60.0  # seconds for another process, whose study was killed, to end


def main(folder: Path) -> int:
    """Train and evaluate the run in a folder, and return the exit code."""
    show_own_messages()
    message = f"another process works on {str(folder)!r}; run the study again after its end"
    with raising_when_stopped() as received:
        try:
            with locked(folder, message, _LOCK, _PATIENCE):
                finish(folder)
        except (Exception, KeyboardInterrupt, SystemExit) as ending:
            if received.number or stopped_by(ending):
                return 1
            traceback.print_exc()
            refused = isinstance(ending, SystemExit)  # by the parser, which printed why
            reason = f"its options are refused; see {LOG}" if refused else str(ending)
            record_failure(folder, f"{type(ending).__name__}: {reason}")
            return 1
    return 0


def finish(folder: Path) -> None:
    """Train and evaluate a run, as far as that is not done yet."""
    run, trained = load_run(folder)
    if not trained:
        _train(run)
        record_training(run)
    checkpoint = checkpoint_folder(folder) / f"{run.evaluation['tested']}.ckpt"
    _evaluate(run, checkpoint)
    bundle = ModelBundle.from_checkpoint(checkpoint)
    last = checkpoint_folder(folder) / f"{LAST}.ckpt"
    costs = measure_costs(last, bundle.network, bundle.inputs, bundle.image_shape)
    record_result(run, costs)


def _train(run: Run) -> None:
    """Train by ``faster-isnet fit``, after the last whole epoch if there is one."""
    config = run.folder / _CONFIG
    write_atomically(config, yaml.safe_dump(run.training, sort_keys=False).encode())
    begun = (checkpoint_folder(run.folder) / f"{LAST}.ckpt").is_file()
    how = ("--ckpt_path", LAST) if begun else ("--overwrite",)
    masks = os.path.normpath(run.folder / run.drawn_masks)
    where = ("--out", str(run.folder), "--drawn_masks", masks)
    training.run(["fit", "--config", str(config), *where, *how])


def _evaluate(run: Run, checkpoint: Path) -> None:
    """Evaluate by ``faster-isnet test``, without a page: the study's has what is compared."""
    settings = run.evaluation["settings"]
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    if run.evaluation["validation"]:
        arguments.append("--validation")
    testing.evaluate(["test", str(checkpoint), "--name", run.evaluation["name"], *arguments])


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
