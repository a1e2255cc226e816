"""Dividing samples into training, validation and test so that groups stay whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.data.samples import SPLITS, Sample, classes_of

DEFAULT_FRACTIONS: Mapping[str, float] = MappingProxyType({"train": 0.7, "val": 0.15, "test": 0.15})


def split(
    samples: Iterable[Sample],
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> list[Sample]:
    """Give every sample a split, with the classes in the same shares and no group in two.

    Samples that have a split keep it, and the others of their groups join them. The rest is
    divided among the splits that no sample has. One case differs: where there are samples for
    training and none for validation, the former are divided, too.

    Parameters
    ----------
    samples
        What to divide.
    fractions
        The share of each split in what is divided, > 0, brought to a sum of 1.
    seed
        Of the division.
    class_names
        For messages.

    Returns
    -------
    list
        The samples in the same order, each with a split.

    Raises
    ------
    ValueError
        If a split is unknown or its fraction not above 0; a group is given in two splits; a
        sample has no split although all splits are given; or a class is missing from training, if
        there is any, or from a split that is made here.

    Notes
    -----
    As in scikit-learn's ``StratifiedGroupKFold`` groups are placed one by one, the largest first,
    but the parts need not be equal. A group goes where its classes are scarcest, as Adams'
    apportionment gives seats; so of single images, every split gets one of each class that has as
    many as there are splits.
    """
    for name, fraction in fractions.items():
        check_choice("split in fractions", name, SPLITS)
        check_range(f"fractions[{name!r}]", fraction, 0, open_low=True)
    samples = _join_groups(list(samples))
    given = {sample.split for sample in samples if sample.split}
    if "val" in fractions and "val" not in given:
        given.discard("train")
    shares = {name: share for name, share in fractions.items() if name not in given}
    rest = [sample for sample in samples if sample.split not in given]
    if rest and not shares:
        raise ValueError(
            f"{rest[0].name!r} has no split, although other samples have each of "
            f"{', '.join(map(repr, fractions))}; give all a split, or none the split to be chosen"
        )
    divided = iter(_divide(rest, shares, seed))
    samples = [
        sample if sample.split in given else replace(sample, split=next(divided))
        for sample in samples
    ]
    complete = ["train"] if "train" in given else []
    _check_classes(samples, [*complete, *(shares if rest else ())], class_names)
    return samples


def _join_groups(samples: list[Sample]) -> list[Sample]:
    """Give samples the split that others of their groups have."""
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


def _divide(samples: Sequence[Sample], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return the name of a split for each sample."""
    if not samples:
        return []
    keys = [(i if s.group is None else -1, s.group or "") for i, s in enumerate(samples)]
    group_of = {key: g for g, key in enumerate(dict.fromkeys(keys))}
    width = 1 + max(max(classes_of(sample), default=-1) for sample in samples)
    counts = np.zeros((len(group_of), width + 1))  # by group and class; the last: no class
    for key, sample in zip(keys, samples, strict=True):
        counts[group_of[key], classes_of(sample) or [width]] += 1

    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    scarcity = counts / counts.sum(0).clip(min=1)  # a rare class counts for more
    share = np.array(list(shares.values()))
    placed = np.zeros((len(shares), width + 1))
    part = np.zeros(len(counts), dtype=int)
    for group in order:
        part[group] = np.argmin(placed @ scarcity[group] / share)
        placed[part[group]] += counts[group]
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
                "add samples of other groups, leave the class out, or give all samples a split"
            )
