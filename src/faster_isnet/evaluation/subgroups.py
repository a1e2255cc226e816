"""Take what was found of the images of a subgroup: one sex, one site, one scanner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from faster_isnet.data.samples import Sample
from faster_isnet.evaluation.predictions import Predictions

MOST_VALUES = 30
"""Of a column; one with more is a number, or an identifier."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Hold what a classifier made of images.

    Attributes
    ----------
    predictions
        Of all.
    attention
        Of those with a mask, see :func:`~faster_isnet.evaluation.measure_attention`.
    replaced
        Predictions of those with a mask, in the same order, before other backgrounds, by kind.
    """

    predictions: Predictions
    attention: pd.DataFrame
    replaced: Mapping[str, Predictions]

    def take(self, chosen: Sequence[int]) -> Measured:
        """Select images by their positions among the predictions."""
        predictions = self.predictions.take(chosen)
        masked = self.attention["name"].isin(predictions.names)
        rows = [position for position, is_chosen in enumerate(masked) if is_chosen]
        replaced = {kind: found.take(rows) for kind, found in self.replaced.items() if rows}
        return Measured(predictions, self.attention[masked], replaced)


def members(samples: Iterable[Sample]) -> dict[str, dict[str, list[int]]]:
    """Return the positions of each subgroup's samples, by column and value, values sorted.

    Raises
    ------
    ValueError
        If a column has more than :data:`MOST_VALUES` values.
    """
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, sample in enumerate(samples):
        for column, value in sample.subgroups:
            found[column][value].append(position)
    for column, values in found.items():
        if len(values) > MOST_VALUES:
            raise ValueError(
                f"the column {column!r} has {len(values)} values, for example "
                f"{next(iter(values))!r}, too many for subgroups of at most {MOST_VALUES}; write "
                "a column of ranges or kinds, such as 60-69"
            )
    return {column: dict(sorted(values.items())) for column, values in found.items()}
