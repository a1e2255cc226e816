"""Images of one channel: trained on, tested, explained and exported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faster_isnet.cli import main
from faster_isnet.models import build_backbone
from faster_isnet.models.weight_files import load_backbone_weights
from toy_runs import fit


@pytest.fixture(scope="module")
def grey_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ISNet, trained for one epoch on images with marks, which are drawn in grey."""
    run = tmp_path_factory.mktemp("grey") / "run"
    options = ["--data.channels", "1", "--trainer.max_epochs", "1"]
    fit(images, run, *options, "--data.planting.size", "0.4")
    return run


def heatmap(folder: Path) -> np.ndarray:
    with (folder / "explanations.csv").open() as file:
        (row,) = csv.DictReader(file)
    with Image.open(folder / row["png"]) as picture:
        assert picture.width > picture.height > 100
    return np.load(folder / row["npy"])


def test_a_grey_run_is_tested_with_pictures(grey_run: Path) -> None:
    assert main(["test", str(grey_run), "--resamples", "20"]) == 0
    metrics = json.loads((grey_run / "test" / "metrics.json").read_text())
    assert metrics["sets"].keys() == {"test", "test-biased", "test-deceiving"}
    backgrounds = metrics["sets"]["test"]["sensitivity"]["backgrounds"]
    assert backgrounds.keys() >= {"blur", "noise", "zeros", "other image"}
    assert list((grey_run / "test" / "pictures" / "test").glob("*.png"))


def test_it_is_explained_and_exported_also_as_a_network_by_name(
    grey_run: Path, images: Path, tmp_path: Path
) -> None:
    image, found = str(images / "dark" / "1.png"), []
    exported = tmp_path / "model"
    assert main(["export", str(grey_run), "--formats", "safetensors", "--out", str(exported)]) == 0
    weights = exported / "model.safetensors"
    load_backbone_weights(weights, build_backbone("convnet", 3, channels=1))
    named = ["convnet", "--weights", str(weights), "--classes", "3", "--size", "24"]
    for model in ([str(grey_run)], [*named, "--channels", "1"]):
        out = tmp_path / str(len(found))
        assert main(["explain", *model, image, "--target", "1", "--out", str(out)]) == 0
        found.append(heatmap(out))
    assert found[0].shape == (1, 24, 24)
    assert np.abs(found[0]).max() > 0
    np.testing.assert_array_equal(*found)
