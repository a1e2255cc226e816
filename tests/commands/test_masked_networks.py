"""A network that reads the foreground alone is used only where there are masks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faster_isnet.cli import main
from toy_runs import fit


@pytest.fixture(scope="module")
def masked_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("masked") / "run"
    fit(images, run, "--method", "masked")
    return run


def test_training_images_without_a_mask_are_left_out_and_counted(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(images, tmp_path / "run", "--method", "masked")
    assert "8 of the 42 images of 'train' have no mask" in caplog.text
    assert "3 of the 9 images of 'val' have no mask" in caplog.text


def test_a_test_image_without_a_mask_is_refused_by_name(
    masked_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", str(masked_run)]) == 2
    said = capsys.readouterr().err
    assert "4 of the 9 images of 'test' have no mask" in said
    assert "12.png" in said
    assert not (masked_run / "test").exists()


def test_no_other_background_changes_its_predictions(images: Path, tmp_path: Path) -> None:
    masked = tmp_path / "images"
    for mask in images.with_name("masks").rglob("*.png"):
        to = masked / mask.parent.name / mask.name
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes((images / mask.parent.name / mask.name).read_bytes())
    masked.with_name("masks").symlink_to(images.with_name("masks"))
    fit(masked, tmp_path / "run", "--method", "masked")
    assert main(["test", str(tmp_path / "run"), "--resamples", "20"]) == 0
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    for found in metrics["sets"]["test"]["sensitivity"]["backgrounds"].values():
        assert found["changed"]["value"] == 0


@pytest.mark.parametrize("command", ["explain", "export"])
def test_without_masks_it_is_not_used(
    command: str, masked_run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, str(masked_run), "--out", str(tmp_path / "out")]
    words += [str(images / "dark" / "1.png")] if command == "explain" else []
    assert main(words) == 2
    assert "--method segment-classify" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
