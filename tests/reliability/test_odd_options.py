"""Odd options and values of all commands are refused in a sentence, or do what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from faster_isnet.cli import main

Record = Callable[[str, object], None]
Texts = tuple[str, ...]

# The words of a command, and what its error must say. {…} are paths of the test.
OPTIONS: dict[str, tuple[str, Texts]] = {
    "epochs-text": ("fit {data} --trainer.max_epochs x", ("max_epochs", "x")),
    "epochs-below-minus-1": ("fit {data} --trainer.max_epochs -2", ("max_epochs", "-2")),
    "batch-size-0": ("fit {data} --data.batch_size 0", ("batch_size", "0", "[1, inf)")),
    "batch-size-nan": ("fit {data} --data.batch_size nan", ("batch_size", "nan")),
    "batch-size-float": ("fit {data} --data.batch_size 2.5", ("batch_size", "2.5")),
    "seed-negative": ("fit {data} --seed_everything -5", ("seed_everything", "-5")),
    "split-seed-negative": ("fit {data} --data.seed -1", ("seed", "-1", "[0, inf)")),
    "workers-negative": ("fit {data} --data.workers -1", ("workers", "-1", "[0, inf)")),
    "size-0": ("fit {data} --data.size 0", ("size must be", "got 0")),
    "size-negative": ("fit {data} --data.size -24", ("size must be", "got -24")),
    "size-too-small": ("fit {data} --data.size 2", ("size", "2")),
    "channels-0": ("fit {data} --data.channels 0", ("channels", "0")),
    "fractions-above-1": (
        "fit {data} --data.fractions {{train:2,val:0.1,test:0.1}}",
        ("fractions", "2"),
    ),
    "learning-rate-nan": ("fit {data} --model.learning_rate nan", ("learning_rate", "nan")),
    "learning-rate-inf": ("fit {data} --model.learning_rate inf", ("learning_rate", "inf")),
    "learning-rate-0": ("fit {data} --model.learning_rate 0", ("learning_rate", "(0, inf)")),
    "weight-decay-negative": ("fit {data} --model.weight_decay -1", ("weight_decay", "-1")),
    "dropout-1": ("fit {data} --model.dropout 1", ("dropout", "1")),
    "backbone-unknown": ("fit {data} --model.backbone resnet19", ("resnet19", "resnet18")),
    "optimizer-unknown": ("fit {data} --model.optimizer adamw2", ("optimizer", "adamw2")),
    "schedule-unknown": ("fit {data} --model.schedule cosinus", ("schedule", "cosinus")),
    "channels-2": ("fit {data} --data.channels 2", ("channels", "1 or 3", "got 2")),
    "option-unknown": ("fit {data} --data.batchsize 4", ("batchsize", "batch_size")),
    "method-unknown": ("fit {data} --method isnett", ("isnett", "isnet")),
    "method-no-class": ("fit {data} --method os.path.join", ("os.path.join",)),
    "variant-unknown": (
        "fit {isnet} --method.variant selectve",
        ("selectve", "selective"),
    ),
    "heatmap-weight-2": (
        "fit {isnet} --method.loss.heatmap_weight 2",
        ("heatmap_weight", "[0, 1]"),
    ),
    "heatmap-weight-nan": (
        "fit {isnet} --method.loss.heatmap_weight nan",
        ("heatmap_weight",),
    ),
    "accelerator-unknown": ("fit {data} --trainer.accelerator abacus", ("abacus",)),
    "precision-unknown": ("fit {data} --trainer.precision 8-true", ("precision", "8-true")),
    "devices-0": ("fit {data} --trainer.devices 0", ("devices", "0")),
    "monitor-mistyped": ("fit {data} --checkpoint.monitor val_los", ("val_los", "val/loss")),
    "mode-unknown": ("fit {data} --checkpoint.mode lowest", ("lowest", "min")),
    "source-missing": ("fit {small} --data.source {tmp}/none", ("{tmp}/none",)),
    "source-empty": ("fit {small} --data.source {empty}", ("{empty}",)),
    "source-is-text": ("fit {small} --data.source {text}", ("{text}",)),
    "masks-missing": ("fit {data} --data.masks {tmp}/none", ("{tmp}/none",)),
    "mask-margin-huge": ("fit {data} --data.mask_margin -1000", ("mask_margin", "-1000")),
    "out-is-a-file": ("fit {data} --out {text}", ("{text}",)),
    "checkpoint-missing": ("fit {data} --ckpt_path {tmp}/none.ckpt", ("{tmp}/none.ckpt",)),
    "validate-no-run": ("validate {data} --out {empty}", ("{empty}", "train first")),
    "validate-overwrite": ("validate {data} --out {run} --overwrite", ("--overwrite", "fit")),
    "calibrate-standard": ("calibrate {data} --out {run} --method standard", ("--method isnet",)),
    "test-no-run": ("test {tmp}/none", ("{tmp}/none", "train first")),
    "test-resamples-0": ("test {run} --out {tmp}/o --resamples 0", ("resamples", "0")),
    "test-level-2": ("test {run} --out {tmp}/o --level 2", ("level", "2")),
    "test-batch-size-0": ("test {run} --out {tmp}/o --batch_size 0", ("batch_size", "0")),
    "test-device-unknown": ("test {run} --out {tmp}/o --accelerator abacus", ("abacus",)),
    "test-out-is-a-file": ("test {run} --out {text}", ("{text}",)),
    "test-source-missing": ("test {run} --source {tmp}/none --out {tmp}/o", ("{tmp}/none",)),
    "compare-untested": ("compare {empty}", ("{empty}",)),
    "explain-target-unknown": ("explain {best} {image} --target 7 --out {tmp}/o", ("'7'", "dark")),
    "explain-image-missing": ("explain {best} {tmp}/n.png --out {tmp}/o", ("{tmp}/n.png",)),
    "explain-folder-empty": ("explain {best} {empty} --out {tmp}/o", ("{empty}",)),
    "explain-text": ("explain {best} {text} --out {tmp}/o", ("{text}",)),
    "explain-epsilon-nan": ("explain {best} {image} --epsilon nan --out {tmp}/o", ("epsilon",)),
    "explain-composite": ("explain {best} {image} --composite x --out {tmp}/o", ("composite",)),
    "explain-format": ("explain {best} {image} --formats tif --out {tmp}/o", ("tif", "png")),
    "explain-model-missing": ("explain {tmp}/n.ckpt {image}", ("{tmp}/n.ckpt", "checkpoint")),
    "explain-two-weights": ("explain {best} {image} --weights {text}", ("--weights", "{text}")),
    "explain-classes-1": ("explain convnet {image} --weights {text} --classes 1", ("classes",)),
    "explain-size-0": ("explain convnet {image} --weights {text} --size 0", ("size", "0")),
    "export-format": ("export {best} --formats tflite --out {tmp}/o", ("tflite", "onnx")),
    "export-out-is-a-file": ("export {best} --out {text}", ("{text}",)),
    "export-text": ("export {text} --out {tmp}/o", ("{text}",)),
    "segment-no-masks": ("segment fit {images} --out {tmp}/o", ("--masks",)),
    "segment-epochs-0": (
        "segment fit {images} --masks {masks} --settings.epochs 0 --out {tmp}/o",
        ("epochs", "0"),
    ),
    "segment-no-segmenter": ("segment predict {empty} {image} --out {tmp}/o", ("{empty}",)),
    "demo-seed": ("demo --seed -1 --out {tmp}/o", ("seed", "-1")),
    "benchmark-rounds-0": ("benchmark --rounds 0 --out {tmp}/o", ("rounds", "0")),
    "benchmark-unknown": ("benchmark --only speed --out {tmp}/o", ("speed",)),
}
CONFIGURATIONS: dict[str, tuple[bytes, Texts]] = {
    "yaml-list": (b"- data\n- model\n", ("{config}",)),
    "yaml-text": (b"hello", ("{config}",)),
    "yaml-tabs": (b"data:\n\tsize: 24\n", ("{config}",)),
    "yaml-duplicate-key": (b"data:\n  size: 24\n  size: 32\n", ("size",)),
    "yaml-binary": (b"\x00\xff\xfe", ("{config}",)),
    "yaml-unknown-key": (b"dta:\n  size: 24\n", ("dta",)),
    "yaml-wrong-type": (b"data:\n  size: [1, 2, 3]\n", ("size",)),
    "yaml-section-is-number": (b"data: 3\n", ("data", "3")),
    "yaml-object": (b"data: !!python/object/apply:os.getcwd []\n", ("{config}",)),
}


@pytest.fixture
def paths(images: Path, run: Path, tmp_path: Path) -> dict[str, str]:
    """Paths by the names that the tables above have for them."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    small = "--data.size 24 --data.batch_size 8 --model.backbone convnet --trainer.max_epochs 1 "
    small += f"--method standard --trainer.enable_progress_bar false --out {tmp_path / 'new'}"
    return {
        "images": str(images),
        "masks": str(images.with_name("masks")),
        "image": str(images / "dark" / "0.png"),
        "run": str(run),
        "best": str(run / "checkpoints" / "best.ckpt"),
        "tmp": str(tmp_path),
        "empty": str(tmp_path / "empty"),
        "text": str(tmp_path / "text"),
        "small": small,
        "isnet": f"--data.source {images} {small} --method isnet",
        "data": f"--data.source {images} {small}",
        "config": str(tmp_path / "config.yaml"),
    }


