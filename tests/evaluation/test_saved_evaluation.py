"""Evaluations in folders: what is written is read again, also that of version 0.1."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from faster_isnet.evaluation import Score
from faster_isnet.evaluation.evaluator import Evaluation, EvaluationSettings, Evaluator
from faster_isnet.evaluation.measures import MEASURES, Measure
from faster_isnet.evaluation.results import Picture, Results, SavedPicture
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation, save_evaluation
from toy_images import CLASSES, Reader, toy_dataset

OF_0_1 = Path(__file__).parents[1] / "runs_of_0_1" / "run-isnet" / "test"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Evaluation]]:
    root = tmp_path_factory.mktemp("evaluations")
    settings = EvaluationSettings(resamples=20, worst=1, accelerator="cpu")
    evaluator = Evaluator(Reader(True), CLASSES, settings)
    found = {
        "test": evaluator(toy_dataset(root / "a")),
        "elsewhere": evaluator(toy_dataset(root / "b", 2, masked=0)),
    }
    out = root / "out"
    save_evaluation(out, found, evaluator, name="it", checkpoint=Path("best.ckpt"), seconds=1.25)
    return out, found


def described(picture: Picture) -> dict:
    return {name: getattr(picture, name) for name in Picture.__dataclass_fields__}


def test_all_is_read_again(saved: tuple[Path, Mapping[str, Evaluation]]) -> None:
    folder, evaluations = saved
    loaded = SavedEvaluation.load(folder)
    assert (loaded.name, loaded.class_names) == ("it", CLASSES)
    assert list(loaded.sets) == ["test", "elsewhere"]
    assert loaded.settings == EvaluationSettings(resamples=20, worst=1, accelerator="cpu")
    assert "torch" in loaded.environment
    assert [m.title for m in loaded.measures] == [m.title for m in MEASURES]
    for data, found in evaluations.items():
        again = loaded.sets[data]
        for part in Results.__dataclass_fields__:
            assert getattr(again, part) == getattr(found.results, part), part
        predictions = loaded.predictions(data)
        assert list(predictions.names) == list(found.predictions.names)
        np.testing.assert_array_equal(predictions.probabilities, found.predictions.probabilities)
        for picture, drawn in zip(again.pictures, found.pictures, strict=True):
            assert loaded.png(picture) == drawn.png
            assert described(picture) == described(drawn)
    table = pd.read_csv(folder / "attention" / "test.csv")
    assert len(table) == 18
    assert "background share" in table  # as in 0.1
    assert not (folder / "attention" / "elsewhere.csv").exists()


def test_an_evaluation_of_version_0_1_is_loaded() -> None:
    loaded = SavedEvaluation.load(OF_0_1)
    assert loaded.name == "run-isnet"
    assert loaded.measures == MEASURES
    assert loaded.settings == EvaluationSettings()
    assert loaded.environment["faster-isnet"] == "0.1.0"
    found = loaded.sets["test"]
    assert found.scores.overall["balanced_accuracy"] == Score(1 / 3, 0.0, 0.5)
    assert found.scores.confusion.tables == (((0, 0, 3),) * 3,)
    precision = found.scores.classes["dark"].scores["precision"]
    assert (precision.value, precision.reason) == (
        None,
        "no image has the class, or none is said to have it",
    )
    assert found.attention.classes["bright"].images == 2
    assert found.attention.overall["mass_accuracy"].value == pytest.approx(0.7295, abs=1e-4)
    assert list(found.sensitivity.untouched) == ["accuracy"]
    noise = found.sensitivity.backgrounds["noise"]["probability_change"]
    assert noise.value == pytest.approx(0.00106, abs=1e-5)
    assert len(loaded.predictions("test").names) == found.scores.images == 9
    assert all(loaded.png(picture).startswith(b"\x89PNG") for picture in found.pictures)


def test_the_shape_of_files_is_that_of_version_0_1(saved: tuple[Path, object]) -> None:
    def keys(tree: object) -> object:
        if not isinstance(tree, dict):
            return None
        return {key: keys(branch) for key, branch in tree.items() if key != "reason"}

    old, new = (json.loads((folder / "metrics.json").read_text()) for folder in (OF_0_1, saved[0]))
    assert list(new.pop("measures")[0]) == list(Measure.__dataclass_fields__)
    assert new.pop("training_warnings") == []
    assert (new.pop("checkpoint_sha256"), bool(new.pop("date"))) == ("", True)  # there is no file
    assert new.pop("revision") == ""
    new["settings"]["samples"] = new["settings"].pop("resamples")
    assert new["settings"].pop("specificity") == 0.95
    assert new["settings"].pop("second_opinion") == []
    for content, classes in ((old, old["class_names"]), (new, CLASSES)):
        for part in ("scores", "attention"):
            of_classes = content["sets"]["test"][part]["classes"]
            for scores in (new["sets"]["test"][part], *of_classes.values()):
                for newer in ("background area", "average precision"):
                    for each in (scores, scores.get("macro", {})):
                        each.pop(newer, None)
            content["sets"]["test"][part]["classes"] = [keys(of_classes[c]) for c in classes]
        for newer in ("brier score", "calibration error"):
            content["sets"]["test"]["scores"].pop(newer, None)
        content["sets"] = content["sets"]["test"]
    assert keys(new) == keys(old)
    for part in ("scores", "attention"):
        assert new["sets"][part]["classes"] == old["sets"][part]["classes"]
    assert 0 < new["sets"]["pictures"][0].pop("background_area") < 1
    assert list(new["sets"]["pictures"][0]) == list(old["sets"]["pictures"][0])


def test_checkpoint_and_date_are_recorded(
    saved: tuple[Path, Mapping[str, Evaluation]], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    evaluator = Evaluator(Reader(True), CLASSES, EvaluationSettings(accelerator="cpu"))
    save_evaluation(tmp_path, saved[1], evaluator, name="it", checkpoint=checkpoint, seconds=1)
    loaded = SavedEvaluation.load(tmp_path)
    assert loaded.checkpoint_sha256 == hashlib.sha256(b"weights").hexdigest()
    age = datetime.now(timezone.utc) - datetime.fromisoformat(loaded.date)
    assert 0 <= age.total_seconds() < 600
    assert list(loaded.details)[:2] == ["date", "sha256 of the checkpoint"]
    assert "date" not in SavedEvaluation.load(OF_0_1).details


def test_no_picture_is_read_from_outside(saved: tuple[Path, object]) -> None:
    loaded = SavedEvaluation.load(saved[0])
    for file in ("../a/0.png", "/etc/hostname"):
        outside = SavedPicture(
            file=file,
            kind="worst",
            image="a",
            label="b",
            predicted="b",
            right=True,
            background_share=None,
        )
        with pytest.raises(ValueError, match="lies outside of"):
            loaded.png(outside)


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="faster-isnet test RUN"):
        SavedEvaluation.load(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"is no JSON .*; test the run again"):
        SavedEvaluation.load(tmp_path)
    for content in ([], {"name": "x", "sets": {}}):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"lacks .*checkpoint, .*: it is not of faster-isnet"):
            SavedEvaluation.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content["sets"]["test"].pop("scores"),
        lambda content: content["sets"]["test"]["scores"].update(confusion=[]),
        lambda content: content["sets"]["test"]["scores"]["accuracy"].update(median=1),
        lambda content: content["settings"].pop("level"),
        lambda content: content.update(measures=[{"name": "no identifier", "kind": "class"}]),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, damage: object) -> None:
    shutil.copy(OF_0_1 / "metrics.json", tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    damage(content)
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"metrics\.json' is damaged .*; evaluate the run again"):
        SavedEvaluation.load(tmp_path)
