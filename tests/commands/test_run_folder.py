"""A run keeps its division and its folder; it is continued, replaced or evaluated as it was."""

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

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from faster_isnet.cli import main
from faster_isnet.commands.run_folder import only_writer
from faster_isnet.training.image_classifier import ImageClassifier
from toy_runs import fit, picture

STANDARD = ("--method", "standard")


@pytest.fixture
def own(images: Path, tmp_path: Path) -> Path:
    """Images that a test may change, with their masks beside them."""
    shutil.copytree(images.parent, tmp_path / "data")
    return tmp_path / "data" / "images"


@pytest.fixture(scope="session")
def standard_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("standard")
    fit(images, out, *STANDARD)
    return out


@pytest.fixture
def trained(own: Path, standard_run: Path, tmp_path: Path) -> Path:
    """A run on ``own``, which a test may change."""
    run = tmp_path / "run"
    shutil.copytree(standard_run, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"].update(source=str(own), masks=str(own.with_name("masks")))
    config["out"] = str(run)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def names_tested(run: Path) -> set[str]:
    with (run / "test" / "predictions" / "test.csv").open() as file:
        return {row["name"] for row in csv.DictReader(file)}


def evaluate(run: Path, *more: str) -> int:
    return main(["test", str(run), "--resamples", "10", *more])


def add_image(folder: Path) -> Path:
    path = folder / "dark" / "000.png"
    Image.fromarray(picture("dark", np.random.default_rng(9))).save(path)
    masks = folder.with_name("masks") / "dark"
    shutil.copy(masks / "1.png", masks / "000.png")
    return path


def test_no_image_that_was_trained_on_is_tested_on(
    own: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((trained / "division.json").read_text())
    assert {name: len(each) for name, each in record["images"].items()} == {
        "train": 42,
        "val": 9,
        "test": 9,
    }
    assert evaluate(trained) == 0
    before = names_tested(trained)
    new = add_image(own)
    assert evaluate(trained) == 0
    assert names_tested(trained) == before
    assert str(new) in caplog.text
    assert evaluate(trained, "--new_images", "test") == 0
    assert names_tested(trained) == before | {str(new)}


def test_validate_and_a_continued_fit_divide_as_the_run_did(
    own: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(trained / "config.yaml")]
    record = (trained / "division.json").read_text()
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["validate", *config, *quiet]) == 0
    before = capsys.readouterr().out
    add_image(own)
    assert main(["validate", *config, *quiet]) == 0
    assert capsys.readouterr().out == before
    assert main(["fit", *config, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
    assert (trained / "division.json").read_text() == record
    more = ["--trainer.max_epochs", "4", "--ckpt_path", "last", "--data.new_images", "train"]
    assert main(["fit", *config, *more]) == 0
    train = json.loads((trained / "division.json").read_text())["images"]["train"]
    assert "dark/000.png" in {image["name"] for image in train}
    assert evaluate(trained, "--new_images", "test") == 0  # it is not new any more
    assert str(own / "dark" / "000.png") not in names_tested(trained)


def test_a_training_image_among_other_images_is_refused(
    own: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--source", str(own)]
    assert evaluate(trained, *source) == 2
    assert "the run was trained on 42 of these 60 images" in capsys.readouterr().err
    assert evaluate(trained, *source, "--trained_images", "--out", str(tmp_path / "all")) == 0
    for name in ("bright", "dark"):
        path = tmp_path / "other" / name / "a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(picture(name, np.random.default_rng(77))).save(path)
    assert evaluate(trained, "--source", str(tmp_path / "other")) == 0


def test_a_renamed_class_is_an_error_and_not_another_result(
    own: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (own, own.with_name("masks")):
        (folder / "dark").rename(folder / "zdark")
    config = ["--config", str(trained / "config.yaml")]
    for command in (
        ["test", str(trained)],
        ["validate", *config],
        ["calibrate", *config, "--method", "isnet"],
        ["fit", *config, "--trainer.max_epochs", "3", "--ckpt_path", "last"],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "['bright', 'striped', 'zdark']" in error, command
        assert "['bright', 'dark', 'striped']" in error, command


def test_classes_in_another_order_are_matched_by_name(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(trained / "config.yaml"), "--trainer.enable_progress_bar", "false"]
    assert main(["validate", *config]) == 0
    before = capsys.readouterr().out
    other = [*config, "--data.class_names", "striped", "dark", "bright"]
    assert main(["validate", *other]) == 0
    assert capsys.readouterr().out.replace("striped", "") == before.replace("striped", "")
    assert main(["fit", *other, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
    lit = ImageClassifier.load_from_checkpoint(trained / "checkpoints" / "last.ckpt")
    assert lit.class_names == ["bright", "dark", "striped"]
    assert evaluate(trained) == 0
    assert json.loads((trained / "test" / "metrics.json").read_text())["class_names"] == [
        "bright",
        "dark",
        "striped",
    ]


def test_how_a_run_was_continued_is_not_in_its_configuration(trained: Path) -> None:
    path = trained / "config.yaml"
    before = yaml.safe_load(path.read_text())
    more = ["--trainer.max_epochs", "3", "--ckpt_path", "last", "--data.new_images", "train"]
    assert main(["fit", "--config", str(path), *more]) == 0
    after = yaml.safe_load(path.read_text())
    before["trainer"]["max_epochs"] = 3
    assert after == before
    assert after["ckpt_path"] is None


def test_an_earlier_run_is_refused_with_the_cures(
    own: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def state() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in trained.rglob("*") if p.is_file()}

    before = state()
    words = ["fit", "--config", str(trained / "config.yaml"), "--trainer.max_epochs", "1"]
    other = tmp_path / "other"
    assert main([*words, "--out", str(other)]) == 0
    for refused in (words, [*words, "--ckpt_path", str(other / "checkpoints" / "last.ckpt")]):
        assert main(refused) == 2
        error = capsys.readouterr().err
        for cure in ("--ckpt_path last", "--overwrite", "--out"):
            assert cure in error
        assert state() == before


def test_overwrite_leaves_nothing_of_the_earlier_run(
    own: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trained) == 0
    (trained / "notes.txt").write_text("the user's")
    config = ["--config", str(trained / "config.yaml")]
    both = ["--overwrite", "--ckpt_path", "last"]
    assert main(["fit", *config, *both]) == 2
    assert "give one of them" in capsys.readouterr().err
    (own / "dark" / "broken.png").write_bytes(b"")
    assert main(["fit", *config, "--overwrite"]) == 2  # what cannot be trained replaces nothing
    assert (trained / "checkpoints" / "best.ckpt").is_file()
    (own / "dark" / "broken.png").unlink()
    assert main(["fit", *config, "--overwrite", "--trainer.max_epochs", "1"]) == 0
    assert not (trained / "test").exists()
    assert (trained / "notes.txt").is_file()
    assert yaml.safe_load((trained / "config.yaml").read_text())["overwrite"] is False
    last = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert main(["validate", *config, "--overwrite"]) == 2


def test_two_runs_at_once_do_not_share_a_folder(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--data.source", str(own), "--data.size", "24", "--model.backbone", "convnet"]
    words += ["--out", str(out), *STANDARD, "--trainer.max_epochs", "1"]
    with only_writer(out):
        assert main(["fit", *words]) == 2
        assert "another process is training into" in capsys.readouterr().err
        assert {path.name for path in out.iterdir()} == {".lock"}
    assert main(["fit", *words]) == 0


def test_what_a_killed_run_left_is_removed(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    left = out / "checkpoints" / f".last.ckpt.{32 * 'a'}.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    fit(own, out, *STANDARD, "--trainer.max_epochs", "1")
    assert {p.name for p in left.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_there_is_nothing_to_go_on_with(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.source", str(own), "--data.size", "24", "--model.backbone", "convnet"]
    words += ["--out", str(tmp_path / "run"), "--ckpt_path", "last"]
    assert main(["fit", *words]) == 2
    assert "no epoch of the run in" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_says_how_to_go_on(
    number: signal.Signals, code: int, own: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["--data.source", str(own), "--data.size", "24", "--model.backbone", "convnet"]
    words += ["--out", str(out), *STANDARD, "--trainer.max_epochs", "5000"]
    command = [sys.executable, "-c", "import faster_isnet.cli as c; raise SystemExit(c.main())"]
    process = subprocess.Popen([*command, "fit", *words], stderr=subprocess.PIPE, text=True)
    last = out / "checkpoints" / "last.ckpt"
    until = time.monotonic() + 120
    while not last.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(process.pid, number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert f"faster-isnet fit --config {out / 'config.yaml'} --ckpt_path last" in error
    assert "Traceback" not in error
    config = ["--config", str(out / "config.yaml"), "--ckpt_path", "last"]
    epochs = torch.load(last, weights_only=True)["epoch"] + 2
    assert main(["fit", *config, "--trainer.max_epochs", str(epochs)]) == 0


def test_a_training_stopped_while_a_checkpoint_is_written_says_what_is_there(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(content: object, file: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            raise RuntimeError("unexpected pos 292 vs 0")  # as torch does

    monkeypatch.setattr(torch, "save", interrupted)
    words = ["--data.source", str(own), "--data.size", "24", "--model.backbone", "convnet"]
    words += ["--out", str(tmp_path / "run"), *STANDARD, "--trainer.max_epochs", "2"]
    assert main(["fit", *words]) == 143
    assert "stopped by SIGTERM. No epoch has ended yet" in capsys.readouterr().err


def test_what_the_user_writes_goes_before_the_checkpoint(
    trained: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(trained / "config.yaml"), "--method", "isnet"]
    hidden = ["--method.deep_supervision", "[block1,block2]", "--method.variant", "dual"]
    assert main(["calibrate", *config, *hidden]) == 0
    cuts = json.loads((trained / "calibration.json").read_text())
    assert "block2" in json.dumps(cuts)
    quiet = ["--config", str(run / "config.yaml"), "--trainer.enable_progress_bar", "false"]
    losses = []
    for weight in ("0", "1"):
        capsys.readouterr()
        assert main(["validate", *quiet, "--method.loss.heatmap_weight", weight]) == 0
        found = [line for line in capsys.readouterr().out.splitlines() if "val/" in line]
        losses.append({line.split()[1]: line.split()[3] for line in found})
    assert losses[0]["val/loss"] == losses[0]["val/classification"]
    assert losses[1]["val/loss"] == losses[1]["val/heatmap"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("learning_rate", "0.5"), ("optimizer", "sgd"), ("schedule", "cosine"), ("momentum", "0.1")],
)
def test_options_that_an_optimiser_keeps_are_refused(
    option: str, value: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state in the checkpoint would replace them without a word."""
    words = ["fit", "--config", str(trained / "config.yaml"), "--trainer.max_epochs", "3"]
    assert main([*words, "--ckpt_path", "last", f"--model.{option}", value]) == 2
    assert (
        f"{option} is {value if option in ('learning_rate', 'momentum') else repr(value)}, but"
        in (capsys.readouterr().err)
    )
