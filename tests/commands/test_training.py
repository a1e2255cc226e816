"""fit, validate, calibrate, explain and export, one after another, on a folder of images."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from faster_isnet import Calibration
from faster_isnet.cli import main
from faster_isnet.models import build_backbone
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.image_classifier import ImageClassifier
from toy_runs import CLASSES, fit


def test_a_run_lies_in_its_folder(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["backbone"] == "convnet"
    assert config["data"]["size"] == 24
    assert config["seed_everything"] == 0
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with (run / "curves" / "version_0" / "metrics.csv").open() as file:
        columns = set(csv.DictReader(file).fieldnames or ())
    assert {"train/heatmap", "val/loss", "val/accuracy", "val/background_error"} <= columns
    callbacks = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"]
    monitored = {state.get("monitor") for state in callbacks.values()}
    assert "val/background_error" in monitored


@pytest.mark.slow
def test_the_log_says_what_is_done_once_and_nothing_of_the_libraries_below(
    images: Path, tmp_path: Path
) -> None:
    masks, out = images.with_name("masks"), tmp_path / "run"
    words = ["--data.source", images, "--data.masks", masks, "--data.size", 24, "--out", out]
    few = ["--model.backbone", "convnet", "--trainer.max_epochs", 1]
    program = [sys.executable, "-c", "from faster_isnet import cli; raise SystemExit(cli.main())"]
    done = subprocess.run(
        [*program, "fit", "--missing_masks", "leave_out", *map(str, (*words, *few))],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert sum("Training on 1 x " in line for line in lines) == 1
    assert not [line for line in lines if "INFO" in line or "litlogger" in line or "TPU" in line]
    assert len(set(lines)) == len(lines)


@pytest.mark.slow
def test_two_processes_train_by_the_command(images: Path, tmp_path: Path) -> None:
    masks, out = images.with_name("masks"), tmp_path / "run"
    words = ["--data.source", images, "--data.masks", masks, "--data.size", 24, "--out", out]
    two = ["--trainer.devices", 2, "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]
    few = ["--method", "swap", "--model.backbone", "convnet", "--trainer.max_epochs", 2]
    program = Path(sys.executable).with_name("faster-isnet")  # which the second process runs, too
    command = [program, "fit", "--missing_masks", "leave_out", *map(str, (*words, *two, *few))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Epoch 2 of 2") == 1
    content = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["epoch"] == 1


def test_fit_names_the_layers_that_it_found_before_it_trains(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="faster_isnet"):
        fit(images, tmp_path / "run", "--method.deep_supervision", "true")
    lines = [line for line in caplog.messages if "hidden" in line or "Calibrating" in line]
    assert lines[0] == "Supervised hidden layers: block1, block2, block5"
    assert lines[1:2] == ["Calibrating C1 and C2: 3 epochs of a standard classifier"]
    assert len(lines) == 2
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert list(content["method_state"]["cuts"]["low"]) == ["image", "block1", "block2", "block5"]


@pytest.mark.parametrize("value", [None, 0])
def test_an_isnet_without_a_single_mask_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: int | None
) -> None:
    words = [
        "fit",
        "--data.source",
        str(images),
        "--data.size",
        "24",
        "--model.backbone",
        "convnet",
    ]
    words += ["--out", str(tmp_path / "run"), "--trainer.max_epochs", "1"]
    if value is not None:  # masks without foreground count as none
        for path in images.rglob("*.png"):
            empty = tmp_path / "masks" / path.relative_to(images)
            empty.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((24, 24), value, np.uint8)).save(empty)
        words += ["--data.masks", str(tmp_path / "masks")]
    assert main(words) == 2
    assert "none of the 42 training images has a mask" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert main([*words, "--method", "standard"]) == 0


def test_a_run_goes_on_where_it_stopped(images: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    constant = ("--model.schedule", "constant")
    fit(images, whole, *constant, "--trainer.max_epochs", "3")
    fit(images, parts, *constant)
    config = ["--config", str(parts / "config.yaml")]
    assert main(["fit", *config, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
    assert len(list((parts / "curves").glob("version_*/metrics.csv"))) == 2
    states = [
        torch.load(out / "checkpoints" / "last.ckpt", weights_only=True) for out in (whole, parts)
    ]
    assert [state["epoch"] for state in states] == [2, 2]
    for key, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][key]), key


@pytest.mark.slow
def test_worker_processes_change_nothing(images: Path, tmp_path: Path) -> None:
    """Augmentation is, and the calibration, which reads the training's loader as well."""
    weights = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        fit(images, out, "--data.workers", str(workers))
        content = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
        assert content["global_step"] == 6  # of two epochs, none of them empty
        weights.append(content["state_dict"])
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_the_last_epoch_is_kept_though_the_first_was_the_best(images: Path, tmp_path: Path) -> None:
    monitored = ["--checkpoint.monitor", "epoch", "--checkpoint.mode", "min"]
    fit(images, tmp_path, "--trainer.max_epochs", "3", "--method", "standard", *monitored)
    states = {
        name: torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert states == {"best": 0, "last": 2}
    config = ["--config", str(tmp_path / "config.yaml"), "--ckpt_path", "last"]
    assert main(["fit", *config, "--trainer.max_epochs", "4"]) == 0
    again = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert again["epoch"] == 3
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_a_checkpoint_needs_nothing_else(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    path = run / "checkpoints" / "best.ckpt"
    lit = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    assert (lit.class_names, lit.image_shape) == (list(CLASSES), (3, 24, 24))
    assert lit.method.loss.cuts is not None
    plain = load_backbone_weights(path, build_backbone("convnet", 3)).eval()
    x = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(lit.eval()(x), plain(x))


def test_validate_takes_the_best_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = ["--config", str(run / "config.yaml")]
    assert main(["validate", *config, "--trainer.enable_progress_bar", "false"]) == 0
    assert "val/accuracy" in capsys.readouterr().out
    assert main(["validate", *config, "--out", str(tmp_path)]) == 2
    assert "train first (faster-isnet fit --out" in capsys.readouterr().err


def test_calibrate_and_use_it(images: Path, tmp_path: Path) -> None:
    fit(images, tmp_path, "--method", "standard")
    words = ["--config", str(tmp_path / "config.yaml"), "--method", "isnet"]
    assert main(["calibrate", *words]) == 0
    path = tmp_path / "calibration.json"
    found = Calibration.load(path)
    words = ["--method.calibration", str(path), "--method.loss.heatmap_weight", "0.5"]
    fit(images, tmp_path / "calibrated", *words)
    best = tmp_path / "calibrated" / "checkpoints" / "best.ckpt"
    assert ImageClassifier.load_from_checkpoint(best).method.loss.cuts == found.cuts


def test_explain(run: Path, images: Path, tmp_path: Path) -> None:
    words = [str(run / "checkpoints" / "best.ckpt"), str(images / "dark")]
    assert main(["explain", *words, "--out", str(tmp_path), "--target", "all"]) == 0
    with (tmp_path / "explanations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows[:3]] == list(CLASSES)
    assert len(rows) == 60
    assert np.load(tmp_path / rows[0]["npy"]).shape == (3, 24, 24)
    assert (tmp_path / rows[0]["png"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet19", "."], "unknown backbone 'resnet19'"),
        (["CHECKPOINT", "nowhere.png"], "there is no file 'nowhere.png'"),
        (["CHECKPOINT", "IMAGES", "--target", "bite"], "the classes are: 'bright', 'dark'"),
        (["CHECKPOINT", "EMPTY"], "has no images; their names must end in"),
    ],
)
def test_what_cannot_be_explained(
    words: list[str],
    message: str,
    run: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    names = {
        "CHECKPOINT": run / "checkpoints" / "best.ckpt",
        "IMAGES": images / "dark",
        "EMPTY": tmp_path / "empty",
    }
    words = [str(names.get(word, word)) for word in words]
    assert main(["explain", *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["resnet18", "convnet"])
def test_explain_a_network_by_its_name(name: str, images: Path, tmp_path: Path) -> None:
    torch.save(build_backbone(name, 4).state_dict(), tmp_path / "weights.pt")
    words = [name, str(images / "dark" / "0.png"), "--classes", "4", "--size", "32"]
    words += ["--weights", str(tmp_path / "weights.pt"), "--target", "2", "--formats", "npy"]
    assert main(["explain", *words, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.npy")
    assert np.load(path).shape == (3, 32, 32)


def test_export_a_network_by_its_name(tmp_path: Path) -> None:
    network = build_backbone("convnet", 4).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    words = ["convnet", "--weights", str(tmp_path / "weights.pt"), "--classes", "4", "--size", "32"]
    words += ["--formats", "state_dict", "--out", str(tmp_path / "out")]
    assert main(["export", *words]) == 0
    exported = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    torch.testing.assert_close(exported, dict(network.state_dict()))


def test_a_folder_of_a_run_is_its_best_checkpoint(run: Path, images: Path, tmp_path: Path) -> None:
    image, found = str(images / "dark" / "0.png"), []
    for number, model in enumerate((run, run / "checkpoints" / "best.ckpt")):
        out = tmp_path / str(number)
        assert main(["explain", str(model), image, "--formats", "npy", "--out", str(out)]) == 0
        assert main(["export", str(model), "--formats", "state_dict", "--out", str(out)]) == 0
        (heatmap,) = out.glob("*.npy")
        found.append((np.load(heatmap), torch.load(out / "model.pt", weights_only=True)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=0)


@pytest.mark.parametrize("command", ["explain", "export"])
@pytest.mark.parametrize("by_name", [True, False])
def test_torchscript_is_refused_with_the_cure(
    command: str, by_name: bool, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.trace(build_backbone("convnet", 3), torch.rand(1, 3, 24, 24)), path)
    words = ["convnet", "--weights", str(path), "--classes", "3"] if by_name else [str(path)]
    words += [str(images / "dark" / "0.png")] if command == "explain" else []
    assert main([command, *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert path.name in error
    assert "is a program of torch.jit" in error
    assert "state_dict()" in error
    assert not (tmp_path / "out").exists()


def test_export(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "checkpoints" / "best.ckpt"
    words = [str(checkpoint), "--formats", "safetensors", "state_dict", "--out", str(tmp_path)]
    assert main(["export", *words]) == 0
    trained = ImageClassifier.load_from_checkpoint(checkpoint).eval()
    x = torch.rand(2, 3, 24, 24)
    for name in ("model.safetensors", "model.pt"):
        assert name in capsys.readouterr().out or name == "model.pt"
        model = load_backbone_weights(tmp_path / name, build_backbone("convnet", 3)).eval()
        torch.testing.assert_close(model(x), trained(x))
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["output"]["class_names"] == list(CLASSES)
    assert main(["export", str(tmp_path / "nothing.ckpt")]) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "dark" / "3.png").write_bytes(b"not a picture"),
        lambda folder: Image.new("L", (9, 9)).save(folder.with_name("masks") / "dark" / "3.png"),
    ],
    ids=["unreadable", "mask of another size"],
)
def test_faults_of_the_data_are_told_before_anything_is_trained(
    change: Callable[[Path], object],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(images.parent, tmp_path / "data")
    folder = tmp_path / "data" / "images"
    change(folder)
    words = ["--data.source", str(folder), "--data.masks", str(folder.with_name("masks"))]
    words += ["--data.size", "24", "--out", str(tmp_path / "run"), "--model.backbone", "convnet"]
    words += ["--missing_masks", "keep"]
    assert main(["fit", *words]) == 2
    error = capsys.readouterr().err
    assert "3.png" in error
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert main(["fit", *words, "--trainer.max_epochs", "1", "--skip-unreadable"]) == 0
    assert "1 left out" in capsys.readouterr().out
