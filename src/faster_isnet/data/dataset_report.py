"""Check all data before training, and report counts, missing masks, faults and duplicates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from faster_isnet.data.duplicates import map_samples, near_pairs, perceptual_hash, pixel_hash
from faster_isnet.data.mask_outlines import MaskOutline, outline_doubts
from faster_isnet.data.samples import SPLITS, TRAINING_SPLITS, Sample, classes_of
from faster_isnet.data.worse_masks import WorseMasks, removed_masks

_MOST_LISTED = 10
_FEWEST_MASKS = 10  # of fewer, most are no rule
_OUTLINES = 200  # masks whose outlines are looked at, which takes as long as reading a small image
_ON_BORDER, _NEARLY_ALL, _NEARLY_NOTHING = 0.75, 0.95, 0.001


@dataclass(frozen=True)
class Findings:
    """Collect the results of checking a data set; ``str()`` formats them as text.

    Attributes
    ----------
    samples
        The usable samples.
    class_names
        Names of the classes.
    unusable
        The reason for each unusable sample, by its name: the image or its mask cannot be read,
        or their sizes differ.
    without_mask, empty_masks, unlabelled
        Names of usable samples without a mask, with a mask that has no foreground (it counts as
        none), and, if there are classes, without a label.
    duplicates, near_duplicates
        Pairs of names from different splits with the same pixels, or nearly the same picture.
    contradictions
        Pairs of names with the same pixels and different labels, in any split.
    doubtful_masks
        What most masks have in common that right ones seldom have, with the cure.
    shared_groups
        Numbers of groups that two splits share, by the splits' names. Groups of additional data may
        be those of the others, or only be called the same.
    worse_masks
        How masks of training and validation are made worse on purpose; ``None`` if they are not.
    removed_masks
        Names of samples whose masks are left out by that.
    added_masks
        Files of masks that were added for samples without one, by the samples' names.
    """

    samples: list[Sample]
    class_names: list[str]
    unusable: dict[str, str] = field(default_factory=dict)
    without_mask: list[str] = field(default_factory=list)
    empty_masks: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    contradictions: list[tuple[str, str]] = field(default_factory=list)
    doubtful_masks: list[str] = field(default_factory=list)
    shared_groups: dict[tuple[str, str], int] = field(default_factory=dict)
    worse_masks: WorseMasks | None = None
    removed_masks: list[str] = field(default_factory=list)
    added_masks: Mapping[str, Path] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of usable samples by split and class."""
        found = {}
        for split, members in self._by_split.items():
            of_class = Counter(c for sample in members for c in classes_of(sample))
            found[split or "no split"] = {n: of_class[c] for c, n in enumerate(self.class_names)}
        return found

    def masked(self, split: str) -> int:
        """Count the usable samples of a split that have, and keep, a mask with foreground."""
        return len(self.with_foreground(self.of_split(split)))

    def with_foreground(self, samples: Iterable[Sample]) -> list[Sample]:
        """Return those of the samples that have, and keep, a mask with foreground."""
        without = {*self.without_mask, *self.empty_masks, *self.removed_masks}
        without -= self.added_masks.keys()
        return [sample for sample in samples if sample.name not in without]

    def of_split(self, split: str) -> list[Sample]:
        """Return the usable samples of a split."""
        return [sample for sample in self.samples if sample.split == split]

    def with_worse_masks(self, worse_masks: WorseMasks, folder: str | Path | None) -> Findings:
        """Return findings that report how masks of training and validation are made worse.

        Parameters
        ----------
        worse_masks
            The changes.
        folder
            See :func:`~faster_isnet.data.worse_masks.removed_masks`.
        """
        removed = [
            name
            for split in TRAINING_SPLITS
            for name in removed_masks(worse_masks, self.of_split(split), folder)
        ]
        return replace(self, worse_masks=worse_masks, removed_masks=removed)

    def with_added_masks(self, masks: Mapping[str, Path]) -> Findings:
        """Return findings in which training and validation images have masks that they lacked.

        Parameters
        ----------
        masks
            Files, by the names of samples.

        Raises
        ------
        ValueError
            If there is a name that none of these samples has, or one that has a mask.
        """
        trained_on = [sample for split in TRAINING_SPLITS for sample in self.of_split(split)]
        masked = {sample.name for sample in self.with_foreground(trained_on)}
        lacking = {sample.name for sample in trained_on} - masked
        if unknown := sorted(masks.keys() - lacking):
            raise ValueError(
                f"{len(unknown)} of {len(masks)} masks to add are not of training or validation "
                f"images that lack one, for example {unknown[0]!r}; leave them out"
            )
        return replace(self, added_masks={**self.added_masks, **masks})

    @property
    def _by_split(self) -> dict[str | None, list[Sample]]:
        found: dict[str | None, list[Sample]] = {split: [] for split in SPLITS}
        for sample in self.samples:
            found.setdefault(sample.split, []).append(sample)
        return {split: members for split, members in found.items() if members}

    def __str__(self) -> str:
        """Return a table of counts by class and split, and lists of the findings."""
        width = max(map(len, ["images", *self.class_names]))
        counts = self.counts
        rows = {name: [of[name] for of in counts.values()] for name in self.class_names}
        rows["images"] = [len(members) for members in self._by_split.values()]
        lines = ["".join([" " * width, *(split.rjust(10) for split in counts)])]
        for name, cells in rows.items():
            lines.append("".join([name.ljust(width), *(str(cell).rjust(10) for cell in cells)]))
        masked = len(self.samples) - len(self.without_mask) - len(self.empty_masks)
        lines.append(f"{masked} of {len(self.samples)} images have a mask")
        lines += [f"WARNING: {doubt}" for doubt in self.doubtful_masks]
        if self.worse_masks is not None:
            lines.append(
                f"masks of {' and '.join(TRAINING_SPLITS)} are made worse on purpose: "
                f"{self.worse_masks}; "
                f"{len(self.removed_masks)} are left out"
            )
        for what, items in (
            ("left out, since they cannot be used", list(self.unusable.values())),
            ("with a mask without foreground, which counts as none", self.empty_masks),
            ("without a label", self.unlabelled),
            ("pairs of different splits with the same pixels", _joined_names(self.duplicates)),
            ("pairs of different splits that look the same", _joined_names(self.near_duplicates)),
            ("pairs with the same pixels and different labels", _joined_names(self.contradictions)),
        ):
            if items:
                lines.append(f"{len(items)} {what}:\n{_bullet_list(items)}")
        for (one, other), count in self.shared_groups.items():
            lines.append(
                f"{count} groups are in both {one!r} and {other!r}; if they are the same patients, "
                f"for example, what is measured on {other!r} is not of unseen ones"
            )
        return "\n".join(lines)


