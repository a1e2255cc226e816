"""``faster-isnet study`` on a few digits, with its processes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faster_isnet.cli import main
from faster_isnet.common.locks import locked
from faster_isnet.data import BiasedDigitsData
from faster_isnet.evaluation import Predictions

DATA = "{class_path: BiasedDigitsData, init_args: {train_size: 60, val_size: 20, test_size: 20}}"
COMMON = f"""
data: {{digits: {DATA}}}
model: {{backbone: convnet}}
"""
PROGRAM = [sys.executable, "-c", "import faster_isnet.cli as c; raise SystemExit(c.main())"]


def study_file(folder: Path, more: str, examples: int = 0) -> str:
    """Write a study whose runs draw so many images of each class, which takes seconds."""
    path = folder / "study.yaml"
    path.write_text(f"{COMMON}{more}\nevaluation: {{resamples: 10, examples: {examples}}}\n")
    return str(path)


def epochs(run: Path) -> list[list[int]]:
    """Return the epochs that were trained, by process."""
    found = []
    for path in sorted(run.glob("curves/version_*/metrics.csv")):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        found.append(sorted({int(row["epoch"]) for row in rows if row["epoch"]}))
    return found


def test_an_unknown_option_of_a_method_stops_the_study_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "methods: {dual: {method: {class_path: isnet, init_args: {varant: dual}}}}"
    file, out = study_file(tmp_path, more), tmp_path / "out"
    assert main(["study", file, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "dual on digits" in error
    assert "varant" in error
    assert not (out / "digits").exists()


def test_two_studies_in_one_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = study_file(tmp_path, "methods: {standard: {method: standard}}"), tmp_path / "out"
    with locked(out, ""):
        assert main(["study", file, "--out", str(out)]) == 2
    assert "another study runs in" in capsys.readouterr().err


def test_a_cross_validation_tests_on_each_image_once(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        f"data: {{own: {{source: {images}, size: 24}}}}\n"
        "methods: {standard: {method: standard}}\n"
        "model: {backbone: convnet}\ntrainer: {max_epochs: 1}\n"
        "seeds: [0, 1]\nfolds: 2\nevaluation: {resamples: 10, examples: 0}\n"
    )
    out = tmp_path / "out"
    assert main(["study", str(file), "--out", str(out)]) == 0
    tested = [
        name
        for seed in (0, 1)
        for name in Predictions.load(
            out / "own" / "standard" / f"seed-{seed}" / "test" / "predictions" / "test.csv"
        ).names
    ]
    assert sorted(tested) == sorted(str(path) for path in images.rglob("*.png"))
    assert "over 2 folds" in (out / "study.md").read_text()
    assert "1 method on 1 data set in 2 folds" in (out / "study.md").read_text()
    assert "Nadeau and Bengio" in (out / "report.html").read_text()


def test_a_trial_reads_no_test_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial's process does, here: with test sets that cannot be read."""
    from faster_isnet.commands import study_run, studying
    from faster_isnet.study.plan import entries
    from faster_isnet.study.records import RESULT, prepare

    file = study_file(tmp_path, "methods: {standard: {method: standard}}\ntrainer: {max_epochs: 1}")
    [entry] = entries(studying.read_study(Path(file)), tmp_path / "out")

    def no_images(data: BiasedDigitsData) -> None:
        raise AssertionError("a test set is read")

    monkeypatch.setattr(BiasedDigitsData, "test_dataloader", no_images)
    monkeypatch.setattr(BiasedDigitsData, "test_sets", {})
    trial, tested = entry.trial(0, {}), entry.run(0, {})
    for run, code in ((trial, 0), (tested, 1)):
        prepare(run)
        assert study_run.main(run.folder) == code
    metrics = json.loads((trial.folder / "test-validation" / "metrics.json").read_text())
    assert list(metrics["sets"]) == ["val"]
    assert (trial.folder / RESULT).is_file()
    assert "a test set is read" in (tested.folder / "failed.json").read_text()


