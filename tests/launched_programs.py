"""Programs for the processes of a study, and a study that runs them: tests/study/test_launch.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from faster_isnet.study.launch import Processes

IMPORTED_BY = os.getpid()
DESCRIPTION, PROCESS = "description.json", "process.txt"


def describe(folder: Path) -> int:
    """Write where the process comes from, and say so."""
    about = {
        "imported_by": IMPORTED_BY,
        "parent": os.getppid(),
        "threads": torch.get_num_threads(),
        "current": str(Path.cwd()),
    }
    (folder / DESCRIPTION).write_text(json.dumps(about))
    print("described")
    print("warned", file=sys.stderr)
    return 0


def wait(folder: Path) -> int:
    """Write the process's number, and do nothing for ten minutes."""
    (folder / PROCESS).write_text(str(os.getpid()))
    time.sleep(600)
    return 0


def run_all(program: str, folders: list[str]) -> None:
    """Run a program for each folder, two at a time with a thread each."""
    with Processes({"describe": describe, "wait": wait}[program], 1, 2) as launcher:
        for future in [launcher.submit(Path(folder)) for folder in folders]:
            future.result()