def check_samples(
    samples: Iterable[Sample],
    class_names: Sequence[str],
    skip_unreadable: bool = False,
    allow_duplicates: bool = False,
    mask_margin: float = 0.0,
) -> Findings:
    """Read and check all images and masks once.

    Parameters
    ----------
    samples
        The samples, with their splits.
    class_names
        Names of the classes.
    skip_unreadable
        Leave out unusable samples instead of raising an error.
    allow_duplicates
        Report images with the same pixels in different splits, or with different labels, instead of
        raising an error.
    mask_margin
        By which masks are grown before they are used, as a share of the side; negative if shrunk.

    Raises
    ------
    ValueError
        If there are unusable samples and ``skip_unreadable`` is off, or the same pixels in several
        splits or with several labels and ``allow_duplicates`` is off; the message lists up to ten
        of them.
    """
    samples = list(samples)
    outlined = _evenly([sample.name for sample in samples if sample.mask is not None], _OUTLINES)
    summaries = map_samples(
        samples, lambda sample: _summarise(sample, sample.name in outlined, mask_margin)
    )
    unusable = {
        sample.name: str(summary)
        for sample, summary in zip(samples, summaries, strict=True)
        if isinstance(summary, Exception)
    }
    if unusable and not skip_unreadable:
        raise ValueError(
            f"{len(unusable)} of {len(samples)} samples cannot be used:\n"
            f"{_bullet_list(list(unusable.values()))}\n"
            "Repair them, or leave them out: --skip-unreadable"
        )
    readable = [
        (sample, summary)
        for sample, summary in zip(samples, summaries, strict=True)
        if not isinstance(summary, Exception)
    ]
    usable = [sample for sample, _ in readable]
    hashes = [summary.pixel_hash for _, summary in readable]
    near: dict[bool, list[tuple[str, str]]] = {True: [], False: []}  # by whether pixels are equal
    contradictions = []
    for i, j in near_pairs([summary.perceptual_hash for _, summary in readable]):
        same, pair = hashes[i] == hashes[j], (usable[i].name, usable[j].name)
        if usable[i].split != usable[j].split:
            near[same].append(pair)
        labels = {usable[i].label, usable[j].label} - {None}
        if same and len(labels) > 1:
            contradictions.append(pair)
    if not allow_duplicates:
        _refuse_duplicates(near[True], contradictions)
    return Findings(
        samples=usable,
        class_names=list(class_names),
        unusable=unusable,
        without_mask=[sample.name for sample in usable if sample.mask is None],
        empty_masks=[sample.name for sample, summary in readable if summary.has_empty_mask],
        unlabelled=[sample.name for sample in usable if class_names and sample.label is None],
        duplicates=near[True],
        near_duplicates=near[False],
        contradictions=contradictions,
        doubtful_masks=_doubts([summary for _, summary in readable], mask_margin),
        shared_groups=_shared_groups(usable),
    )


