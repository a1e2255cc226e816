"""Processes of a study: forked after the imports, with their output, and none that stays."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import launched_programs
from faster_isnet.study.records import LOG
from launched_programs import DESCRIPTION, PROCESS


def begin(program: str, folders: list[Path]) -> subprocess.Popen[bytes]:
    """Start a study of a program."""
    for folder in folders:
        folder.mkdir()
    code = "import sys, launched_programs as p; p.run_all(sys.argv[1], sys.argv[2:])"
    path = os.pathsep.join([str(Path(launched_programs.__file__).parent), *sys.path])
    command = [sys.executable, "-c", code, program, *(folder.name for folder in folders)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, cwd=folders[0].parent)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    return holds()


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="the system does not fork"
)
def test_processes_are_forked_after_the_imports(tmp_path: Path) -> None:
    folders = [tmp_path / str(i) for i in range(3)]
    study = begin("describe", folders)
    assert study.wait(120) == 0
    found = [json.loads((folder / DESCRIPTION).read_text()) for folder in folders]
    assert len({each["imported_by"] for each in found}) == 1
    for each, folder in zip(found, folders, strict=True):
        assert each["imported_by"] == each["parent"] != study.pid
        assert each["threads"] == 1
        assert each["current"] == str(tmp_path)
        assert sorted((folder / LOG).read_text().split()) == ["described", "warned"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_study(tmp_path: Path, number: int) -> None:
    folders = [tmp_path / str(i) for i in range(3)]
    study = begin("wait", folders)
    files = [folder / PROCESS for folder in folders[:2]]
    assert wait_until(lambda: all(file.is_file() and file.read_text() for file in files), 120)
    running = [psutil.Process(int(file.read_text())) for file in files]
    study.send_signal(number)
    assert study.wait(60) != 0
    assert wait_until(lambda: not any(each.is_running() for each in running))
    assert not (folders[2] / PROCESS).exists()
