"""segment fit and segment predict, on a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from faster_isnet.cli import main

QUICK = ["--settings.size", "64", "--settings.epochs", "1", "--settings.batch_size", "4"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of a bright square, 8 of 10 with a mask in the folder beside."""
    rng = np.random.default_rng(0)
    for number in range(10):
        image, mask = rng.integers(0, 60, (64, 64)), np.zeros((64, 64))
        row, column = rng.integers(10, 30, 2)
        image[row : row + 24, column : column + 24] = 200
        mask[row : row + 24, column : column + 24] = 255
        for folder, pixels in (("images", image), ("drawn", mask)):
            path = tmp_path / folder / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            if folder == "images" or number < 8:
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "images"


def test_fit_and_predict(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segmenter, masks, drawn = (images.with_name(n) for n in ("segmenter", "masks", "drawn"))
    fit = ["segment", "fit", str(images), "--out", str(segmenter), *QUICK]
    assert main(fit) == 2
    assert "has a mask; name them: --masks" in capsys.readouterr().err
    assert main([*fit, "--masks", str(drawn)]) == 0
    assert "Dice 0." in capsys.readouterr().out
    predict = ["segment", "predict", str(segmenter), str(images), "--out", str(masks)]
    assert main(predict) == 0
    table = pd.read_csv(masks / "masks.csv")
    assert list(table["mask"]) == [f"{number}.png" for number in range(10)]
    assert {path.name for path in masks.glob("*.png")} == set(table["mask"])
    assert main(predict) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*predict, "--overwrite"]) == 0


def test_masks_are_written_by_what_is_trained_already(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter, drawn = images.with_name("segmenter"), images.with_name("drawn")
    fit = ["segment", "fit", str(images), "--masks", str(drawn), "--out", str(segmenter), *QUICK]
    assert main(fit) == 0
    tables = []
    for number, command in enumerate(
        (["predict", str(segmenter)], ["auto", "--with", "run", "--weights", str(segmenter)])
    ):
        out = images.with_name(f"masks{number}")
        assert main(["segment", *command, str(images), "--out", str(out), "--review", "3"]) == 0
        assert f"Look at them: {out / 'review.html'}" in capsys.readouterr().out
        assert "3 masks of 10" in (out / "review.html").read_text("utf-8")
        tables.append(pd.read_csv(out / "masks.csv"))
    pd.testing.assert_frame_equal(*tables)
    out = images.with_name("others")
    command = ["segment", "auto", str(images), "--out", str(out)]
    assert main([*command, "--prompt", "a dog", "--with", "coco:dog"]) == 2
    assert "--prompt 'a dog' is not for --with coco:dog" in capsys.readouterr().err
    nowhere = ["--weights", str(images / "nowhere")]
    for words in (["--prompt", "a dog"], ["--with", "prompt:a dog"]):
        assert main([*command, *words, *nowhere]) == 2
        assert "name the folder of a CLIPSeg" in capsys.readouterr().err
    assert main([*command, "--with", "coco:unicorn"]) == 2
    assert "unknown class 'unicorn'" in capsys.readouterr().err
    assert main([*command, "--with", "run", "--weights", str(segmenter), "--review", "0"]) == 0
    assert not (out / "review.html").exists()
    assert main([*command, "--with", "run", "--weights", str(segmenter), "--review", "-1"]) == 2
    assert "review" in capsys.readouterr().err


def test_masks_are_compared(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn, out = images.with_name("drawn"), images.with_name("agreement.csv")
    assert main(["segment", "compare", str(drawn), str(drawn), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("8 images have a mask in both")
    assert f"{drawn / '0.png'}: IoU 1.000, Dice 1.000" in said
    assert (pd.read_csv(out)["hausdorff"] == 0).all()


def test_a_table_names_images_masks_and_groups(images: Path) -> None:
    rows = [(f"images/{n}.png", f"drawn/{n}.png" if n < 8 else "", f"p{n // 4}") for n in range(10)]
    table = images.with_name("table.csv")
    pd.DataFrame(rows, columns=["image", "mask", "group"]).to_csv(table, index=False)
    out = images.with_name("segmenter")
    words = [str(table), "--out", str(out), *QUICK, "--settings.held_out", "0.5"]
    assert main(["segment", "fit", *words]) == 0
    assert len(pd.read_csv(out / "held_out.csv")) == 4  # all of one patient
