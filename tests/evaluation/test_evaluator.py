"""Judging networks of which is known what they read."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from faster_isnet.data import ImageDataset
from faster_isnet.evaluation.evaluator import Judge, Judgement, TestSettings
from toy_images import CLASSES, Reader, toy_dataset

SETTINGS = TestSettings(samples=50, accelerator="cpu", examples=0, worst=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return toy_dataset(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def judgements(dataset: ImageDataset) -> dict[str, Judgement]:
    return {
        name: Judge(Reader(name == "foreground"), CLASSES, SETTINGS)(dataset)
        for name in ("foreground", "background")
    }


def value(score: dict) -> float:
    return score["value"]


@pytest.mark.parametrize("name", ["foreground", "background"])
def test_both_are_right_on_images_as_they_are(judgements: dict, name: str) -> None:
    found = judgements[name].metrics
    assert value(found["scores"]["accuracy"]) == 1
    assert value(found["scores"]["macro"]["auc"]) == 1
    assert found["scores"]["groups"] == 9
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_where_they_look(judgements: dict) -> None:
    for name, share in (("foreground", 0), ("background", 1)):
        attention = judgements[name].metrics["attention"]
        assert attention["images"] == 18
        assert value(attention["background share"]) == pytest.approx(share, abs=1e-6)
        assert value(attention["mass accuracy"]) == pytest.approx(1 - share, abs=1e-6)
        for of_class in attention["classes"].values():
            assert value(of_class["background share"]) == pytest.approx(share, abs=1e-6)


def test_what_reads_the_foreground_does_not_mind_another_background(judgements: dict) -> None:
    found = judgements["foreground"].metrics["sensitivity"]
    assert list(found["backgrounds"]) == ["blur", "noise", "zeros", "other image"]
    assert value(found["accuracy"]) == 1
    for scores in found["backgrounds"].values():
        assert value(scores["changed"]) == 0
        assert value(scores["probability change"]) == pytest.approx(0, abs=1e-6)
        assert value(scores["accuracy"]) == 1


def test_what_reads_the_background_follows_it(judgements: dict) -> None:
    found = judgements["background"].metrics["sensitivity"]["backgrounds"]
    assert value(found["blur"]["changed"]) == 0
    assert value(found["zeros"]["changed"]) == pytest.approx(2 / 3)  # all are dark then
    assert value(found["other image"]["changed"]) == 1
    assert value(found["other image"]["accuracy"]) == 0


def test_examples_are_the_first_of_each_class_and_the_worst_come_in_order(
    dataset: ImageDataset,
) -> None:
    settings = replace(SETTINGS, examples=2, worst=6)
    pictures = Judge(Reader(False), CLASSES, settings)(dataset).pictures
    examples = [p for p in pictures if p.kind == "example"]
    assert [Path(p.image).stem for p in examples] == ["0", "3", "1", "4", "2", "5"]
    assert [p.label for p in examples] == [c for c in CLASSES for _ in range(2)]
    assert all(p.right and p.predicted == p.label for p in examples)
    worst = [p for p in pictures if p.kind == "worst"]
    assert len(worst) == 6
    shares = [p.background_share for p in worst]
    assert shares == sorted(shares, reverse=True)
    for picture in pictures:
        assert Image.open(BytesIO(picture.png)).size[0] > 400
        assert "png" not in picture.row()


@pytest.mark.parametrize("masked", [0, 1, 5])
def test_images_without_a_mask_are_scored_all_the_same(tmp_path: Path, masked: int) -> None:
    found = Judge(Reader(True), CLASSES, SETTINGS)(toy_dataset(tmp_path, 4, masked))
    assert found.metrics["scores"]["images"] == 12
    assert len(found.attention) == masked
    if masked < 2:
        assert found.metrics["attention"] is found.metrics["sensitivity"] is None
    else:
        assert found.metrics["sensitivity"]["images"] == masked


def test_a_seed_repeats_and_batches_make_no_difference(dataset: ImageDataset) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    first, again, batches = (
        Judge(network, CLASSES, replace(SETTINGS, batch_size=size))(dataset) for size in (16, 16, 5)
    )
    assert first.metrics == again.metrics
    assert [p.png for p in first.pictures] == [p.png for p in again.pictures]
    np.testing.assert_allclose(
        batches.predictions.probabilities, first.predictions.probabilities, atol=1e-6
    )
    for kind, scores in first.metrics["sensitivity"]["backgrounds"].items():
        other = batches.metrics["sensitivity"]["backgrounds"][kind]
        assert value(other["changed"]) == value(scores["changed"])


def test_several_labels_take_thresholds_of_validation_images(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    for i, sample in enumerate(dataset.samples):
        label = tuple(int(c <= i % 3) for c in range(3))  # dark is everywhere
        dataset.samples[i] = replace(sample, label=label)
    with pytest.raises(ValueError, match="no threshold can be chosen for 'dark'"):
        Judge(Reader(True), CLASSES, SETTINGS).thresholds(dataset)
    dataset.samples[0] = replace(dataset.samples[0], label=(0, 0, 0))
    judge = Judge(Reader(True), CLASSES, replace(SETTINGS, examples=1))
    thresholds = judge.thresholds(dataset)
    assert set(thresholds) == set(CLASSES)
    found = judge(dataset, thresholds)
    assert found.metrics["thresholds"] == thresholds
    assert found.predictions.task == "multilabel"
    assert {p.label for p in found.pictures} <= {"none", "dark", "dark, grey", "dark, grey, light"}


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"level": 1.5}, {"worst": -1}, {"batch_size": 0}, {"seed": -1}]
)
def test_numbers(wrong: dict) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} must be"):
        TestSettings(**wrong)
