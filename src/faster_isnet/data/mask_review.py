"""Use what a person decided about masks: which are right, wrong, or to be drawn anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from faster_isnet.common.checks import check_choice
from faster_isnet.common.spreadsheets import original_cell
from faster_isnet.data.sample_tables import read_cells
from faster_isnet.data.samples import Sample

log = logging.getLogger(__name__)

ACCEPT, REJECT, DRAW = DECISIONS = ("accept", "reject", "draw")
_COLUMNS = ("image", "decision")


@dataclass(frozen=True)
class MaskReview:
    """Hold decisions about masks.

    Parameters
    ----------
    decisions
        ``"accept"``, ``"reject"`` (the image cannot be used with masks) or ``"draw"`` (the mask is
        to be drawn again), by the image: the end of its path, in parts that ``/`` separates.

    Raises
    ------
    ValueError
        If a decision is another.

    Examples
    --------
    >>> review = MaskReview({"cats/1.png": "draw"})
    >>> samples = [Sample(Path("data/cats/1.png"), 0, mask=Path("masks/cats/1.png"))]
    >>> review.apply(samples)[0].mask is None
    True
    """

    decisions: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check the decisions."""
        for decision in self.decisions.values():
            check_choice("decision", decision, DECISIONS)

    @classmethod
    def load(cls, path: str | Path) -> MaskReview:
        """Read the table that the review page of ``faster-isnet segment`` saves.

        Parameters
        ----------
        path
            A CSV or Parquet file with the columns ``image`` and ``decision``.

        Raises
        ------
        FileNotFoundError
            If it is missing.
        ValueError
            If it is no such table, a decision is unknown, or an image has two.
        """
        table = read_cells(Path(path))
        if missing := [name for name in _COLUMNS if name not in table]:
            raise ValueError(
                f"{str(path)!r} has no column {missing[0]!r}; name the file that the review page "
                "of faster-isnet segment saved"
            )
        images = [original_cell(image) for image in table["image"]]
        if twice := table["image"][table["image"].duplicated()].tolist():
            raise ValueError(f"{str(path)!r} has two decisions on {twice[0]!r}; leave one")
        try:
            return cls(dict(zip(images, table["decision"], strict=True)))
        except ValueError as error:
            raise ValueError(f"{str(path)!r}: {error}") from error

    def apply(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return samples without the masks that are rejected or to be drawn.

        Raises
        ------
        ValueError
            If none of the images is among the samples, or one is the end of two samples' paths.
        """
        images = self._images_of(samples)
        if self.decisions and not images:
            raise ValueError(
                f"none of the {len(self.decisions)} images of the mask review is among the data's, "
                f"such as {next(iter(self.decisions))!r}; name the review of these images"
            )
        by_image: dict[str, str] = {}
        for name, image in images.items():
            if image in by_image:
                raise ValueError(
                    f"{image!r} of the mask review may be {by_image[image]!r} or {name!r}; write "
                    "more of the path"
                )
            by_image[image] = name
        if unknown := self.decisions.keys() - by_image.keys():
            log.warning(
                "%d of the %d images of the mask review are not among the data, such as %r",
                *(len(unknown), len(self.decisions), min(unknown)),
            )
        refused = {name for name, image in images.items() if self.decisions[image] != ACCEPT}
        return [replace(each, mask=None) if each.name in refused else each for each in samples]

    def rejected(self, samples: Sequence[Sample]) -> set[str]:
        """Return the names of those samples whose masks are rejected."""
        images = self._images_of(samples)
        return {name for name, image in images.items() if self.decisions[image] == REJECT}

    def _images_of(self, samples: Sequence[Sample]) -> dict[str, str]:
        """Return the image of the review for each sample, by its name, that has one."""
        by_parts = {PurePosixPath(image).parts: image for image in self.decisions}
        lengths = {len(parts) for parts in by_parts}
        found = {}
        for sample in samples:
            parts = Path(sample.name).parts
            ends = (parts[-length:] for length in lengths)
            if known := max((end for end in ends if end in by_parts), key=len, default=None):
                found[sample.name] = by_parts[known]
        return found
