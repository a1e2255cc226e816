from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from faster_isnet.data.samples import Sample, classes_of
from faster_isnet.data.splits import Fold, split

quick = settings(max_examples=50)
NAMES = ("train", "val", "test")


def samples_of(labels, groups=None, splits=None) -> list[Sample]:
    groups = groups or len(labels) * [None]
    splits = splits or len(labels) * [None]
    return [
        Sample(Path(f"{i}.png"), label, split=part, group=group)
        for i, (label, group, part) in enumerate(zip(labels, groups, splits, strict=True))
    ]


def clinic(patients: int, classes: int = 3, seed: int = 0) -> list[Sample]:
    """Patients with 1 to 5 images each, mostly of one class."""
    rng = np.random.default_rng(seed)
    labels, groups = [], []
    for patient in range(patients):
        own = int(rng.integers(classes))
        for _ in range(int(rng.integers(1, 6))):
            labels.append(own if rng.random() < 0.8 else int(rng.integers(classes)))
            groups.append(f"patient {patient}")
    return samples_of(labels, groups)


def deviation(parts: np.ndarray, labels: np.ndarray, shares: dict) -> float:
    """The largest difference between a class's share in a part and the part's own share."""
    return max(
        abs(np.mean(parts[labels == label] == name) - share)
        for label in np.unique(labels)
        for name, share in shares.items()
    )


