"""Hold what an evaluation finds, as typed results that know nothing of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.opinions import (
    Agreement,
    DrawnOpinion,
    PicturedImage,
    SavedOpinion,
    agreement,
)

Counts = tuple[tuple[int, ...], ...]
"""A table of numbers of images: a row for each true class, a column for each predicted one."""
ScoreByName = Mapping[str, Score]
"""Scores by the names of their measures, see :mod:`faster_isnet.evaluation.measures`."""


@dataclass(frozen=True)
class ClassScores:
    """Hold the scores of one class.

    Attributes
    ----------
    images
        How many images have the class.
    scores
        By measure.
    """

    images: int
    scores: ScoreByName


@dataclass(frozen=True)
class Confusion:
    """Hold how often each true class was predicted as each class.

    Attributes
    ----------
    tables
        One ``[C, C]`` table; if multi-label a ``[2, 2]`` table (no, yes) for each class.
    multilabel
        Which of the two.
    """

    tables: tuple[Counts, ...]
    multilabel: bool


@dataclass(frozen=True)
class Scores:
    """Hold the scores of predictions on one data set.

    Attributes
    ----------
    images, groups
        Their numbers; a group holds images that belong together, such as a patient's.
    overall
        Measures of all predictions together.
    macro
        Means of the classes' measures, over the classes that have a value.
    classes
        By class name.
    confusion
        Counts of true and predicted classes.
    """

    images: int
    groups: int
    overall: ScoreByName
    macro: ScoreByName
    classes: Mapping[str, ClassScores]
    confusion: Confusion


@dataclass(frozen=True)
class Differences:
    """Hold how a second classifier's scores differ from a first one's (second minus first).

    The attributes are those of :class:`Scores`; a class's AUC has the ``p`` of DeLong's test.
    """

    images: int
    overall: ScoreByName
    macro: ScoreByName
    classes: Mapping[str, ClassScores]


@dataclass(frozen=True)
class Attention:
    """Hold where the relevance of heatmaps lies, as means over images that have a mask.

    Attributes
    ----------
    images
        How many have a mask.
    overall
        Over all of them.
    classes
        Over those of each true class.
    """

    images: int
    overall: ScoreByName
    classes: Mapping[str, ClassScores]


@dataclass(frozen=True)
class Sensitivity:
    """Hold how predictions change when the background of images is replaced.

    Attributes
    ----------
    images
        How many have a mask.
    untouched
        Measures of these images as they are.
    backgrounds
        By kind of background, measures of the images with that background.
    """

    images: int
    untouched: ScoreByName
    backgrounds: Mapping[str, ScoreByName]


@dataclass(frozen=True)
class OperatingPoint:
    """Hold how a class is told from all others at a threshold of its probability.

    Attributes
    ----------
    threshold
        The lowest probability that assigns the class; infinite if none does.
    sensitivity, specificity
        Shares of the images with the class that are assigned it, and of those without that are not.
    """

    threshold: float
    sensitivity: Score
    specificity: Score


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Describe a picture of an image beside its heatmap.

    Attributes
    ----------
    kind
        ``"example"``, or ``"worst"`` for one of those with the most relevance in the background.
    image
        Its name.
    label, predicted
        Names of its true and its predicted classes.
    right
        Whether these are the same.
    background_share
        Of the absolute relevance, in [0, 1]; ``None`` if the image has no mask.
    background_area
        The part of the image that is background; ``None`` if it has no mask, or in results of
        earlier versions.
    """

    kind: str
    image: str
    label: str
    predicted: str
    right: bool
    background_share: float | None
    background_area: float | None = None


@dataclass(frozen=True, kw_only=True)
class DrawnPicture(Picture):
    """Hold a picture's PNG with its description, and what several methods say of the image."""

    png: bytes
    opinions: Sequence[DrawnOpinion] = ()


@dataclass(frozen=True, kw_only=True)
class SavedPicture(Picture):
    """Name the file that holds a picture, relative to the evaluation's folder.

    ``opinions`` are empty if no second opinion was asked.
    """

    file: str
    opinions: Sequence[SavedOpinion] = ()


@dataclass(frozen=True, kw_only=True)
class Results:
    """Hold all that was measured on one data set.

    Attributes
    ----------
    thresholds
        Of a multi-label classifier, by class; ``None`` otherwise.
    scores
        Of the predictions.
    attention, sensitivity
        ``None`` where fewer than two images have a mask.
    operating_points
        By class, at thresholds that were chosen on validation images; empty if none were.
    subgroups
        The same of images with one value of a column, such as one sex, by column and value; these
        have no subgroups of their own.
    """

    thresholds: Mapping[str, float] | None
    scores: Scores
    attention: Attention | None
    sensitivity: Sensitivity | None
    operating_points: Mapping[str, OperatingPoint] = field(default_factory=dict)
    subgroups: Mapping[str, Mapping[str, Results]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SavedResults(Results):
    """Hold results that were read from a file, and which pictures belong to them."""

    pictures: Sequence[SavedPicture]

    @property
    def agreements(self) -> dict[str, Agreement]:
        """Whether the second opinion agrees with LRP, by the pictures' kind; empty if not asked."""
        return agreements(self.pictures)


def agreements(pictures: Sequence[SavedPicture]) -> dict[str, Agreement]:
    """Compare what methods say of pictures, by their kind: those of one are chosen by LRP."""
    found = {
        kind: agreement(
            PicturedImage(each.image, each.background_area, each.opinions)
            for each in pictures
            if each.kind == kind
        )
        for kind in dict.fromkeys(each.kind for each in pictures)
    }
    return {kind: each for kind, each in found.items() if each is not None}
