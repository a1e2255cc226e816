"""Commands that are stopped, or that cannot write, say in a line what was kept and what to do."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from faster_isnet import cli
from faster_isnet.commands import exporting

# Tells when the command itself runs, which is when signals are turned into its ending.
PROGRAM = """
import sys
from importlib import import_module
from faster_isnet import cli
name = sys.argv[1]
module = import_module("faster_isnet.commands." + cli.COMMANDS[name].module)
run = module.run
def told(words):
    print("RUNS", file=sys.stderr, flush=True)
    run(words)
module.run = told
raise SystemExit(cli.main())
"""
CASES = {
    "test": "test {run} --out {out} --resamples 100000",
    "explain": "explain {run} {images} --target all --out {out}",
    "calibrate": "calibrate --config {run}/config.yaml",
    "export": "export {run} --out {out}",
    "segment": "segment fit {images} --masks {masks} --out {out} --settings.encoder_weights null",
    "demo": "demo --out {out}",
    "benchmark": "benchmark --out {out}",
    "fit": "fit --data.source {images} --data.masks {masks} --model.backbone convnet --out {out}",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"), zip(CASES, cycle([signal.SIGTERM, signal.SIGINT]), strict=False)
)
def test_a_command_that_is_stopped_says_what_was_kept(
    name: str, number: signal.Signals, run: Path, images: Path, tmp_path: Path
) -> None:
    paths = {
        "run": run,
        "images": images,
        "masks": images.with_name("masks"),
        "out": tmp_path / "out",
    }
    words = CASES[name].format(**paths).split()
    command = [sys.executable, "-c", PROGRAM, *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "RUNS" not in process.stderr.readline():
        pass
    time.sleep(0.3)
    os.kill(process.pid, number)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number, error
    assert "Traceback" not in error
    assert f"faster-isnet {name}: stopped by" in error
    assert "run" in error.rpartition("stopped by")[2]  # the command again
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_what_a_signal_became_is_not_an_error_of_the_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit as ending:
            raise ValueError("torn") from ending

    monkeypatch.setattr(exporting, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["export", "x"]) == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let files of this process have so many bytes."""
    before, highest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, highest))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, highest))


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("export {run} --formats state_dict --out {out}", "model.pt"),
        ("export {run} --formats safetensors --out {out}", "model.safetensors"),
        pytest.param(
            "export {run} --formats onnx --out {out}", "model.onnx", marks=pytest.mark.slow
        ),
        ("explain {run} {images} --formats npy --out {out}", ".npy"),
    ],
)
def test_a_limit_of_the_disk_names_the_file(
    words: str,
    file: str,
    run: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with files_of_at_most(4096):
        assert cli.main(words.format(run=run, images=images, out=out).split()) == 2
    error = capsys.readouterr().err
    assert file in error
    assert "File too large" in error
    assert "Traceback" not in error
    assert not [path for path in out.rglob("*") if path.is_file()]