@quick
@given(
    counts=st.lists(st.integers(20, 60), min_size=2, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_single_images_meet_the_fractions_in_each_class(counts, seed):
    samples = samples_of([label for label, count in enumerate(counts) for _ in range(count)])
    found = split(samples, seed=seed)
    assert [s.image for s in found] == [s.image for s in samples]
    for label, count in enumerate(counts):
        parts = Counter(s.split for s in found if s.label == label)
        for name, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
            assert abs(parts[name] - share * count) <= 2


@quick
@given(counts=st.lists(st.integers(3, 9), min_size=2, max_size=4), seed=st.integers(0, 2**32))
def test_three_of_a_class_suffice_for_three_splits(counts, seed):
    found = split(
        samples_of([c for c, count in enumerate(counts) for _ in range(count)]), seed=seed
    )
    assert {(s.split, s.label) for s in found} == {
        (name, label) for name in NAMES for label in range(len(counts))
    }


@quick
@given(patients=st.integers(60, 150), seed=st.integers(0, 2**32))
def test_groups_stay_whole_and_classes_in_their_shares(patients, seed):
    samples = clinic(patients, seed=seed)
    found = split(samples, seed=seed)
    parts = {}
    for sample in found:
        assert parts.setdefault(sample.group, sample.split) == sample.split
    shares = {"train": 0.7, "val": 0.15, "test": 0.15}
    names = np.array([s.split for s in found])
    assert deviation(names, np.array([s.label for s in found]), shares) < 0.1


def test_stratifies_as_well_as_scikit_learn():
    theirs, ours = [], []
    for seed in range(10):
        samples = clinic(80, seed=seed)
        labels = np.array([s.label for s in samples])
        groups = np.array([s.group for s in samples])
        folds = np.empty(len(samples), dtype=object)
        splitter = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
        for name, (_, part) in zip(NAMES, splitter.split(labels, labels, groups), strict=True):
            folds[part] = name
        thirds = dict.fromkeys(NAMES, 1 / 3)
        found = np.array([s.split for s in split(samples, thirds, seed)])
        theirs.append(deviation(folds, labels, thirds))
        ours.append(deviation(found, labels, thirds))
    assert np.mean(ours) <= 1.2 * np.mean(theirs)


def test_multi_label_classes_are_stratified():
    rng = np.random.default_rng(0)
    labels = [tuple(int(x) for x in rng.random(4) < [0.5, 0.3, 0.1, 0.05]) for _ in range(400)]
    found = split(samples_of(labels))
    for label in range(4):
        parts = Counter(s.split for s in found if label in classes_of(s))
        total = sum(parts.values())
        assert parts["test"] / total == pytest.approx(0.15, abs=0.06)
        assert parts["val"] / total == pytest.approx(0.15, abs=0.06)
    assert Counter(s.split for s in found)["train"] == pytest.approx(280, abs=12)


def test_a_function_of_the_seed():
    samples = clinic(60)
    assert split(samples, seed=3) == split(samples, seed=3)
    assert split(samples, seed=3) != split(samples, seed=4)


class TestGivenSplits:
    def test_stay(self):
        samples = samples_of([0, 1] * 20, splits=["test", "train", "val", "train"] * 10)
        samples = [*samples, *samples_of([0, 1], splits=["train", "val"])]
        assert split(samples) == samples

    def test_the_rest_goes_to_the_others(self):
        samples = samples_of([0, 1] * 40, splits=["test"] * 20 + [None] * 60)
        found = split(samples)
        assert [s.split for s in found[:20]] == ["test"] * 20
        rest = Counter(s.split for s in found[20:])
        assert set(rest) == {"train", "val"}
        assert rest["val"] / 60 == pytest.approx(0.15 / 0.85, abs=0.04)

    def test_validation_comes_from_training_if_there_is_none(self):
        samples = samples_of([0, 1] * 40, splits=["test"] * 20 + ["train"] * 60)
        found = split(samples)
        assert [s.split for s in found[:20]] == ["test"] * 20
        assert {s.split for s in found[20:]} == {"train", "val"}

    def test_others_of_the_group_join(self):
        samples = [
            *samples_of([0, 1] * 20),
            *samples_of(
                [0, 0, 1, 1], groups=["a", "a", "b", "b"], splits=["test", None, None, "test"]
            ),
        ]
        assert [s.split for s in split(samples)[-4:]] == ["test"] * 4


class TestFaults:
    def test_a_group_in_two_splits(self):
        samples = samples_of([0, 1], groups=["ann", "ann"], splits=["train", "test"])
        with pytest.raises(ValueError, match=r"'ann' is in the splits 'train' and 'test' .*1.png"):
            split(samples)

    def test_a_class_missing_from_a_split(self):
        samples = samples_of([0] * 20 + [1] * 2)
        with pytest.raises(
            ValueError, match=r"class 'rare' is in the split .*20.png.*leave the class out"
        ):
            split(samples, class_names=["usual", "rare"])

    def test_a_class_in_too_few_groups(self):
        samples = samples_of([0] * 20 + [1] * 20, groups=[None] * 20 + ["ann"] * 20)
        with pytest.raises(ValueError, match=r"no sample of class 1 is in the split"):
            split(samples)

    def test_one_without_a_split_though_all_are_given(self):
        samples = samples_of([0, 0, 0, 0], splits=["train", "val", "test", None])
        with pytest.raises(ValueError, match=r"'3.png' has no split"):
            split(samples)

    @pytest.mark.parametrize("fractions", [{"train": 0.5, "tset": 0.5}, {"train": 0.5, "val": 0}])
    def test_fractions(self, fractions):
        with pytest.raises(ValueError, match=r"did you mean 'test'|fractions\['val'\] must be"):
            split(samples_of([0, 1] * 10), fractions)


@quick
@given(folds=st.integers(2, 5), seed=st.integers(0, 2**32), patients=st.integers(40, 60))
def test_folds_test_on_each_sample_once(folds, seed, patients):
    samples = clinic(patients, classes=2, seed=seed % 7)
    tested = Counter()
    for number in range(folds):
        found = split(samples, seed=seed, fold=Fold(number, folds))
        assert [s.image for s in found] == [s.image for s in samples]
        assert Counter(s.split for s in found).keys() == set(NAMES)
        for group in {s.group for s in found}:
            assert len({s.split for s in found if s.group == group}) == 1
        share = sum(s.split == "test" for s in found) / len(found)
        assert share == pytest.approx(1 / folds, abs=0.1)
        tested.update(s.image for s in found if s.split == "test")
    assert set(tested.values()) == {1}
    assert len(tested) == len(samples)


def test_training_and_validation_keep_their_proportion_in_a_fold():
    samples = samples_of([0, 1] * 100)
    found = split(samples, {"train": 0.6, "val": 0.2, "test": 0.2}, fold=Fold(1, 4))
    assert Counter(s.split for s in found) == pytest.approx(
        {"test": 50, "val": 150 / 4, "train": 450 / 4}, abs=1
    )


@pytest.mark.parametrize(("number", "of"), [(0, 1), (5, 5), (-1, 3)])
def test_folds_that_there_are_not(number, of):
    with pytest.raises(ValueError, match=r"fold\.(of|number) must be a number in"):
        Fold(number, of)


def test_a_fold_is_chosen_among_all():
    samples = samples_of([0, 1] * 10, splits=["train"] * 20)
    with pytest.raises(ValueError, match=r"samples have the splits \['train'\], but a fold"):
        split(samples, fold=Fold(0, 2))


def test_a_class_that_a_fold_cannot_test_on_is_named():
    samples = samples_of([0] * 20 + [1] * 3)
    for number in range(3):
        assert 1 in {s.label for s in split(samples, fold=Fold(number, 5)) if s.split == "test"}
    with pytest.raises(ValueError, match=r"class 1 is in the split 'test' .* take fewer folds"):
        split(samples, fold=Fold(3, 5))
