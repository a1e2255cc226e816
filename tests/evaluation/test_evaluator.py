"""Evaluations of networks of which is known what they read."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from faster_isnet.data import ImageDataset
from faster_isnet.evaluation import evaluator
from faster_isnet.evaluation.evaluator import Evaluation, EvaluationSettings, Evaluator
from faster_isnet.evaluation.measures import MEASURES
from faster_isnet.evaluation.thresholds import choose_thresholds
from toy_images import CLASSES, Reader, toy_dataset

SETTINGS = EvaluationSettings(resamples=50, accelerator="cpu", examples=0, worst=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return toy_dataset(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def evaluations(dataset: ImageDataset) -> dict[str, Evaluation]:
    return {
        name: Evaluator(Reader(name == "foreground"), CLASSES, SETTINGS)(dataset)
        for name in ("foreground", "background")
    }


@pytest.mark.parametrize("name", ["foreground", "background"])
def test_both_are_right_on_images_as_they_are(evaluations: dict, name: str) -> None:
    found = evaluations[name].results.scores
    assert found.overall["accuracy"].value == 1
    assert found.macro["auc"].value == 1
    assert found.groups == 9


def test_where_their_relevance_lies(evaluations: dict) -> None:
    for name, share in (("foreground", 0), ("background", 1)):
        attention = evaluations[name].results.attention
        assert attention.images == 18
        assert attention.overall["background_share"].value == pytest.approx(share, abs=1e-6)
        assert attention.overall["mass_accuracy"].value == pytest.approx(1 - share, abs=1e-6)
        for of_class in attention.classes.values():
            assert of_class.scores["background_share"].value == pytest.approx(share, abs=1e-6)


def test_another_background_changes_nothing_for_what_reads_the_foreground(
    evaluations: dict,
) -> None:
    found = evaluations["foreground"].results.sensitivity
    assert list(found.backgrounds) == ["blur", "noise", "zeros", "other image"]
    (accuracy,) = found.untouched.values()
    assert (accuracy.value, accuracy.high) == (1, 1)
    for scores in found.backgrounds.values():
        assert scores["changed"].value == 0
        assert scores["probability_change"].value == pytest.approx(0, abs=1e-6)
        assert scores["accuracy"].value == 1


def test_what_reads_the_background_follows_it(evaluations: dict) -> None:
    found = evaluations["background"].results.sensitivity.backgrounds
    assert found["blur"]["changed"].value == 0
    assert found["zeros"]["changed"].value == pytest.approx(2 / 3)  # all are dark then
    assert found["other image"]["changed"].value == 1
    assert found["other image"]["accuracy"].value == 0


def test_examples_are_the_first_of_each_class_and_the_worst_come_in_order(
    dataset: ImageDataset,
) -> None:
    settings = replace(SETTINGS, examples=2, worst=6)
    pictures = Evaluator(Reader(False), CLASSES, settings)(dataset).pictures
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


@pytest.mark.parametrize("masked", [0, 1, 5])
def test_images_without_a_mask_are_scored_all_the_same(tmp_path: Path, masked: int) -> None:
    found = Evaluator(Reader(True), CLASSES, SETTINGS)(toy_dataset(tmp_path, 4, masked))
    assert found.results.scores.images == 12
    assert len(found.attention) == masked
    if masked < 2:
        assert found.results.attention is found.results.sensitivity is None
    else:
        assert found.results.sensitivity.images == masked


def test_a_seed_repeats_and_batches_make_no_difference(dataset: ImageDataset) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    first, again, batches = (
        Evaluator(network, CLASSES, replace(SETTINGS, batch_size=size))(dataset)
        for size in (16, 16, 5)
    )
    assert first.results == again.results
    assert [p.png for p in first.pictures] == [p.png for p in again.pictures]
    np.testing.assert_allclose(
        batches.predictions.probabilities, first.predictions.probabilities, atol=1e-6
    )
    for kind, scores in first.results.sensitivity.backgrounds.items():
        other = batches.results.sensitivity.backgrounds[kind]
        assert other["changed"].value == scores["changed"].value


def test_several_labels_take_thresholds_of_validation_images(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    for i, sample in enumerate(dataset.samples):
        label = tuple(int(c <= i % 3) for c in range(3))  # dark is everywhere
        dataset.samples[i] = replace(sample, label=label)
    evaluate = Evaluator(Reader(True), CLASSES, replace(SETTINGS, examples=1))
    with pytest.raises(ValueError, match="no threshold can be chosen for 'dark'"):
        choose_thresholds(evaluate.predict(dataset))
    dataset.samples[0] = replace(dataset.samples[0], label=(0, 0, 0))
    thresholds = choose_thresholds(evaluate.predict(dataset))
    assert set(thresholds) == set(CLASSES)
    found = evaluate(dataset, thresholds)
    assert found.results.thresholds == thresholds
    assert found.predictions.task == "multilabel"
    assert {p.label for p in found.pictures} <= {"none", "dark", "dark, grey", "dark, grey, light"}


@pytest.mark.parametrize(
    "wrong", [{"resamples": 0}, {"level": 1.5}, {"worst": -1}, {"batch_size": 0}, {"seed": -1}]
)
def test_numbers(wrong: dict) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} must be"):
        EvaluationSettings(**wrong)


def test_measures_must_differ_and_pictures_need_one() -> None:
    with pytest.raises(
        ValueError, match="two measures of the kind 'overall' are called 'accuracy'"
    ):
        Evaluator(Reader(True), CLASSES, SETTINGS, (*MEASURES, MEASURES[0]))
    with pytest.raises(
        ValueError, match=r"measures lack 'background_share'.* \(\*MEASURES, yours\)"
    ):
        Evaluator(Reader(True), CLASSES, SETTINGS, MEASURES[:2])


def test_old_names_work_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match="TestSettings is called EvaluationSettings now"):
        settings = evaluator.TestSettings
    with pytest.warns(DeprecationWarning, match="samples is called resamples now"):
        assert settings(samples=3) == EvaluationSettings(resamples=3)
    with pytest.warns(DeprecationWarning, match="Judge is called Evaluator now"):
        assert evaluator.Judge is Evaluator
    with pytest.raises(AttributeError, match="has no attribute 'Jury'"):
        _ = evaluator.Jury
