"""What is said of a subgroup is what would be said of its images alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from faster_isnet.data import ImageDataset
from faster_isnet.data.samples import Sample
from faster_isnet.evaluation.evaluator import EvaluationSettings, Evaluator
from faster_isnet.evaluation.json_format import results_from_json, results_to_json
from faster_isnet.evaluation.subgroups import MOST_VALUES, members
from toy_images import CLASSES, SIZE, Reader, toy_dataset

SETTINGS = EvaluationSettings(resamples=20, accelerator="cpu", examples=0, worst=0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Images of two sexes, and of a site where it is known; some have no mask."""
    plain = toy_dataset(tmp_path_factory.mktemp("toys"), masked=9).samples
    return [
        replace(s, subgroups=(("sex", "fm"[i % 2]), *((("site", "north"),) if i % 3 else ())))
        for i, s in enumerate(plain)
    ]


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(Reader(False), CLASSES, SETTINGS)


@pytest.mark.parametrize(("column", "value"), [("sex", "f"), ("sex", "m"), ("site", "north")])
def test_a_subgroup_is_scored_as_its_images_alone(
    samples: list[Sample], evaluator: Evaluator, column: str, value: str
) -> None:
    found = evaluator(ImageDataset(samples, (SIZE, SIZE))).results
    own = [replace(s, subgroups=()) for s in samples if (column, value) in s.subgroups]
    alone = evaluator(ImageDataset(own, (SIZE, SIZE))).results
    subgroup = found.subgroups[column][value]
    assert 1 < subgroup.scores.images == len(own) < len(samples)
    assert subgroup.attention is not None
    assert subgroup.attention.images < len(own)
    numbers, expected = flat(results_to_json(subgroup, [])), flat(results_to_json(alone, []))
    drawn = ("noise", "other image")  # of these, backgrounds are drawn from all images
    compared = [key for key in expected if not any(kind in key for kind in drawn)]
    assert numbers.keys() == expected.keys()
    close = pytest.approx({key: expected[key] for key in compared}, abs=1e-5)
    assert {key: numbers[key] for key in compared} == close


def flat(tree: object, name: str = "") -> dict[str, float]:
    """Return all numbers of a tree, by their paths."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, each in items for k, v in flat(each, f"{name}/{key}").items()}
    return {name: tree} if isinstance(tree, int | float) else {}


def test_subgroups_are_saved_and_read(samples: list[Sample], evaluator: Evaluator) -> None:
    found = evaluator(ImageDataset(samples, (SIZE, SIZE))).results
    content = results_to_json(found, [])
    assert results_from_json(content).subgroups == found.subgroups
    del content["subgroups"]  # as files of 0.1
    assert results_from_json(content).subgroups == {}


def test_one_image_is_a_subgroup_too(samples: list[Sample], evaluator: Evaluator) -> None:
    some = [replace(samples[0], subgroups=(("sex", "x"),)), *samples[1:]]
    found = evaluator(ImageDataset(some, (SIZE, SIZE))).results.subgroups["sex"]["x"]
    assert found.scores.images == 1
    assert found.attention is None
    assert found.sensitivity is None


def test_numbers_are_no_subgroups() -> None:
    ages = [
        Sample(Path(f"{n}.png"), 0, subgroups=(("age", str(n)),)) for n in range(MOST_VALUES + 1)
    ]
    assert len(members(ages[1:])["age"]) == MOST_VALUES
    with pytest.raises(ValueError, match=r"'age' has 31 values, for example '0', too many"):
        members(ages)
