"""Split samples into training, validation and test, stratified by class and by group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.data.samples import SPLITS, Sample, classes_of

DEFAULT_FRACTIONS: Mapping[str, float] = MappingProxyType({"train": 0.7, "val": 0.15, "test": 0.15})


@dataclass(frozen=True)
class Fold:
    """Choose the test images of one turn of a cross-validation.

    Parameters
    ----------
    number
        Which part is tested on, from 0.
    of
        The number of parts, ≥ 2, in which all samples are divided by class and group.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_range("fold.of", self.of, 2)
        check_range("fold.number", self.number, 0, self.of - 1)


def split(
    samples: Iterable[Sample],
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    class_names: Sequence[str] = (),
    fold: Fold | None = None,
) -> list[Sample]:
    """Assign a split to every sample, stratified by class, with each group in one split.

    Samples that have a split keep it, and the other samples of their groups get the same. The rest
    is distributed over the splits that no sample has. One exception: if there are samples for
    training and none for validation, those for training are split again.

    Parameters
    ----------
    samples
        The samples.
    fractions
        The fraction of each split, > 0; normalised to a sum of 1.
    seed
        Seed of the split.
    class_names
        Names of the classes, for messages.
    fold
        Take this part of the samples to test on, whatever the fraction of ``"test"``, and divide
        the others in training and validation. With the same seed each sample is tested on once.

    Returns
    -------
    list
        The samples in the same order, each with a split.

    Raises
    ------
    ValueError
        If a split is unknown or its fraction not above 0; a group has two splits; a sample has
        no split although other samples have each of them; samples have a split, and ``fold`` is
        given; or a class is missing in training, or in a split that is created here.

    Notes
    -----
    As in scikit-learn's ``StratifiedGroupKFold``, groups are assigned one by one, the largest
    first, but the splits may differ in size. A group is assigned to the split where its classes
    are rarest, as in Adams' method of apportionment. So if samples have no groups, every split
    gets a sample of each class that has at least as many samples as there are splits.
    """
    for name, fraction in fractions.items():
        check_choice("split in fractions", name, SPLITS)
        check_range(f"fractions[{name!r}]", fraction, 0, open_low=True)
    samples = _join_groups(list(samples))
    given = {sample.split for sample in samples if sample.split}
    if fold is not None:
        samples, given = _with_test_fold(samples, fold, seed), {"test"}
    if "val" in fractions and "val" not in given:
        given.discard("train")
    shares = {name: share for name, share in fractions.items() if name not in given}
    rest = [sample for sample in samples if sample.split not in given]
    if rest and not shares:
        raise ValueError(
            f"{rest[0].name!r} has no split, although other samples have each of "
            f"{', '.join(map(repr, fractions))}; give all a split, or none the split to be chosen"
        )
    assigned = iter(_assign_splits(rest, shares, seed))
    samples = [
        sample if sample.split in given else replace(sample, split=next(assigned))
        for sample in samples
    ]
    complete = ["train"] if "train" in given else []
    complete += [] if fold is None else ["test"]
    _check_classes(samples, [*complete, *(shares if rest else ())], class_names)
    return samples


def _with_test_fold(samples: Sequence[Sample], fold: Fold, seed: int) -> list[Sample]:
    """Give the samples of a fold the split to test on; none may have a split."""
    if given := sorted({sample.split for sample in samples if sample.split}):
        raise ValueError(
            f"samples have the splits {given}, but a fold of a cross-validation is to be chosen "
            "among all; give no sample a split, or leave out fold"
        )
    parts = _assign_splits(samples, {str(number): 1.0 for number in range(fold.of)}, seed)
    return [
        replace(sample, split="test") if part == str(fold.number) else sample
        for sample, part in zip(samples, parts, strict=True)
    ]


def _join_groups(samples: list[Sample]) -> list[Sample]:
    """Copy the split of a group's samples to those without a split."""
    by_group: dict[str | None, str] = {}
    for sample in samples:
        if sample.group is None or sample.split is None:
            continue
        if by_group.setdefault(sample.group, sample.split) != sample.split:
            raise ValueError(
                f"group {sample.group!r} is in the splits {by_group[sample.group]!r} and "
                f"{sample.split!r} (there with {sample.name!r}); put all of a group into one"
            )
    return [replace(sample, split=sample.split or by_group.get(sample.group)) for sample in samples]


def _assign_splits(samples: Sequence[Sample], shares: Mapping[str, float], seed: int) -> list[str]:
    """Choose the name of a split for each sample."""
    if not samples:
        return []
    keys = [(i if s.group is None else -1, s.group or "") for i, s in enumerate(samples)]
    group_of = {key: g for g, key in enumerate(dict.fromkeys(keys))}
    width = 1 + max(max(classes_of(sample), default=-1) for sample in samples)
    counts = np.zeros((len(group_of), width + 1))  # by group and class; the last column: no class
    for key, sample in zip(keys, samples, strict=True):
        counts[group_of[key], classes_of(sample) or [width]] += 1

    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    scarcity = counts / counts.sum(0).clip(min=1)  # weights rare classes more
    share = np.array(list(shares.values()))
    assigned_counts = np.zeros((len(shares), width + 1))
    part = np.zeros(len(counts), dtype=int)
    for group in order:
        part[group] = np.argmin(assigned_counts @ scarcity[group] / share)
        assigned_counts[part[group]] += counts[group]
    names = list(shares)
    return [names[part[group_of[key]]] for key in keys]


def _check_classes(
    samples: Sequence[Sample], splits: Sequence[str], class_names: Sequence[str]
) -> None:
    everywhere = {each for sample in samples for each in classes_of(sample)}
    for name in splits:
        present = {each for s in samples if s.split == name for each in classes_of(s)}
        for missing in sorted(everywhere - present):
            members = [s for s in samples if missing in classes_of(s)]
            raise ValueError(
                f"no sample of class {class_names[missing] if class_names else missing!r} is in "
                f"the split {name!r} ({len(members)} have it, for example {members[0].name!r}); "
                "add samples of other groups, leave the class out, or give all samples a split (of "
                "a cross-validation: take fewer folds)"
            )
