"""What ``fit`` does with training images that have no mask."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from faster_isnet.cli import main
from faster_isnet.commands import missing_masks
from faster_isnet.data import ImageData, WorseMasks, read_mask
from faster_isnet.segmentation import SegmenterSettings
from toy_runs import CLASSES, fit, write_images

UNMASKED = {f"{kind}/{number}.png" for kind in CLASSES for number in range(0, 20, 4)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys") / "images"
    write_images(folder)
    return folder


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Train a small segmenter for an epoch, take any that results, and log what commands log."""
    caplog.set_level(logging.INFO, "faster_isnet")
    monkeypatch.setattr(missing_masks, "_LEAST_DICE", 0.0)
    train_for(1, monkeypatch)


def train_for(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"encoder": "tu-mobilenetv3_small_050", "epochs": epochs, "learning_rate": 3e-3}
    monkeypatch.setattr(
        missing_masks,
        "segmenter_settings",
        lambda size, seed: SegmenterSettings(size=64, seed=seed, **settings),  # type: ignore[arg-type]
    )


def data_of(images: Path, **options: Any) -> ImageData:
    options = {"masks": images.with_name("masks"), "size": 24, "batch_size": 16, **options}
    return ImageData(images, **options)


def complete(data: ImageData, choice: str | None, out: Path) -> None:
    missing_masks.complete_masks(data, choice, out / "masks", seed=0)


def trained_on(data: ImageData) -> dict[str, torch.Tensor]:
    return {
        Path(sample.name).relative_to(data.folder).as_posix(): item[2]
        for name in ("train", "val")
        for sample, item in zip(data.datasets[name].samples, data.unaugmented(name), strict=True)
    }


