"""A method that is defined outside of the package is trained, kept, tested and exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet.cli import main
from faster_isnet.evaluation import accuracy
from faster_isnet.models import build_backbone
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.export import export
from faster_isnet.training.image_classifier import ImageClassifier
from faster_isnet.training.lit_classifier import LitClassifier
from toy_method import BlackBackground
from toy_runs import fit

TOY = "toy_method.BlackBackground"


def data() -> TensorDataset:
    images, masks = torch.rand(20, 3, 16, 16), torch.zeros(20, 1, 16, 16)
    masks[..., 4:12, 4:12] = 1
    return TensorDataset(images, torch.arange(20) % 3, masks)


def trainer(out: Path, epochs: int) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        callbacks=[ModelCheckpoint(out, save_last=True)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    torch.manual_seed(1)
    return DataLoader(data(), 8, shuffle=True), DataLoader(data(), 8)


def lit() -> LitClassifier:
    torch.manual_seed(0)
    method = BlackBackground(epochs=3)
    return LitClassifier(build_backbone("convnet", 3), method, schedule="constant")


def test_by_python(tmp_path: Path) -> None:
    whole, parts = lit(), lit()
    trainer(tmp_path / "whole", 3).fit(whole, *loaders())
    trainer(tmp_path / "parts", 2).fit(parts, *loaders())
    resumed = lit()
    again = trainer(tmp_path / "parts", 3)
    again.fit(resumed, *loaders(), ckpt_path=tmp_path / "parts" / "last.ckpt")
    assert whole.method.seen == resumed.method.seen == 60
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert again.callback_metrics["val/darkness"] == pytest.approx(2 / 3)
    assert again.callback_metrics["train/darkness"] == pytest.approx(2 / 3)
    (tested,) = again.test(resumed, loaders()[1], verbose=False)
    assert set(tested) == {
        f"test/{name}" for name in ("loss", "classification", "accuracy", "darkness")
    }

    read = LitClassifier.load_from_checkpoint(tmp_path / "parts" / "last.ckpt")
    assert isinstance(read.method, BlackBackground)
    assert (read.method.epochs, read.method.seen) == (3, 60)
    assert 0 <= accuracy(read.deployed.eval(), loaders()[1]) <= 1
    written = export(read.deployed, tmp_path / "exported", (3, 16, 16), ["state_dict"])
    model = load_backbone_weights(written["state_dict"], build_backbone("convnet", 3)).eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(model(images), resumed.eval()(images))


def written(folder: Path) -> list[str]:
    """The method with its option in a YAML file."""
    config = {"method": {"class_path": TOY, "init_args": {"epochs": 4}}}
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    return ["--config", str(folder / "toy.yaml")]


@pytest.mark.parametrize(
    "arguments",
    [
        lambda folder: ["--method", f"class_path={TOY}", "--method.epochs", "4"],
        lambda folder: ["--method", TOY, "--method.epochs=4"],
        lambda folder: [f"--method={TOY}", "--method.init_args.epochs", "4"],
        lambda folder: ["--method.class_path", TOY, "--method.epochs", "4"],
        written,
    ],
    ids=["class_path=", "path", "=path", ".class_path", "yaml"],
)
def test_ways_to_name_it(
    arguments: Callable[[Path], list[str]], images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fit(images, run, *arguments(tmp_path))
    kept = yaml.safe_load((run / "config.yaml").read_text())["method"]
    assert kept == {"class_path": TOY, "init_args": {"epochs": 4}}


def test_by_all_commands(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(images, run, "--method", TOY, "--method.epochs=4")
    config = ["--config", str(run / "config.yaml")]
    assert main(["fit", *config, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
    assert main(["validate", *config, "--trust_config"]) == 0
    with (run / "curves" / "version_1" / "metrics.csv").open() as file:
        assert [row["val/darkness"] for row in csv.DictReader(file) if row["val/darkness"]] == [
            "0.5"
        ]
    assert main(["test", str(run)]) == 0
    assert json.loads((run / "test" / "metrics.json").read_text())["sets"]
    checkpoint = run / "checkpoints" / "last.ckpt"
    words = [str(checkpoint), "--formats", "safetensors", "--out", str(tmp_path / "exported")]
    assert main(["export", *words]) == 0
    trained = ImageClassifier.load_from_checkpoint(checkpoint).eval()
    assert isinstance(trained.method, BlackBackground)
    exported = tmp_path / "exported" / "model.safetensors"
    model = load_backbone_weights(exported, build_backbone("convnet", 3)).eval()
    x = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(model(x), trained(x))


def test_a_method_that_needs_masks_in_tests(images: Path, tmp_path: Path) -> None:
    fit(images, tmp_path / "run", "--method", "toy_method.ForegroundOnly")
    assert main(["test", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    backgrounds = metrics["sets"]["test"]["sensitivity"]["backgrounds"]
    assert len(backgrounds) > 2
    for name, found in backgrounds.items():
        assert found["changed"]["value"] == 0, name
        assert found["probability change"]["value"] == pytest.approx(0, abs=1e-6), name


def test_the_toy_is_small() -> None:
    source = Path(__file__).parents[1].joinpath("toy_method.py").read_text()
    toy = source[source.index("class BlackBackground") : source.index("class ForegroundOnly")]
    assert len(toy.splitlines()) <= 40
