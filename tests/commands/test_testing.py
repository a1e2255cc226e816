"""test and compare, of runs that have been trained for two epochs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from faster_isnet.cli import main
from faster_isnet.evaluation import Predictions
from faster_isnet.evaluation.operating_points import choose_operating_thresholds
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.training import convergence
from toy_images import CLASSES as LEVELS
from toy_images import SIZE, toy_dataset
from toy_runs import CLASSES, fit

OF_0_1 = Path(__file__).parents[1] / "runs_of_0_1" / "run-isnet" / "test"
FEW = ["--samples", "20", "--examples", "1", "--worst", "1", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def tested(run: Path) -> Path:
    assert main(["test", str(run), "--name", "two epochs", *FEW]) == 0
    return run / "test"


def test_a_run_is_tested_on_its_own_test_images(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = SavedEvaluation.load(tested)
    assert (found.name, found.class_names, list(found.sets)) == (
        "two epochs",
        list(CLASSES),
        ["test"],
    )
    predictions = Predictions.load(tested / "predictions" / "test.csv")
    assert len(predictions.names) == found.sets["test"].scores.images == 9
    assert 0 < found.sets["test"].attention.images < 9
    assert "<h2" in (tested / "report.html").read_text()


def test_a_second_opinion_is_of_the_images_shown(run: Path, tmp_path: Path) -> None:
    asked = ["--second_opinion", "[grad-cam]", "--out", str(tmp_path / "asked")]
    assert main(["test", str(run), *asked, *FEW]) == 0
    found = SavedEvaluation.load(tmp_path / "asked")
    pictures = found.sets["test"].pictures
    assert all([o.method for o in each.opinions] == ["lrp", "grad-cam"] for each in pictures)
    assert all(found.read(each.opinions[1].file).startswith(b"\x89PNG") for each in pictures)
    (worst,) = (each for each in pictures if each.kind == "worst")
    agreements = json.loads((tmp_path / "asked" / "metrics.json").read_text())["sets"]["test"][
        "second opinion"
    ]
    lrp, cam = agreements["worst"]["methods"]
    assert (lrp["share"], lrp["area"]) == (
        worst.opinions[0].background_share,
        worst.background_area,
    )
    assert cam["share"] == worst.opinions[1].background_share
    assert 0 < worst.background_area < 1
    page = (tmp_path / "asked" / "report.html").read_text()
    assert "A second opinion" in page
    assert "None of these methods is proof" in page
    assert f"Grad-CAM is of the layer {worst.opinions[1].layer}." in page


def test_what_the_training_did_not_reach_is_in_the_report(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convergence, "_AT_CHANCE", 0.0)  # the loss would have to be negative
    fit(images, tmp_path, "--method", "standard")
    (warning,) = json.loads((tmp_path / "training.json").read_text())["warnings"]
    assert "is not better than chance, 1.1: " in warning
    assert main(["test", str(tmp_path), *FEW]) == 0
    assert SavedEvaluation.load(tmp_path / "test").training_warnings == [warning]
    assert "The training did not converge" in (tmp_path / "test" / "report.html").read_text()


def test_a_run_on_planted_stripes_and_worse_masks_is_tested_with_exact_masks(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    planting = '{"kind": "stripes", "size": 0.2, "correlation": 0.8}'
    worse = '{"boxes": true, "shift": 0.1, "missing": 0.5}'
    fit(images, tmp_path, f"--data.planting={planting}", f"--data.worse_masks={worse}")
    assert (
        "masks of train and val are made worse on purpose: bounding boxes, shifted by 0.1 of the "
        "side, missing for 50 % of the images"
    ) in capsys.readouterr().out
    assert "of 51 training and validation images" in caplog.text
    assert main(["test", str(tmp_path), *FEW]) == 0
    assert "made worse" not in capsys.readouterr().out
    found = SavedEvaluation.load(tmp_path / "test")
    assert list(found.sets) == ["test", "test-biased", "test-deceiving"]


def test_images_from_elsewhere_need_no_training_data(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "elsewhere.csv"
    rows = [(str(p), p.parent.name, "b") for p in sorted(images.rglob("*.png")) if p.stem < "15"]
    pd.DataFrame(rows, columns=["image", "label", "source"]).to_csv(table, index=False)
    checkpoint = tmp_path / "moved.ckpt"
    shutil.copy(run / "checkpoints" / "best.ckpt", checkpoint)
    words = ["test", str(checkpoint), "--source", str(table), "--root", str(images)]
    assert main([*words, "--masks", str(images.with_name("masks")), *FEW]) == 0
    found = SavedEvaluation.load(tmp_path / "test-elsewhere")
    assert found.sets["elsewhere"].scores.images == len(rows)
    assert found.sets["elsewhere"].attention.images > 0
    assert f"elsewhere: {len(rows)} images" in capsys.readouterr().out


def test_a_class_that_is_missing_elsewhere_keeps_the_others_in_place(
    run: Path, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    for name in ("dark", "striped"):
        shutil.copytree(images / name, folder / name)
    elsewhere = ["--source", str(folder), "--trained_images"]
    assert main(["test", str(run), *elsewhere, "--out", str(tmp_path), *FEW]) == 0
    predictions = Predictions.load(tmp_path / "predictions" / "some.csv")
    assert list(predictions.class_names) == list(CLASSES)
    assert set(predictions.labels) == {1, 2}


def test_operating_points_are_chosen_on_validation_images(
    run: Path, tested: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = SavedEvaluation.load(tested).sets["test"].operating_points
    assert set(own) == set(CLASSES)
    assert "a specificity of 95 % on validation images" in (tested / "report.html").read_text()
    words = ["test", str(run), "--validation", "true", "--out", str(tmp_path), *FEW]
    assert main([*words, "--specificity", "0.9"]) == 0
    assert "--specificity is not used" in capsys.readouterr().out
    chosen = {
        name: choose_operating_thresholds(Predictions.load(folder / "predictions" / f"{name}.csv"))
        for folder, name in ((tmp_path, "val"), (tested, "test"))
    }
    assert {name: point.threshold for name, point in own.items()} == pytest.approx(chosen["val"])
    assert chosen["val"] != pytest.approx(chosen["test"])
    assert not SavedEvaluation.load(tmp_path).sets["val"].operating_points
    words = ["test", str(run), "--source", str(images), "--trained_images", "true", *FEW]
    assert main([*words, "--out", str(tmp_path)]) == 0
    elsewhere = SavedEvaluation.load(tmp_path).sets["images"].operating_points
    assert {name: point.threshold for name, point in elsewhere.items()} == {
        name: point.threshold for name, point in own.items()
    }
    assert main([*words, "--out", str(tmp_path), "--specificity", "0.9"]) == 2
    assert "thresholds for a specificity of 0.95, not 0.9" in capsys.readouterr().err
    words[1] = str(shutil.copytree(run, tmp_path / "other"))
    metrics = tmp_path / "other" / "test" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"checkpoint_sha256": "0"}))
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert not SavedEvaluation.load(tmp_path).sets["images"].operating_points
    assert "is of another checkpoint" in capsys.readouterr().out


def test_subgroups_by_columns_of_the_table(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "elsewhere.csv"
    paths = sorted(images.rglob("*.png"))
    rows = [(str(p), p.parent.name, "fm"[i % 2], i) for i, p in enumerate(paths)]
    pd.DataFrame(rows, columns=["image", "label", "sex", "number"]).to_csv(table, index=False)
    words = ["test", str(run), "--source", str(table), "--root", str(images), *FEW]
    words += ["--masks", str(images.with_name("masks")), "--trained_images", "true"]
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, *out, "--subgroups", "[sex]"]) == 0
    found = SavedEvaluation.load(tmp_path / "out").sets["elsewhere"].subgroups["sex"]
    assert [each.scores.images for each in found.values()] == [30, 30]
    assert "accuracy, sex f (n = 30)" in capsys.readouterr().out
    assert "sex: m" in (tmp_path / "out" / "report.html").read_text()
    table.write_text(table.read_text().replace(",f,", ",,").replace(",m,", ",,"))
    assert main([*words, *out, "--subgroups", "[sex]"]) == 0
    assert "No image of 'elsewhere' has a value of sex" in capsys.readouterr().out
    assert main([*words, *out, "--subgroups", "[sex,number]"]) == 2
    assert "'number' has 60 values" in capsys.readouterr().err
    assert main(["test", str(run), *out, *FEW, "--subgroups", "[sex]"]) == 2
    assert "folders have no fields" in capsys.readouterr().err


def test_runs_are_compared_on_the_same_images(
    tested: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(images, tmp_path / "plain", "--model.heatmap_weight", "0")
    assert main(["test", str(tmp_path / "plain"), *FEW]) == 0
    out = tmp_path / "side by side"
    words = ["compare", str(tested), str(tmp_path / "plain"), "--out", str(out)]
    assert main([*words, "--resamples", "20"]) == 0
    found = json.loads((out / "differences.json").read_text())["test"]["plain"]
    accuracies = [
        SavedEvaluation.load(folder).sets["test"].scores.overall["accuracy"].value
        for folder in (tested, tmp_path / "plain" / "test")
    ]
    assert found["accuracy"]["value"] == pytest.approx(accuracies[1] - accuracies[0])
    assert "Difference to two epochs on the same images" in (out / "report.html").read_text()
    assert "two epochs" in capsys.readouterr().out


def test_evaluations_of_version_0_1_are_compared(tmp_path: Path) -> None:
    copied = tmp_path / "other"
    shutil.copytree(OF_0_1, copied)
    metrics = json.loads((copied / "metrics.json").read_text())
    (copied / "metrics.json").write_text(json.dumps({**metrics, "name": "the same again"}))
    words = ["compare", str(OF_0_1.parent), str(copied), "--out", str(tmp_path / "out")]
    assert main([*words, "--samples", "20"]) == 0
    found = json.loads((tmp_path / "out" / "differences.json").read_text())
    same = found["test"]["the same again"]
    assert same["balanced accuracy"] == {"value": 0, "low": 0, "high": 0}
    assert same["classes"]["dark"]["auc"] == {"value": 0, "low": 0, "high": 0, "p": 1}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "run-isnet classifies 33.3 % of images correctly, with 30.0 % of its relevance" in page
    assert page.count("and its heatmap by run-isnet") == 3


def test_faults(
    run: Path, tested: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tested / "metrics.json").read_bytes()
    for words, message in (
        (["test", str(tmp_path)], "train first (faster-isnet fit --out"),
        (
            ["test", str(run), "--masks", "x"],
            "--masks is for images from elsewhere; name them with --source",
        ),
        (["test", str(run), "--samples", "0"], "resamples must be"),
        (["test", str(run), "--source", "nowhere.csv"], "there is no table 'nowhere.csv'"),
        (["compare", str(tested), str(tmp_path)], "faster-isnet test RUN"),
        (["compare", str(tested), str(run)], "2 runs are called 'two epochs'"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    checkpoint = tmp_path / "alone.ckpt"
    shutil.copy(run / "checkpoints" / "best.ckpt", checkpoint)
    assert main(["test", str(checkpoint)]) == 2
    assert "what to test on; name it: --source" in capsys.readouterr().err
    assert (tested / "metrics.json").read_bytes() == before


def test_other_images_cannot_be_compared(
    run: Path, tested: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "test"
    shutil.copytree(images, copied)
    words = ["test", str(run), "--source", str(copied), "--trained_images", "--name", "other"]
    assert main([*words, "--out", str(tmp_path / "out"), *FEW]) == 0
    assert main(["compare", str(tested), str(tmp_path / "out"), "--out", str(tmp_path / "c")]) == 2
    error = capsys.readouterr().err
    assert "'two epochs' and 'other' on 'test'" in error
    assert "test both on the same" in error


def test_thresholds_of_several_labels_come_from_validation_images_and_go_along(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        (str(path), "bright|any" if path.parent.name == "bright" else path.parent.name, split)
        for split, numbers in {
            "train": range(12),
            "val": range(12, 16),
            "test": range(16, 20),
        }.items()
        for number in numbers
        for path in sorted(images.glob(f"*/{number}.png"))
    ]
    table = tmp_path / "labels.csv"
    pd.DataFrame(rows, columns=["image", "label", "split"]).to_csv(table, index=False)
    run = tmp_path / "run"
    fit(table, run, "--data.masks", "null", "--method", "standard")
    elsewhere = ["test", str(run / "checkpoints" / "best.ckpt")]
    elsewhere += ["--source", str(table), "--trained_images"]
    assert main([*elsewhere, *FEW]) == 2
    assert "test the run on its own data first" in capsys.readouterr().err
    assert main(["test", str(run), *FEW]) == 0
    thresholds = SavedEvaluation.load(run / "test").sets["test"].thresholds
    assert set(thresholds) == {"any", *CLASSES}
    assert main([*elsewhere, *FEW]) == 0
    assert SavedEvaluation.load(run / "test-labels").sets["labels"].thresholds == thresholds


def test_a_network_of_ones_own_is_tested_on_images_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = toy_dataset(tmp_path / "images")
    rows = [f"{Path(s.name).name},{LEVELS[int(s.label)]},mask.png" for s in dataset.samples]
    table = tmp_path / "images" / "table.csv"
    table.write_text("image,label,mask\n" + "\n".join(rows) + "\n")
    (tmp_path / "my_own_network.py").write_text(
        "from toy_images import Reader\ndef build():\n    return Reader(False)\n"
    )
    monkeypatch.chdir(tmp_path)
    model = ["test", "my_own_network:build", "--size", str(SIZE), *FEW]
    assert main(model) == 2
    assert "name them: --source" in capsys.readouterr().err
    assert main([*model, "--source", str(table)]) == 0
    said = capsys.readouterr().out
    assert "classes are taken to be, in this order: dark, grey, light; if they are not" in said
    found = SavedEvaluation.load(tmp_path / "test").sets["table"]
    assert found.scores.overall["accuracy"].value == 1
    assert found.attention is not None
    assert found.attention.overall["background_share"].value == 1
    cropped = ["--crop_mode", "center", "--crop_pct", "0.5", "--out", "cropped"]
    assert main([*model, "--source", str(table), *cropped]) == 0
    attention = SavedEvaluation.load("cropped").sets["table"].attention
    assert attention is not None
    assert attention.overall["background_area"].value == pytest.approx(1 - (8 / SIZE) ** 2)
    (tmp_path / "names.txt").write_text("light\ngrey\ndark\n")
    named = ["--class_names", "names.txt", "--out", "named"]
    assert main([*model, "--source", str(table), *named]) == 0
    accuracy = SavedEvaluation.load("named").sets["table"].scores.overall["accuracy"].value
    assert accuracy == pytest.approx(1 / 3)  # of the class in the middle alone
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert main([*model, "--source", str(table), *named]) == 2
    assert "class of" in capsys.readouterr().err
