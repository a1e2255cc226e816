"""Check all data before training, and report counts, missing masks, faults and duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from faster_isnet.data.duplicates import map_samples, near_pairs, perceptual_hash, pixel_hash
from faster_isnet.data.samples import SPLITS, Sample, classes_of

_MOST_LISTED = 10


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
    """

    samples: list[Sample]
    class_names: list[str]
    unusable: dict[str, str] = field(default_factory=dict)
    without_mask: list[str] = field(default_factory=list)
    empty_masks: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of usable samples by split and class."""
        return {
            split or "no split": {
                name: sum(c in classes_of(sample) for sample in members)
                for c, name in enumerate(self.class_names)
            }
            for split, members in self._by_split.items()
        }

    @property
    def _by_split(self) -> dict[str | None, list[Sample]]:
        found: dict[str | None, list[Sample]] = {split: [] for split in SPLITS}
        for sample in self.samples:
            found.setdefault(sample.split, []).append(sample)
        return {split: members for split, members in found.items() if members}

    def __str__(self) -> str:
        """Return a table of counts by class and split, and lists of the findings."""
        width = max(map(len, ["images", *self.class_names]))
        rows = {name: [of[name] for of in self.counts.values()] for name in self.class_names}
        rows["images"] = [len(members) for members in self._by_split.values()]
        lines = ["".join([" " * width, *(split.rjust(10) for split in self.counts)])]
        for name, cells in rows.items():
            lines.append("".join([name.ljust(width), *(str(cell).rjust(10) for cell in cells)]))
        masked = len(self.samples) - len(self.without_mask)
        lines.append(f"{masked} of {len(self.samples)} images have a mask")
        for what, items in (
            ("left out, since they cannot be used", list(self.unusable.values())),
            ("with a mask without foreground, which counts as none", self.empty_masks),
            ("without a label", self.unlabelled),
            ("pairs of different splits with the same pixels", _joined_names(self.duplicates)),
            ("pairs of different splits that look the same", _joined_names(self.near_duplicates)),
        ):
            if items:
                lines.append(f"{len(items)} {what}:\n{_bullet_list(items)}")
        return "\n".join(lines)


def check_samples(
    samples: Iterable[Sample], class_names: Sequence[str], skip_unreadable: bool = False
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

    Raises
    ------
    ValueError
        If there are unusable samples and ``skip_unreadable`` is off; the message lists up to ten of
        them with the reasons.
    """
    samples = list(samples)
    summaries = map_samples(samples, _summarise)
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
    for i, j in near_pairs([summary.perceptual_hash for _, summary in readable]):
        if usable[i].split != usable[j].split:
            near[hashes[i] == hashes[j]].append((usable[i].name, usable[j].name))
    return Findings(
        samples=usable,
        class_names=list(class_names),
        unusable=unusable,
        without_mask=[sample.name for sample in usable if sample.mask is None],
        empty_masks=[sample.name for sample, summary in readable if summary.has_empty_mask],
        unlabelled=[sample.name for sample in usable if class_names and sample.label is None],
        duplicates=near[True],
        near_duplicates=near[False],
    )


@dataclass(frozen=True)
class _Summary:
    pixel_hash: str
    perceptual_hash: Tensor
    has_empty_mask: bool


def _summarise(sample: Sample) -> _Summary:
    image = sample.read_image()
    mask = sample.read_mask((image.shape[1], image.shape[2]))
    return _Summary(
        pixel_hash(image), perceptual_hash(image), mask is not None and not bool(mask.any())
    )


def _joined_names(names: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{one} and {other}" for one, other in names]


def _bullet_list(items: Sequence[str]) -> str:
    shown = [f"  {item}" for item in items[:_MOST_LISTED]]
    more = len(items) - _MOST_LISTED
    return "\n".join([*shown, f"  … and {more} more"] if more > 0 else shown)