def _refuse_duplicates(
    duplicates: Sequence[tuple[str, str]], contradictions: Sequence[tuple[str, str]]
) -> None:
    """Raise an error if there are any."""
    if contradictions:
        raise ValueError(
            f"{len(contradictions)} pairs of images have the same pixels and different labels:\n"
            f"{_bullet_list(_joined_names(contradictions))}\n"
            "Leave out one of each, or go on with all: --allow-duplicates"
        )
    if duplicates:
        raise ValueError(
            f"{len(duplicates)} pairs of images in different splits have the same pixels, so what "
            f"is tested on was trained on:\n{_bullet_list(_joined_names(duplicates))}\n"
            "Leave out one of each, keep them in one split (keep_near_duplicates_together), or go "
            "on with all: --allow-duplicates"
        )


def _shared_groups(samples: Iterable[Sample]) -> dict[tuple[str, str], int]:
    groups: dict[str, set[str]] = {}
    for sample in samples:
        if sample.group is not None:
            groups.setdefault(sample.split or "no split", set()).add(sample.group)
    shared = {
        (one, other): len(groups[one] & groups[other]) for one, other in combinations(groups, 2)
    }
    return {pair: count for pair, count in shared.items() if count}


@dataclass(frozen=True)
class _Summary:
    pixel_hash: str
    perceptual_hash: Tensor
    mask: _MaskShares | None
    outline: MaskOutline | None

    @property
    def has_empty_mask(self) -> bool:
        return self.mask is not None and self.mask.foreground == 0


@dataclass(frozen=True)
class _MaskShares:
    """What share of the image, and of its outermost pixels, is foreground."""

    foreground: float
    border: float

    @classmethod
    def of(cls, mask: Tensor) -> _MaskShares:
        plane = mask[0] == 1
        border = torch.cat([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
        return cls(float(plane.float().mean()), float(border.float().mean()))


def _doubts(summaries: Iterable[_Summary], margin: float) -> list[str]:
    """Return what most masks have in common that right ones seldom have."""
    summaries = list(summaries)
    shares = [each.mask for each in summaries]
    masks = [each for each in shares if each is not None and each.foreground > 0]
    if len(masks) < _FEWEST_MASKS:
        return []
    for is_doubtful, what in (
        (
            lambda each: each.border > _ON_BORDER,
            "have foreground on most of the image's border, as inverted masks have; if theirs is "
            "0, say so: --data.mask_foreground [0]",
        ),
        (
            lambda each: each.foreground > _NEARLY_ALL,
            f"cover more than {_NEARLY_ALL:.0%} of the image, so there is no background to speak "
            "of; name what is foreground: --data.mask_foreground, --data.mask_threshold",
        ),
        (
            lambda each: each.foreground < _NEARLY_NOTHING,
            f"cover less than {_NEARLY_NOTHING:.1%} of the image; name what is foreground: "
            "--data.mask_foreground, --data.mask_threshold",
        ),
    ):
        count = sum(map(is_doubtful, masks))
        if count > len(masks) / 2:
            return [f"{count} of {len(masks)} masks {what}"]
    return outline_doubts([e.outline for e in summaries if e.outline is not None], margin)


def _summarise(sample: Sample, with_outline: bool, margin: float) -> _Summary:
    image = sample.read_image()
    mask = sample.read_mask((image.shape[1], image.shape[2]))
    shares = None if mask is None else _MaskShares.of(mask)
    has_outline = with_outline and mask is not None and bool((mask == 1).any())
    outline = MaskOutline.of(image, mask, margin) if has_outline and mask is not None else None
    return _Summary(pixel_hash(image), perceptual_hash(image), shares, outline)


def _evenly(names: Sequence[str], count: int) -> frozenset[str]:
    """Choose up to ``count`` names, evenly spaced, since classes often follow one another."""
    return frozenset(names[:: math.ceil(len(names) / count)] if names else ())


def _joined_names(names: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{one} and {other}" for one, other in names]


def _bullet_list(items: Sequence[str]) -> str:
    shown = [f"  {item}" for item in items[:_MOST_LISTED]]
    more = len(items) - _MOST_LISTED
    return "\n".join([*shown, f"  … and {more} more"] if more > 0 else shown)
