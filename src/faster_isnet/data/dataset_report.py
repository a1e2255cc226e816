"""Looking at all data before training: what there is, what is missing, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from faster_isnet.data.duplicates import near_pairs, perceptual_hash, pixel_hash, read_all
from faster_isnet.data.samples import SPLITS, Sample, classes_of

_SHOWN = 10


@dataclass(frozen=True)
class Findings:
    """What was found in a data set; ``str()`` of it is the text for people.

    Attributes
    ----------
    samples
        Those that can be used.
    class_names
        Names of the classes.
    unusable
        Of each sample that cannot be used, its name and why: the image or its mask cannot be
        read, or they differ in size.
    without_mask, empty_masks, unlabelled
        Names of usable samples without a mask, with one that has no foreground (which counts as
        none), and without a label, if there are classes.
    duplicates, near_duplicates
        Names of two samples of different splits with the same pixels, or nearly the same picture.
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
        """How many usable samples each split has of each class, by their names."""
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
        """Return counts by class and split, and what else was found, in words."""
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
            ("pairs of different splits with the same pixels", _pairs(self.duplicates)),
            ("pairs of different splits that look the same", _pairs(self.near_duplicates)),
        ):
            if items:
                lines.append(f"{len(items)} {what}:\n{_listed(items)}")
        return "\n".join(lines)


def check_samples(
    samples: Iterable[Sample], class_names: Sequence[str], skip_unreadable: bool = False
) -> Findings:
    """Read all images and masks once, and say what was found.

    Parameters
    ----------
    samples
        The samples, with their splits.
    class_names
        Names of the classes.
    skip_unreadable
        Leave out the samples that cannot be used.

    Raises
    ------
    ValueError
        If some cannot be used and ``skip_unreadable`` is off; names them all, up to ten, and why.
    """
    samples = list(samples)
    looks = read_all(samples, _look)
    unusable = {
        sample.name: str(look)
        for sample, look in zip(samples, looks, strict=True)
        if isinstance(look, Exception)
    }
    if unusable and not skip_unreadable:
        raise ValueError(
            f"{len(unusable)} of {len(samples)} samples cannot be used:\n"
            f"{_listed(list(unusable.values()))}\n"
            "Mend them, or go on without them: --skip-unreadable"
        )
    seen = [
        (sample, look)
        for sample, look in zip(samples, looks, strict=True)
        if not isinstance(look, Exception)
    ]
    usable = [sample for sample, _ in seen]
    across = [
        (i, j)
        for i, j in near_pairs([look.perceptual for _, look in seen])
        if usable[i].split != usable[j].split
    ]
    same = {(i, j) for i, j in across if seen[i][1].pixels == seen[j][1].pixels}
    return Findings(
        samples=usable,
        class_names=list(class_names),
        unusable=unusable,
        without_mask=[sample.name for sample in usable if sample.mask is None],
        empty_masks=[sample.name for sample, look in seen if look.has_empty_mask],
        unlabelled=[sample.name for sample in usable if class_names and sample.label is None],
        duplicates=[(usable[i].name, usable[j].name) for i, j in across if (i, j) in same],
        near_duplicates=[(usable[i].name, usable[j].name) for i, j in across if (i, j) not in same],
    )


@dataclass(frozen=True)
class _Look:
    pixels: str
    perceptual: Tensor
    has_empty_mask: bool


def _look(sample: Sample) -> _Look:
    image = sample.read_image()
    mask = sample.read_mask((image.shape[1], image.shape[2]))
    return _Look(
        pixel_hash(image), perceptual_hash(image), mask is not None and not bool(mask.any())
    )


def _pairs(names: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{one} and {other}" for one, other in names]


def _listed(items: Sequence[str]) -> str:
    shown = [f"  {item}" for item in items[:_SHOWN]]
    more = len(items) - _SHOWN
    return "\n".join([*shown, f"  … and {more} more"] if more > 0 else shown)