def outcome_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit status of a command, and what it wrote to the standard error."""
    try:
        status = main(words)
    except SystemExit as ending:
        status = int(ending.code or 0)
    return status, capsys.readouterr().err


@pytest.mark.parametrize("name", OPTIONS)
def test_an_odd_option_is_refused(
    name: str, paths: dict[str, str], capsys: pytest.CaptureFixture[str], record_property: Record
) -> None:
    command, texts = OPTIONS[name]
    status, error = outcome_of(command.format(**paths).split(), capsys)
    assert status == 2, error
    for text in texts:
        assert text.format(**paths) in error
    assert "Traceback" not in error
    record_property("outcome", "refused")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_odd_configuration_is_refused(
    name: str, paths: dict[str, str], capsys: pytest.CaptureFixture[str], record_property: Record
) -> None:
    content, texts = CONFIGURATIONS[name]
    Path(paths["config"]).write_bytes(content)
    words = ["fit", *paths["data"].split(), "--config", paths["config"]]
    status, error = outcome_of(words, capsys)
    assert status == 2, error
    for text in texts:
        assert text.format(**paths) in error
    assert "Traceback" not in error
    record_property("outcome", "refused")


def test_an_empty_configuration_changes_nothing(
    paths: dict[str, str], record_property: Record
) -> None:
    Path(paths["config"]).write_text("")
    assert main(["fit", "--config", paths["config"], *paths["data"].split()]) == 0
    kept = yaml.safe_load((Path(paths["tmp"]) / "new" / "config.yaml").read_text())
    assert kept["data"]["size"] == 24
    record_property("outcome", "right result")


@pytest.mark.parametrize("name", ["größe 図", "a b'c\"d", "-dash", "%s {x}"])
def test_any_name_of_a_folder_works(
    name: str, paths: dict[str, str], run: Path, record_property: Record
) -> None:
    out = Path(paths["tmp"]) / name
    assert main(["explain", paths["best"], paths["image"], f"--out={out}"]) == 0
    assert (out / "explanations.csv").is_file()
    assert main(["fit", *paths["data"].split(), f"--out={out}"]) == 0
    assert main(["test", str(out), "--resamples", "2"]) == 0
    assert (out / "test" / "report.html").is_file()
    record_property("outcome", "right result")


def test_a_size_that_divides_nothing_is_used(
    paths: dict[str, str], record_property: Record
) -> None:
    words = [*paths["data"].split(), "--data.size", "[25, 31]"]
    assert main(["fit", *words]) == 0
    out = Path(paths["tmp"]) / "new"
    assert yaml.safe_load((out / "config.yaml").read_text())["data"]["size"] == [25, 31]
    assert main(["explain", str(out), paths["image"], "--out", str(out / "e")]) == 0
    record_property("outcome", "right result")