class TestDrawing:
    def test_all_images_get_masks_like_those_there_are(
        self,
        images: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        train_for(8, monkeypatch)
        data = data_of(images)
        before = trained_on(data)
        complete(data, None, tmp_path)
        after = trained_on(data)
        assert all((mask == 1).any() for mask in after.values())
        true = torch.zeros(1, 24, 24)
        true[:, 5:19, 5:19] = 1
        drawn = [name for name in after if name in UNMASKED]
        assert len(drawn) > 5
        for name, mask in after.items():
            if name in UNMASKED:
                assert 2 * (mask * true).sum() / (mask + true).sum() > 0.8, name
            else:
                assert torch.equal(mask, before[name])
        assert "training and validation images" in caplog.text
        assert "draws the others" in caplog.text
        assert "Dice" in caplog.text
        table = pd.read_csv(tmp_path / "masks" / "masks.csv")
        assert set(table["image"]) == UNMASKED & before.keys()
        test = data.datasets["test"]
        assert [s.name for s in test.samples if s.mask is None] == data.unmasked_images("test")

    @pytest.mark.parametrize("parts", [1, 3])
    def test_drawn_masks_have_as_many_components_as_the_others(
        self, images: Path, tmp_path: Path, parts: int
    ) -> None:
        folder = tmp_path / "masks-of-parts"
        shutil.copytree(images.with_name("masks"), folder)
        pixels = np.zeros((24, 24), np.uint8)
        for part in range(parts):
            pixels[2 + 6 * part : 5 + 6 * part, 5:19] = 255
        pixels[22, 22] = 255  # a speck
        for path in folder.rglob("*.png"):
            Image.fromarray(pixels).save(path)
        complete(data_of(images, masks=folder), None, tmp_path)
        description = json.loads((tmp_path / "masks/segmenter/segmenter.json").read_text())
        assert description["settings"]["components"] == parts

    def test_drawn_masks_are_used_again_for_the_same_images_and_masks_alone(
        self, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(images.parent, tmp_path / "toys")
        images = tmp_path / "toys" / "images"
        complete(data_of(images), None, tmp_path)

        def fails(*_: object) -> None:
            raise AssertionError("they are drawn again")

        monkeypatch.setattr(missing_masks, "draw_missing_masks", fails)
        again = data_of(images)
        complete(again, None, tmp_path)
        assert not again.unmasked_images("train")
        with pytest.raises(AssertionError, match="drawn again"):
            complete(data_of(images, seed=1), None, tmp_path)  # divided otherwise
        name = min(name for name in trained_on(again) if name not in UNMASKED)
        for changed in (images / name, images.with_name("masks") / name):
            before = changed.read_bytes()
            Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
            with pytest.raises(AssertionError, match="drawn again"):
                complete(data_of(images), None, tmp_path)
            changed.write_bytes(before)
        complete(data_of(images), None, tmp_path)
        (tmp_path / "masks" / "content.txt").unlink()  # what they were drawn for is not known
        with pytest.raises(AssertionError, match="drawn again"):
            complete(data_of(images), None, tmp_path)

    def test_images_without_foreground_are_left_out(
        self, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        complete(data_of(images), None, tmp_path)
        table = pd.read_csv(tmp_path / "masks" / "masks.csv")
        table.loc[0, "components"] = 0
        table.to_csv(tmp_path / "masks" / "masks.csv", index=False)
        data = data_of(images)
        complete(data, None, tmp_path)
        assert table["image"][0] not in trained_on(data)
        assert f"1 images in which it found no foreground are left out: {table['image'][0]}" in (
            caplog.text
        )

    def test_worse_masks_are_those_it_learns_from_and_leaves_as_drawn(
        self, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is trained on the masks that a method would see, not on the exact ones."""
        train_for(8, monkeypatch)
        data = data_of(images, worse_masks=WorseMasks(grow=0.2, missing=0.5), augmentation=None)
        unmasked = {n for s in ("train", "val") for n in data.unmasked_images(s)}
        complete(data, "draw", tmp_path)
        grown = {m.sum().item() for n, m in trained_on(data).items() if n not in UNMASKED}
        areas = [
            item[2].sum().item()
            for name in ("train", "val")
            for sample, item in zip(data.datasets[name].samples, data.datasets[name], strict=True)
            if sample.name in unmasked
        ]
        assert len(areas) > 10
        assert np.median(areas) > 1.3 * 14 * 14  # the exact area
        assert max(grown) > 1.3 * 14 * 14

    def test_too_few_masks_are_refused_unless_demanded(self, images: Path, tmp_path: Path) -> None:
        worse = WorseMasks(missing=0.8)
        with pytest.raises(ValueError, match=r"only \d of 51 training and validation"):
            complete(data_of(images, worse_masks=worse), None, tmp_path)
        assert not (tmp_path / "masks" / "masks.csv").exists()
        data = data_of(images, worse_masks=worse)
        complete(data, "draw", tmp_path)
        assert not data.unmasked_images("train")

    def test_a_bad_segmenter_is_refused_unless_demanded(
        self, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(missing_masks, "_LEAST_DICE", 1.1)
        for _ in range(2):  # the masks that the first has left do not get round it
            with pytest.raises(ValueError, match=r"below 1.1, .* draw more masks by hand"):
                complete(data_of(images), None, tmp_path)
        data = data_of(images)
        complete(data, "draw", tmp_path / "other")
        assert not data.unmasked_images("train")

    def test_without_the_package_it_says_what_else_can_be_done(
        self, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "segmentation_models_pytorch", None)
        with pytest.raises(ImportError, match=r"pip install .*--missing_masks .*leave_out"):
            complete(data_of(images), None, tmp_path)


def test_images_can_be_left_out(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(images)
    complete(data, "leave_out", tmp_path)
    assert not trained_on(data).keys() & UNMASKED
    assert "left out" in caplog.text
    assert not (tmp_path / "masks").exists()


def test_images_can_be_kept(images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(images)
    before = data.unmasked_images("train")
    complete(data, "keep", tmp_path)
    assert data.unmasked_images("train") == before != []
    assert "teach the network to use the background" in caplog.text


def test_added_masks_are_of_images_that_lack_one(images: Path, tmp_path: Path) -> None:
    data = data_of(images)
    masked = next(s.name for s in data.datasets["train"].samples if s.mask is not None)
    with pytest.raises(ValueError, match="that lack one"):
        data.add_masks({masked: tmp_path / "mask.png"})


class TestCommand:
    def test_fit_draws_by_default_and_goes_on_with_what_was_drawn(
        self, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        constant = ("--method=swap", "--model.schedule=constant")
        fit(images, whole, *constant, "--missing_masks=null", "--trainer.max_epochs=3")
        assert "draws the others" in caplog.text
        fit(images, parts, *constant, "--missing_masks=draw")
        caplog.clear()
        config = ["--config", str(parts / "config.yaml")]
        assert main(["fit", *config, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
        assert "draws the others" not in caplog.text
        states = [
            torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for out in (whole, parts)
        ]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        drawn = read_mask(next((whole / "masks").rglob("*/*.png")))
        assert drawn.shape == (1, 24, 24)

    def test_trainings_share_drawn_masks(
        self, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shared = tmp_path / "shared"
        where = f"--drawn_masks={shared}"
        fit(images, tmp_path / "first", "--method=swap", "--missing_masks=null", where)
        assert "draws the others" in caplog.text
        drawn = {path: path.stat().st_mtime_ns for path in shared.rglob("*.png")}
        assert drawn
        caplog.clear()
        fit(images, tmp_path / "second", "--method=rrr", "--missing_masks=null", where)
        assert "draws the others" not in caplog.text
        assert f"{len(drawn)} masks were drawn: {shared}" in caplog.text
        fit(images, tmp_path / "first", "--method=swap", where, "--overwrite=true")
        assert {path: path.stat().st_mtime_ns for path in shared.rglob("*.png")} == drawn
        assert not (tmp_path / "first" / "masks").exists()
        shutil.rmtree(shared)  # a training that goes on draws them again
        caplog.clear()
        config = ["--config", str(tmp_path / "second" / "config.yaml"), "--ckpt_path", "last"]
        assert main(["fit", *config, "--trainer.max_epochs", "2"]) == 0
        assert "draws the others" in caplog.text

    def test_methods_without_masks_draw_none(
        self, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        fit(images, tmp_path / "run", "--method=standard", "--missing_masks=null")
        assert "have a mask" not in caplog.text
        assert not (tmp_path / "run" / "masks").exists()

    def test_overwriting_removes_what_was_drawn(
        self, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        fit(images, run, "--method=swap", "--missing_masks=draw")
        mine = run / "masks" / "mine.txt"
        mine.touch()
        fit(images, run, "--method=standard", "--overwrite=true")
        assert [path for path in (run / "masks").rglob("*") if path.is_file()] == [
            run / "masks" / ".lock",
            mine,
        ]
        shutil.copytree(images.with_name("masks"), run / "mine")
        words = ["fit", "--data.source", str(images), "--data.masks", str(run / "mine")]
        assert main([*words, "--out", str(run), "--overwrite", "true"]) == 2
        assert "would remove masks" in capsys.readouterr().err


def test_masks_of_images_with_the_same_name_do_not_replace_each_other(tmp_path: Path) -> None:
    """Two images whose names differ by the suffix alone."""
    folder = tmp_path / "images"
    write_images(folder)
    for path in sorted(folder.rglob("0.png")):
        Image.open(path).rotate(90).save(path.with_suffix(".bmp"))
    data = data_of(folder)
    complete(data, None, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "masks" / "masks.csv")
    assert table["mask"].is_unique
    assert len(list((tmp_path / "run" / "masks").rglob("*.png"))) == len(table)
