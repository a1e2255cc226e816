"""Methods that need the groups of images, by commands on a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from faster_isnet.cli import main
from faster_isnet.models.weight_files import read_checkpoint
from marked_images import correlated_images


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of each split, of two scanners, some unknown."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for split, seed in (("train", 0), ("val", 1)):
        images, labels, _, attributes = correlated_images(48, 0.75, seed)
        assert labels is not None
        assert attributes is not None
        for number in range(48):
            name = f"{split}{number}.png"
            pixels = (255 * images[number, 0].clamp(0, 1)).byte().numpy()
            Image.fromarray(pixels).save(folder / name)
            scanner = ["a", "b"][attributes[number]] if number % 5 else ""
            rows.append((name, "hv"[labels[number]], split, scanner))
    path = folder / "table.csv"
    pd.DataFrame(rows, columns=["image", "label", "split", "scanner"]).to_csv(path, index=False)
    return path


def fit(table: Path, out: Path, method: str, *more: str) -> int:
    words = ["fit", "--data.source", table, "--data.size", 16, "--model.backbone", "convnet"]
    words += ["--method", method, "--out", out, "--trainer.max_epochs", 1, *more]
    return main([str(word) for word in words])


@pytest.mark.parametrize("method", ["group-dro", "last-layer"])
def test_a_column_of_the_table_gives_the_groups(table: Path, tmp_path: Path, method: str) -> None:
    assert fit(table, tmp_path, method, "--data.fields", "{attribute: scanner}") == 0
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    state = checkpoint["method_state"]
    if method == "group-dro":
        groups = [[label, attribute] for label in (0, 1) for attribute in (-1, 0, 1)]
        assert state["groups"] == groups
        assert sum(state["counts"]) == 48
    else:
        weight = checkpoint["state_dict"][f"net.{state['trained']['layer']}.weight"]
        assert weight.shape == state["trained"]["weight"].shape
        assert not (weight == state["trained"]["weight"]).all()


@pytest.mark.parametrize("method", ["group-dro", "last-layer"])
def test_without_it_the_message_says_how_to_give_it(
    table: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(table, tmp_path, method) == 2
    assert "(data.fields: {attribute: NAME_OF_THE_COLUMN})" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()
