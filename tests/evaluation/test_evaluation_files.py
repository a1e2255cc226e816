"""Tests' folders: what is written is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from faster_isnet.evaluation.evaluation_files import TestedRun, save_test
from faster_isnet.evaluation.evaluator import Judge, TestSettings
from toy_images import CLASSES, Reader, toy_dataset


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("tests")
    judge = Judge(Reader(True), CLASSES, TestSettings(samples=20, worst=1, accelerator="cpu"))
    judgements = {
        "test": judge(toy_dataset(root / "a")),
        "elsewhere": judge(toy_dataset(root / "b", 2, masked=0)),
    }
    out = root / "out"
    save_test(out, judgements, judge, name="it", checkpoint=Path("best.ckpt"), seconds=1.25)
    return out, judgements


def test_all_is_read_again(saved: tuple[Path, dict]) -> None:
    folder, judgements = saved
    run = TestedRun.load(folder)
    assert (run.name, run.class_names, list(run.sets)) == ("it", CLASSES, ["test", "elsewhere"])
    assert run.metrics["settings"]["samples"] == 20
    assert "torch" in run.metrics["settings"]
    for data, found in judgements.items():
        entry = dict(run.sets[data])
        rows = entry.pop("pictures")
        assert entry == found.metrics
        again = run.predictions(data)
        assert list(again.names) == list(found.predictions.names)
        np.testing.assert_array_equal(again.probabilities, found.predictions.probabilities)
        for row, picture in zip(rows, found.pictures, strict=True):
            assert run.picture(row["file"]) == picture.png
            assert row["image"] == picture.image
    table = pd.read_csv(folder / "attention" / "test.csv")
    assert len(table) == 18
    assert not (folder / "attention" / "elsewhere.csv").exists()


def test_no_picture_is_read_from_outside(saved: tuple[Path, dict]) -> None:
    run = TestedRun.load(saved[0])
    for file in ("../a/0.png", "/etc/hostname"):
        with pytest.raises(ValueError, match="lies outside of"):
            run.picture(file)


def test_what_is_no_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="faster-isnet test RUN"):
        TestedRun.load(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"is no JSON .*; test the run again"):
        TestedRun.load(tmp_path)
    for content in ([], {"name": "x", "sets": {}}):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"lacks .*checkpoint, .*: it is not of faster-isnet"):
            TestedRun.load(tmp_path)
