"""Declare what is measured, each measure once: name, title, unit, direction and function.

Tables, plots, JSON files and comparisons follow from these declarations. To add a measure of your
own without changing the package, pass ``measures=(*MEASURES, yours)`` to
:class:`~faster_isnet.evaluation.evaluator.Evaluator`, :func:`~faster_isnet.evaluation.scores` and
the other functions that take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from faster_isnet.common.checks import check_choice
from faster_isnet.evaluation import changes, classification, localisation
from faster_isnet.evaluation.changes import Change
from faster_isnet.evaluation.classification import Outcomes
from faster_isnet.evaluation.intervals import Floats, Score

MEASURE_KINDS = ("overall", "class", "attention", "sensitivity")
PERCENT = "%"
BACKGROUND_SHARE, BACKGROUND_AREA = "background_share", "background_area"
RESERVED_NAMES = ("images", "groups", "macro", "classes", "confusion", "backgrounds")
"""What stands beside the measures in files."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Describe a measure: what it is called, and how its values are shown.

    What is computed is declared by the subclasses; a measure that was read from a file is one of
    this class, since a file holds no functions.

    Parameters
    ----------
    name
        By which results and files name it: an identifier, with blanks for underscores in files.
    kind
        ``"overall"``, ``"class"``, ``"attention"`` or ``"sensitivity"``; set by the subclasses.
    title
        The head of its columns.
    description
        What the value means, in a few words.
    unit
        ``"%"`` for fractions, which are shown in percent and their differences in points; any
        other unit (or none, ``""``) is written behind the number as it is.
    better
        ``"higher"`` or ``"lower"``; ``None`` where neither is better.
    interval
        Whether it has a confidence interval.
    highlighted
        Whether a measure of attention or sensitivity is also drawn as bars, and printed by the
        command line; measures of scores always are printed.

    Raises
    ------
    ValueError
        If the name is no identifier or is reserved, or a kind or direction is unknown.

    Examples
    --------
    >>> MEASURES[0].title, MEASURES[0].show(0.975), MEASURES[0].show_difference(-0.02)
    ('Accuracy', '97.5 %', '-2.0')
    """

    name: str
    kind: str
    title: str
    description: str = ""
    unit: str = PERCENT
    better: str | None = "higher"
    interval: bool = True
    highlighted: bool = False

    def __post_init__(self) -> None:
        """Check the name, the kind and the direction."""
        if not self.name.isidentifier() or self.name in RESERVED_NAMES:
            raise ValueError(
                f"a measure's name must be an identifier, and none of {list(RESERVED_NAMES)}, got "
                f"{self.name!r}"
            )
        check_choice("kind of measure", self.kind, MEASURE_KINDS)
        if self.better is not None:
            check_choice("direction of a measure", self.better, ("higher", "lower"))

    def show(self, value: float) -> str:
        """Return a value as text."""
        if self.unit == PERCENT:
            return f"{100 * value:.1f} %"
        return f"{value:.3g} {self.unit}".rstrip()

    def show_difference(self, value: float) -> str:
        """Return a difference as text: with its sign, and in points where values are in percent."""
        return f"{100 * value:+.1f}" if self.unit == PERCENT else f"{value:+.3g}"

    def show_interval(self, low: float, high: float, difference: bool = False) -> str:
        """Return the ends of an interval, of values or of differences, as text."""
        if difference:
            return f"{self.show_difference(low)} to {self.show_difference(high)}"
        if self.unit == PERCENT:
            return f"{100 * low:.1f} to {100 * high:.1f}"
        return f"{low:.3g} to {high:.3g}"

    def improves(self, difference: Score) -> bool | None:
        """Return whether a difference is for the better, ``None`` if that is not known.

        It is not known where the interval contains 0 or is missing, or no direction is better.
        """
        low, high = difference.low, difference.high
        if self.better is None or low is None or high is None or low <= 0 <= high:
            return None
        return (low > 0) == (self.better == "higher")


@dataclass(frozen=True, kw_only=True)
class OverallMeasure(Measure):
    """Declare a measure of all predictions together.

    Parameters
    ----------
    function
        Returns ``[rows]``, a value for each row of weights; NaN where there is none.
    counted
        If it is a share of images: returns of which, ``[N, 1]``, or ``[N, C]`` for the mean of the
        classes' shares. Then one of 0 or 1 has an exact interval; all resamples agree on it.
    """

    kind: str = "overall"
    function: Callable[[Outcomes], Floats]
    counted: Callable[[Outcomes], npt.NDArray[np.bool_]] | None = None


@dataclass(frozen=True, kw_only=True)
class ClassMeasure(Measure):
    """Declare a measure of each class against all others; its mean over classes is shown too.

    Parameters
    ----------
    function
        Returns ``[rows, C]``, a value for each row of weights and class; NaN where there is none.
    counted
        If it is a share of images: returns of which, ``[N, C]``, as above.
    class_score
        Returns one class's value with an interval that is not of resamples, from whether images
        have the class ``[N]``, its probabilities ``[N]``, and the level.
    class_difference
        The same for the difference of two classifiers, second minus first, from whether images have
        the class, the first's and the second's probabilities, and the level.
    """

    kind: str = "class"
    function: Callable[[Outcomes], Floats]
    counted: Callable[[Outcomes], npt.NDArray[np.bool_]] | None = None
    class_score: Callable[[npt.NDArray[np.bool_], Floats, float], Score] | None = None
    class_difference: Callable[[npt.NDArray[np.bool_], Floats, Floats, float], Score] | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionMeasure(Measure):
    """Declare a measure of heatmaps and masks, of which the mean over images is reported.

    Parameters
    ----------
    function
        Returns ``[B]`` from heatmaps ``[B, K, C, H, W]`` and masks ``[B, 1, H, W]`` in {0, 1}.
    """

    kind: str = "attention"
    function: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class SensitivityMeasure(Measure):
    """Declare a measure of how predictions change, of which the mean over images is reported.

    Parameters
    ----------
    function
        Returns ``[N]``, a value for each image.
    compares
        Whether it compares predictions before and after a change, and so means nothing for images
        that were not changed; ``False`` for one that describes the predictions after it alone.
    is_share
        Whether its mean is the share of images of which something is true; then one of 0 or 1 has
        an exact interval; all resamples agree on it.
    """

    kind: str = "sensitivity"
    function: Callable[[Change], Floats]
    compares: bool = True
    is_share: bool = False


MEASURES: tuple[Measure, ...] = (
    OverallMeasure(
        name="accuracy",
        title="Accuracy",
        description="share of images that are classified correctly (multi-label: of labels)",
        function=classification.share_correct,
        counted=classification.all_images,
    ),
    OverallMeasure(
        name="balanced_accuracy",
        title="Balanced accuracy",
        description="mean of the classes' recalls (multi-label: of recalls and specificities)",
        function=classification.balanced_accuracy,
        counted=classification.with_class,
    ),
    OverallMeasure(
        name="brier_score",
        title="Brier score",
        description="mean of Σ(p − y)² over classes (multi-label: of (p − y)²); 0 is best",
        unit="",
        better="lower",
        function=classification.brier_score,
    ),
    OverallMeasure(
        name="calibration_error",
        title="Calibration error",
        description="expected gap between the confidence and the share that are right, in 15 bins; "
        "of few images it is too large",
        better="lower",
        interval=False,  # resamples are further off than the images themselves
        function=classification.calibration_error,
    ),
    ClassMeasure(
        name="precision",
        title="Precision",
        description="of the images that are assigned the class, the share that have it",
        function=classification.precision,
        counted=classification.decided_class,
    ),
    ClassMeasure(
        name="recall",
        title="Recall",
        description="of the images with the class, the share that are assigned it",
        function=classification.recall,
        counted=classification.with_class,
    ),
    ClassMeasure(
        name="specificity",
        title="Specificity",
        description="of the images without the class, the share that are not assigned it",
        function=classification.specificity,
        counted=classification.without_class,
    ),
    ClassMeasure(
        name="f1",
        title="F1",
        description="harmonic mean of precision and recall",
        function=classification.f1,
        counted=classification.with_or_decided_class,
    ),
    ClassMeasure(
        name="auc",
        title="AUC",
        description="area under the ROC curve",
        function=classification.auc,
        class_score=classification.auc_score,
        class_difference=classification.auc_difference_score,
    ),
    ClassMeasure(
        name="average_precision",
        title="Average precision",
        description="mean precision over thresholds: area under the precision-recall curve; by "
        "chance it is the share of images with the class",
        function=classification.average_precision,
    ),
    AttentionMeasure(
        name=BACKGROUND_SHARE,
        title="Relevance in the background",
        description="share of the absolute relevance outside of the mask",
        better="lower",
        highlighted=True,
        function=localisation.background_share,
    ),
    AttentionMeasure(
        name=BACKGROUND_AREA,
        title="Area of the background",
        description="share of the image outside of the mask: what a heatmap that is the same "
        "everywhere would have of its relevance there",
        better=None,
        function=localisation.background_area,
    ),
    AttentionMeasure(
        name="mass_accuracy",
        title="Mass accuracy",
        description="share of the positive relevance inside of the mask",
        function=localisation.relevance_mass_accuracy,
    ),
    AttentionMeasure(
        name="rank_accuracy",
        title="Rank accuracy",
        description="share of the most relevant pixels, as many as the mask has, inside of it",
        function=localisation.relevance_rank_accuracy,
    ),
    SensitivityMeasure(
        name="changed",
        title="Predictions that change",
        description="share of images whose predicted class changes (multi-label: of labels)",
        better="lower",
        highlighted=True,
        function=changes.changed,
        is_share=True,
    ),
    SensitivityMeasure(
        name="probability_change",
        title="Change of probabilities",
        description="mean of ½ Σ|Δp| over classes (multi-label: of |Δp|)",
        better="lower",
        function=changes.probability_change,
    ),
    SensitivityMeasure(
        name="accuracy",
        title="Accuracy",
        description="share of images that are still classified correctly (multi-label: of labels)",
        function=changes.accuracy_after,
        is_share=True,
        compares=False,
    ),
)
"""All measures of the package; the order is that of the columns."""

_M = TypeVar("_M", bound=Measure)


def of_type(measures: Iterable[Measure], kind: type[_M]) -> list[_M]:
    """Return the measures that are declared by a class, in order."""
    return [measure for measure in measures if isinstance(measure, kind)]


def check_measures(measures: Sequence[Measure]) -> None:
    """Raise ``ValueError`` if two measures of a kind have one name, or one needed is missing."""
    keys = [(measure.kind, measure.name) for measure in measures]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        kind, name = twice[0]
        raise ValueError(f"two measures of the kind {kind!r} are called {name!r}; rename one")
    if ("attention", BACKGROUND_SHARE) not in keys:
        raise ValueError(
            f"measures lack {BACKGROUND_SHARE!r}, by which pictures are chosen; add to MEASURES: "
            "(*MEASURES, yours)"
        )