@pytest.mark.slow
def test_a_study_is_searched_trained_and_extended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    methods = """
methods:
  standard: {method: standard}
  broken: {method: standard, trainer: {limit_val_batches: 0}, checkpoint: {monitor: val/loss}}
  isnet:
    method: isnet
    search: {method.init_args.loss.init_args.heatmap_weight: {low: 0.1, high: 0.9}}
trainer: {max_epochs: 1}
search: {trials: 2}
seeds: SEEDS
"""
    out = tmp_path / "out"
    file = study_file(tmp_path, methods.replace("SEEDS", "[0]"), examples=1)
    assert main(["study", file, "--out", str(out), "--processes", "2"]) == 2
    told = capsys.readouterr()
    assert "1 of the runs failed" in told.err
    before = {path: path.stat().st_mtime for path in out.rglob("result.json")}
    assert len(before) == 4
    logs = "".join(path.read_text() for path in out.rglob("log.txt"))
    assert "Training on 1 x cpu" in logs
    assert "INFO" not in logs  # nothing of Lightning's
    file = study_file(tmp_path, methods.replace("SEEDS", "[0, 1]"), examples=1)
    assert main(["study", file, "--out", str(out)]) == 2
    after = {path: path.stat().st_mtime for path in out.rglob("result.json")}
    assert len(after) == 6
    assert before == {path: after[path] for path in before}
    content = json.loads((out / "study.json").read_text())["data"]["digits"]
    assert set(content["isnet"]["runs"]) == {"0", "1"}
    assert len(content["isnet"]["trials"]) == 2
    assert set(content["broken"]["failures"]) == {"0", "1"}
    ratio = content["standard"]["means"]["training, relative"]
    assert (ratio["value"], ratio["low"]) == (1, 1)
    assert set(content["isnet"]["differences"]) >= {"accuracy, deceiving", "worst accuracy"}
    rows = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows if row["error"]] == ["0", "1"]
    page = (out / "study.md").read_text()
    for name in ("robustness-cost", "robustness-accuracy", "heatmaps"):
        assert (out / "plots" / f"digits-{name}.png").is_file()
        assert f"plots/digits-{name}.png" in page
    assert_small_files_suffice(file, out)


def assert_small_files_suffice(file: str, out: Path) -> None:
    """Go on with a copy of a study that has nothing but three small files of each run."""
    small = out.with_name("small")
    for path in out.rglob("*.json"):
        if path.name in ("run.json", "result.json", "metrics.json", "failed.json"):
            copy = small / path.relative_to(out)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    assert main(["study", file, "--out", str(small), "--report_only"]) == 0
    assert (small / "runs.csv").read_bytes() == (out / "runs.csv").read_bytes()
    assert not list(small.rglob("*heatmaps.png"))


@pytest.mark.slow
def test_a_killed_study_goes_on_after_the_last_epoch(tmp_path: Path) -> None:
    more = "methods: {standard: {method: standard}}\nseeds: [0]\ntrainer: {max_epochs: 25}"
    file, out = study_file(tmp_path, more), tmp_path / "out"
    run = out / "digits" / "standard" / "seed-0"
    process = subprocess.Popen([*PROGRAM, "study", file, "--out", str(out)])
    until = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with locked(run, "the run's process does not end", ".study.lock", patience=60):
        assert not (run / "result.json").is_file()
    assert main(["study", file, "--out", str(out)]) == 0
    first, second = epochs(run)
    assert first[0] == 0
    assert 0 < second[0] <= first[-1] + 1
    assert second[-1] == 24


@pytest.mark.slow
def test_runs_are_jobs_of_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    more = "methods: {standard: {method: standard}}\nseeds: [0]\ntrainer: {max_epochs: 1}"
    file, out = study_file(tmp_path, more), tmp_path / "out"
    assert main(["study", file, "--out", str(out), "--submitit", "local"]) == 0
    assert (out / "digits" / "standard" / "seed-0" / "result.json").is_file()
    assert list((out / "jobs").glob("*.pkl"))
    assert main(["study", file, "--out", str(out), "--report_only"]) == 0
