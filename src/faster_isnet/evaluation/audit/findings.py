"""Say what an audit found: shares of images with intervals, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from faster_isnet.evaluation.audit.auditor import AuditSettings, Measured
from faster_isnet.evaluation.audit.variants import ENLARGED, MASK_CHANGES
from faster_isnet.evaluation.intervals import Score, mean_score, original_and_resamples

TOLERATED = 0.2
"""The share of predictions that may change, where none is given."""
FEWEST = 5
"""Groups with fewer images are not judged."""
CONFIDENT = 0.5
"""The probability from which a prediction is called confident."""
ABOVE, BELOW, OPEN = "above", "below", "open"


@dataclass(frozen=True)
class RelevanceFindings:
    """Hold how much relevance lies in the background.

    Attributes
    ----------
    share
        Of the absolute relevance, in [0, 1].
    area
        The background's share of the image, which a heatmap that is the same everywhere would have
        of its relevance there.
    excess
        Share minus area: above 0 the background is looked at more than by chance.
    """

    share: Score
    area: Score
    excess: Score


@dataclass(frozen=True)
class BackgroundFindings:
    """Hold what a kind of background does to predictions.

    Attributes
    ----------
    changed
        Share of predictions that change.
    probability_change
        Mean of ½ Σ|Δp| over classes; of several labels, of the mean of |Δp|.
    """

    changed: Score
    probability_change: Score


@dataclass(frozen=True)
class ReferenceFindings:
    """Hold what a harmless change of the whole image does to predictions, for comparison.

    Attributes
    ----------
    changed
        Share of predictions that change when the image is enlarged, foreground and background
        alike, see :data:`~faster_isnet.evaluation.audit.variants.ENLARGED`.
    excess
        How much larger the share that changes with the realistic background is, of the same images.
    """

    changed: Score
    excess: Score


@dataclass(frozen=True)
class GroupFindings:
    """Hold what was found on some of the images.

    Attributes
    ----------
    name
        Of the predicted class, or of the attribute; or what the images have in common.
    images
        How many.
    changed
        Share of predictions that change with the realistic background.
    relevance
        ``None`` where no heatmaps were made.
    """

    name: str
    images: int
    changed: Score
    relevance: RelevanceFindings | None


@dataclass(frozen=True)
class MaskFindings:
    """Hold what is found with changed masks.

    Attributes
    ----------
    changed
        Share of predictions that change with the realistic background.
    area
        The background's share of the image.
    relevance
        ``None`` where no heatmaps were made.
    """

    changed: Score
    area: Score
    relevance: RelevanceFindings | None


@dataclass(frozen=True, kw_only=True)
class AuditFindings:
    """Hold all that was measured on the images of an audit.

    Attributes
    ----------
    images, groups
        Their numbers; a group holds images that belong together, such as a patient's.
    realistic
        The kind of background that is judged by.
    backgrounds
        By kind.
    unchanged_without_foreground
        Share of predictions that stay when the foreground is filled in from its surroundings.
    area
        The background's share of the image.
    relevance
        ``None`` where no heatmaps were made.
    mask_changes
        The same with masks that were grown and shrunk.
    confident
        The images whose prediction has a probability of at least :data:`CONFIDENT`; ``None`` if
        they are few. Unsure predictions change easily.
    classes, attributes
        By predicted class and by attribute, the most changed first; those with few images are left
        out.
    too_few
        Names of the classes and attributes that are left out.
    reference
        ``None`` in audits of versions that did not measure it.
    """

    images: int
    groups: int
    realistic: str
    backgrounds: dict[str, BackgroundFindings]
    unchanged_without_foreground: Score
    area: Score
    relevance: RelevanceFindings | None
    mask_changes: dict[str, MaskFindings]
    confident: GroupFindings | None
    classes: list[GroupFindings]
    attributes: list[GroupFindings]
    too_few: list[str]
    reference: ReferenceFindings | None = None

    @property
    def changed(self) -> Score:
        """Share of predictions that change with the realistic background."""
        return self.backgrounds[self.realistic].changed

    def verdict(self, limit: float) -> str:
        """Compare the share that changes with a limit by its interval.

        Returns
        -------
        str
            ``"above"`` or ``"below"`` if the whole interval is; ``"open"`` if it contains the
            limit or there is none.
        """
        low, high = self.changed.low, self.changed.high
        if low is None or high is None:
            return OPEN
        return ABOVE if low > limit else BELOW if high < limit else OPEN


def audit_findings(measured: Measured, settings: AuditSettings) -> AuditFindings:
    """Average what was measured, with intervals by resampled groups of images.

    Parameters
    ----------
    measured
        Of all images.
    settings
        Of the intervals.
    """
    table, variants = measured.images, measured.variants
    groups = np.where(table["group"] == "", table["name"], table["group"])
    mean = _Means(table, groups, settings)
    everything = np.ones(len(table), dtype=bool)
    grouped = {
        column: _groups(mean, table[column], variants.realistic)
        for column in ("predicted", "attribute")
    }
    return AuditFindings(
        images=len(table),
        groups=len(set(groups)),
        realistic=variants.realistic,
        backgrounds={
            kind: BackgroundFindings(
                mean(f"changed: {kind}", everything, is_share=True),
                mean(f"change of probabilities: {kind}", everything),
            )
            for kind in variants.backgrounds
        },
        unchanged_without_foreground=mean(
            "unchanged without foreground", everything, is_share=True
        ),
        area=mean("background area", everything),
        relevance=mean.relevance(everything),
        mask_changes={
            change: MaskFindings(
                mean(f"changed: {change}", everything, is_share=True),
                mean(f"background area: {change}", everything),
                mean.relevance(everything, f": {change}"),
            )
            for change in MASK_CHANGES
        },
        confident=_group(
            mean,
            f"a probability of at least {CONFIDENT:.0%}",
            (table["probability"] >= CONFIDENT).to_numpy(),
            variants.realistic,
        ),
        classes=grouped["predicted"][0],
        attributes=grouped["attribute"][0],
        too_few=[name for _, few in grouped.values() for name in few],
        reference=mean.reference(variants.realistic, everything),
    )


class _Means:
    """Average columns over some of the images, all by the same resamples."""

    def __init__(self, table: pd.DataFrame, groups: Sequence[str], settings: AuditSettings) -> None:
        self._table, self._level = table, settings.level
        self._weights = original_and_resamples(
            len(table), groups, settings.resamples, settings.seed
        )

    def __call__(self, column: str, chosen: npt.NDArray[np.bool_], is_share: bool = False) -> Score:
        return self._mean(self._table[column].to_numpy(), chosen, is_share)

    def relevance(
        self, chosen: npt.NDArray[np.bool_], ending: str = ""
    ) -> RelevanceFindings | None:
        if f"background share{ending}" not in self._table:
            return None
        share = self._table[f"background share{ending}"].to_numpy(np.float64)
        area = self._table[f"background area{ending}"].to_numpy(np.float64)
        area = np.where(np.isnan(share), np.nan, area)  # means of the same images
        return RelevanceFindings(
            *(self._mean(each, chosen) for each in (share, area, share - area))
        )

    def reference(self, realistic: str, chosen: npt.NDArray[np.bool_]) -> ReferenceFindings:
        changed, by_background = (
            self._table[f"changed: {kind}"].to_numpy(np.float64) for kind in (ENLARGED, realistic)
        )
        return ReferenceFindings(
            self._mean(changed, chosen, is_share=True), self._mean(by_background - changed, chosen)
        )

    def _mean(
        self,
        values: npt.NDArray[np.float64],
        chosen: npt.NDArray[np.bool_],
        is_share: bool = False,
    ) -> Score:
        return mean_score(values[chosen], self._weights[:, chosen], self._level, is_share=is_share)


def _group(
    mean: _Means, name: str, chosen: npt.NDArray[np.bool_], realistic: str
) -> GroupFindings | None:
    """Return what is found on some of the images; ``None`` if they are few."""
    count = int(chosen.sum())
    if count < FEWEST:
        return None
    changed = mean(f"changed: {realistic}", chosen, is_share=True)
    return GroupFindings(name, count, changed, mean.relevance(chosen))


def _groups(
    mean: _Means, names: pd.Series[str], realistic: str
) -> tuple[list[GroupFindings], list[str]]:
    """Return what is found on each group of enough images, and the names of the others."""
    found: list[GroupFindings] = []
    few: list[str] = []
    for name in names[names != ""].unique():
        group = _group(mean, str(name), (names == name).to_numpy(), realistic)
        if group is None:
            few.append(str(name))
        else:
            found.append(group)
    found.sort(key=lambda each: (-(each.changed.value or 0), each.name))
    return found, sorted(few)
