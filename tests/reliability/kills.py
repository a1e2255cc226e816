"""Kill commands at random moments, and run them again: ``python tests/reliability/kills.py``.

Each command runs once undisturbed. Then, for each kill, it runs in a new folder and gets a SIGKILL:
every other time at any moment before it first writes, else at any moment from then to its end. No
file may be half-written, and the same command, run again, must end as the undisturbed one did. The
table goes to standard output, and the exit status is 1 if a command failed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import load_file

from toy_runs import write_images

SOURCE, MASKS, RUN, OUT = "images", "masks", "run", "out"
COMMANDS = {
    "calibrate": f"calibrate --config {OUT}/config.yaml --out {OUT}",
    "segment fit": f"segment fit {SOURCE} --masks {MASKS} --settings.size 64 --settings.epochs 3"
    f" --out {OUT}",
    "test": f"test {RUN} --out {OUT}",
    "explain": f"explain {RUN}/checkpoints/best.ckpt {SOURCE}/dark --out {OUT}",
    "export": f"export {RUN}/checkpoints/best.ckpt --out {OUT}",
}


def _html(path: Path) -> None:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("has no end")


def _image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": lambda path: list(csv.reader(path.open(), strict=True)),
    ".md": lambda path: path.read_text(),
    ".yaml": lambda path: path.read_text(),
    ".html": _html,
    ".png": _image,
    ".npy": np.load,
    ".npz": lambda path: dict(np.load(path)),
    ".onnx": lambda path: onnx.checker.check_model(str(path), full_check=True),
    ".safetensors": load_file,
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".ckpt": lambda path: torch.load(path, weights_only=True),
}


def files(folder: Path) -> list[Path]:
    """Return the files that a user sees: names that begin with a dot are of work in progress.

    TensorBoard's are left out, which are written on and on and named by the time.
    """
    hidden = (".", "events.out.tfevents")
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(hidden))


def faults(folder: Path) -> list[str]:
    """Name the files that cannot be read to their ends."""
    found = []
    for path in files(folder):
        if path.suffix not in READERS:
            found.append(f"{path.name}: no reader for {path.suffix!r} here")
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:  # whatever a reader says of a broken file
            found.append(f"{path.name}: {error!r}")
    return found


def start(command: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("faster-isnet")), *command.split()],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr").open("wb"),
    )


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in files(folder)]


def has_written(folder: Path, before: set[Path]) -> bool:
    return bool(set(folder.rglob("*")) - before - {folder / "stderr"})


def undisturbed(command: str, folder: Path) -> tuple[float, float, list[str]]:
    """Return the seconds before and after it first writes, and its files."""
    begin, before = time.monotonic(), set(folder.rglob("*"))
    process, first = start(command, folder), None
    while process.poll() is None:
        if first is None and has_written(folder, before):
            first = time.monotonic()
        time.sleep(0.005)
    end = time.monotonic()
    if process.returncode:
        sys.exit(f"{command} failed:\n{(folder / 'stderr').read_text()}")
    first = first or end
    return first - begin, end - first, names(folder / OUT)


def kill(process: subprocess.Popen[bytes], delay: float) -> bool:
    """Kill a process after some seconds, and return whether it still ran."""
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def killed(
    command: str, folder: Path, delay: float, while_it_writes: bool
) -> tuple[bool, list[str]]:
    """Return whether the kill was in time, and which files it left half-written."""
    before, process = set(folder.rglob("*")), start(command, folder)
    while while_it_writes and process.poll() is None and not has_written(folder, before):
        time.sleep(0.001)
    return kill(process, delay), faults(folder / OUT)


def again(command: str, folder: Path, expected: list[str]) -> list[str]:
    """Run a command once more, and return what is wrong then."""
    process = start(command, folder)
    if process.wait(600):
        error = (folder / "stderr").read_text()[-300:]
        return [f"again: status {process.returncode}: {error}"]
    if names(folder / OUT) != expected:
        return [f"again: files {sorted(set(names(folder / OUT)) ^ set(expected))}"]
    return faults(folder / OUT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each command (default: 10)")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, failures = random.Random(options.seed), 0
    root = Path(tempfile.mkdtemp())
    write_images(root / SOURCE)
    words = f"fit --data.source {SOURCE} --data.masks {MASKS} --data.size 24 --out {RUN}"
    if start(f"{words} --trainer.max_epochs 2", root).wait():
        sys.exit((root / "stderr").read_text())
    print("| command | killed before it wrote | while it wrote | too late | something wrong |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.commands:
        before, writing, expected = undisturbed(COMMANDS[name], fresh(root, name))
        counts, wrong = Counter[str](), 0
        for number in range(options.kills):
            folder, late = fresh(root, name), number % 2 == 1
            delay = rng.uniform(0, writing if late else before)
            in_time, problems = killed(COMMANDS[name], folder, delay, late)
            problems += again(COMMANDS[name], folder, expected)
            counts["too late" if not in_time else "writing" if late else "before"] += 1
            wrong += bool(problems)
            for problem in problems:
                print(f"{name}: {problem}", file=sys.stderr)
        row = counts["before"], counts["writing"], counts["too late"], wrong
        print(f"| `{name}` | {' | '.join(map(str, row))} |", flush=True)
        failures += wrong
    shutil.rmtree(root)
    return min(failures, 1)


def fresh(root: Path, command: str) -> Path:
    """Return a folder with the images and the run, and nothing that a command wrote."""
    folder = Path(tempfile.mkdtemp(dir=root))
    for name in (SOURCE, MASKS, RUN):
        shutil.copytree(root / name, folder / name)
    if command == "calibrate":  # writes into a run
        shutil.copytree(root / RUN, folder / OUT)
    return folder


if __name__ == "__main__":
    sys.exit(main())
