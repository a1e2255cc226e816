"""Record which images a run is trained, validated and tested on, and divide them so again."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from faster_isnet.common.files import write_atomically
from faster_isnet.data.duplicates import map_samples, pixel_hash
from faster_isnet.data.samples import SPLITS, Sample, classes_of, relative_name

_VERSION = 1
_MOST_LISTED = 10
_ADDED_SETTINGS = {"fold": None}  # that earlier divisions lack, and what they had


@dataclass(frozen=True)
class RecordedImage:
    """Identify an image of a division.

    Attributes
    ----------
    name
        Its path, relative to the folder of the data.
    sha256
        Of the file; for an image within an HDF5 file, of its shape and pixels.
    classes
        Names of its classes.
    """

    name: str
    sha256: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DivisionChanges:
    """List how images differ from a recorded division; ``str()`` formats it as text.

    Attributes
    ----------
    new
        Images that are not recorded.
    changed
        Images whose file has another content than recorded.
    missing
        Recorded images that are not there, by their recorded names.
    relabelled
        Images with other classes than recorded; today's are used.
    moved
        Images that the source puts into another split than recorded; the recorded one is used.
    trained
        Images of additional data that are recorded as training images. They are left out.
    used
        Whether new and changed images are used. Else they are left out.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    relabelled: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    used: bool = False

    def __str__(self) -> str:
        """Return a line for each kind of change, and the names."""
        kept = "used" if self.used else "left out"
        lines = []
        for what, names in (
            (f"not in the run's division ({kept})", self.new),
            (f"with another content than in the run's division ({kept})", self.changed),
            ("in the run's division, but not there any more", self.missing),
            ("with other labels than in the run's division (today's are used)", self.relabelled),
            ("put into another split by the data than by the run (the run's is used)", self.moved),
            ("that the run was trained on (left out)", self.trained),
        ):
            if names:
                more = len(names) - _MOST_LISTED
                lines.append(f"images {what}: {len(names)}")
                lines += [f"  {name}" for name in names[:_MOST_LISTED]]
                lines += [f"  … and {more} more"] if more > 0 else []
        if (self.new or self.changed) and not self.used:
            lines.append(
                "To use them, give the split of the new ones; changed ones keep theirs: new_images"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Division:
    """Hold the division of a run's data: which images are in which data set.

    Attributes
    ----------
    class_names
        Names of the classes by index.
    settings
        What the division was made with, such as the seed; compared by :meth:`check_settings`.
    images
        By data set: ``"train"``, ``"val"``, ``"test"`` and the names of additional data.
    """

    class_names: list[str]
    settings: dict[str, Any]
    images: dict[str, list[RecordedImage]]

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        class_names: Sequence[str],
        folder: str | Path,
        settings: Mapping[str, Any],
    ) -> Division:
        """Record samples that have a split, with names relative to a folder.

        Raises
        ------
        ValueError
            If an image cannot be read.
        """
        images: dict[str, list[RecordedImage]] = defaultdict(list)
        for sample, digest in zip(samples, _hashes(samples), strict=True):
            if digest is None or sample.split is None:
                raise ValueError(f"{sample.name!r} cannot be recorded: it has no content or split")
            images[sample.split].append(
                RecordedImage(
                    relative_name(sample, folder), digest, _class_names(sample, class_names)
                )
            )
        return cls(list(class_names), dict(settings), dict(images))

    @classmethod
    def load(cls, path: str | Path) -> Division:
        """Load what :meth:`save` has written.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"its version is {content['version']}, known is {_VERSION}")
            return cls(
                [str(each) for each in content["class_names"]],
                dict(content["settings"]),
                {
                    str(data): [
                        RecordedImage(str(i["name"]), str(i["sha256"]), tuple(i["classes"]))
                        for i in images
                    ]
                    for data, images in content["images"].items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{str(path)!r} is no division of a run ({error!r}); restore it from a copy. "
                "Without the file the run's data are divided anew, and images that it was trained "
                "on can be tested on"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        content = {"version": _VERSION, **asdict(self)}
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())

    def merged(self, later: Division) -> Division:
        """Return a division with the images of both, for a training that went on with others."""
        images = {
            data: list(dict.fromkeys([*self.images.get(data, []), *later.images.get(data, [])]))
            for data in {**self.images, **later.images}
        }
        return replace(later, images=images)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if data would be divided with other settings than these were."""
        for name, value in settings.items():
            recorded = self.settings.get(name, _ADDED_SETTINGS.get(name, value))
            if recorded != value:
                raise ValueError(
                    f"{name} is {value!r}, but the run's data were divided with {recorded!r}, and "
                    "it is trained and tested on that division; leave the option as it was, or "
                    "train a new run"
                )

    def apply(
        self,
        samples: Iterable[Sample],
        class_names: Sequence[str],
        folder: str | Path,
        new_images: str | None = None,
    ) -> tuple[list[Sample], DivisionChanges]:
        """Divide samples as recorded. Images are recognised by content, then by name.

        Parameters
        ----------
        samples
            Those of additional data have its name as their split. If no data of that name are
            recorded, they are all used, unless the run was trained on them.
        class_names
            Names of their classes.
        folder
            What their names are relative to.
        new_images
            Split of images that are not recorded, which also keeps images that have changed, in
            their recorded splits. ``None`` leaves both out. New images of additional data stay in
            it.

        Returns
        -------
        tuple
            The samples that remain, in the same order, and what differs from the record.
        """
        samples = list(samples)
        hashes, names = _hashes(samples), [relative_name(sample, folder) for sample in samples]
        changes = DivisionChanges(used=new_images is not None)
        kept = []
        for sample, name, digest in zip(samples, names, hashes, strict=True):
            placed = self._place(sample, name, digest, class_names, changes, new_images)
            if placed is not None:
                kept.append(placed)
        there, called = set(hashes), set(names)
        changes.missing.extend(
            image.name
            for images in self.images.values()
            for image in images
            if image.sha256 not in there and image.name not in called
        )
        return kept, changes

    def _place(
        self,
        sample: Sample,
        name: str,
        digest: str | None,
        class_names: Sequence[str],
        changes: DivisionChanges,
        new_images: str | None,
    ) -> Sample | None:
        """Return a sample with its recorded split, ``None`` to leave it out; note changes."""
        is_additional = sample.split is not None and sample.split not in SPLITS
        data_sets = [str(sample.split)] if is_additional else SPLITS
        same = [(d, i) for d, i in self._by_hash.get(digest or "", ()) if d in data_sets]
        if same:
            # Of equal images in several splits, this one is that of its name.
            data, image = next(((d, i) for d, i in same if i.name == name), same[0])
            if image.classes != _class_names(sample, class_names):
                changes.relabelled.append(sample.name)
            if sample.split not in (None, data) and (sample.split, data) != _CARVED_OUT:
                changes.moved.append(sample.name)
            return replace(sample, split=data)
        if is_additional and self._is_trained_on(digest):
            changes.trained.append(sample.name)
            return None
        if is_additional and sample.split not in self.images:
            return sample
        recorded = next((d for d in data_sets if (d, name) in self._names), None)
        if digest is None and recorded is not None:  # the check of all data names it
            return replace(sample, split=recorded)
        (changes.new if recorded is None else changes.changed).append(sample.name)
        if new_images is None:
            return None
        new = sample.split if is_additional else new_images
        return replace(sample, split=recorded or new)

    def trained_on(self, samples: Sequence[Sample]) -> list[str]:
        """Return the names of those samples whose content is that of a training image."""
        pairs = zip(samples, _hashes(samples), strict=True)
        return [sample.name for sample, digest in pairs if self._is_trained_on(digest)]

    def _is_trained_on(self, digest: str | None) -> bool:
        return any(data == "train" for data, _ in self._by_hash.get(digest or "", ()))

    @cached_property
    def _by_hash(self) -> dict[str, list[tuple[str, RecordedImage]]]:
        """Recorded images by content, those of ``"train"`` first."""
        found = defaultdict(list)
        for data in sorted(self.images, key=lambda name: name != "train"):
            for image in self.images[data]:
                found[image.sha256].append((data, image))
        return dict(found)

    @cached_property
    def _names(self) -> set[tuple[str, str]]:
        return {(data, image.name) for data, images in self.images.items() for image in images}


# Where a source has no validation images, some of its training images become that.
_CARVED_OUT = ("train", "val")


def content_hash(sample: Sample) -> str:
    """Compute a hash of a sample's image: of the file, or of the pixels if it is within one.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    if not isinstance(sample.image, Path):
        return pixel_hash(sample.read_image())
    with sample.image.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _hashes(samples: Sequence[Sample]) -> list[str | None]:
    """Return the hash of each image, ``None`` where it cannot be read."""
    return [
        None if isinstance(found, Exception) else found
        for found in map_samples(samples, content_hash)
    ]


def _class_names(sample: Sample, class_names: Sequence[str]) -> tuple[str, ...]:
    return tuple(class_names[index] for index in classes_of(sample))
