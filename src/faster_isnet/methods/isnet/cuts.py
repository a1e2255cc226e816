"""Store C1 and C2, the range of foreground relevance without penalty (method §5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from faster_isnet.common.checks import check_range

IMAGE = "image"
"""Name of the image's heatmap, beside the names of supervised layers."""

AUTO = "auto"
"""Value of options that are left to what is found: C1 and C2, P, the supervised layers."""

Cut = float | Sequence[float] | Mapping[str, float | Sequence[float]]
"""C1 or C2: one for all heatmaps, one for each heatmap of a sample, or by layer."""

_ALL = ""


@dataclass(frozen=True)
class Cuts:
    """Store C1 and C2 of every layer and heatmap.

    Attributes
    ----------
    low, high
        C1 and C2 by layer, one for each heatmap of a sample or one for all; the layer ``""``
        stands for all layers.
    """

    low: Mapping[str, tuple[float, ...]]
    high: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, low: Cut, high: Cut) -> Cuts:
        """Convert the arguments ``cut_low`` and ``cut_high`` of :class:`~faster_isnet.ISNetLoss`.

        Raises
        ------
        TypeError
            If one is not a number.
        ValueError
            If a C1 is not positive, or a C2 below its C1; if layers or numbers of heatmaps
            differ.

        Examples
        --------
        >>> Cuts.of({"image": [1, 2], "layer1": 3}, 25).for_heatmaps("image", 2)
        ((1, 2), (25, 25))
        """
        cuts = cls(_table("cut_low", low), _table("cut_high", high))
        for layer in (cuts.low.keys() | cuts.high.keys()) - {_ALL} or {_ALL}:
            sizes = {len(_find(table, layer)) for table in (cuts.low, cuts.high)}
            size = max(sizes)
            if sizes - {1, size}:
                raise ValueError(
                    f"cut_low and cut_high must have as many values as there are heatmaps a "
                    f"sample, got {low!r} and {high!r}"
                )
            for c1, c2 in zip(*cuts.for_heatmaps(layer, size), strict=True):
                check_range("cut_high", c2, c1)
        return cuts

    def for_heatmaps(
        self, layer: str, heatmaps: int
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return C1 and C2 of a layer for each heatmap of a sample.

        Raises
        ------
        ValueError
            If there are none for that layer, or for another number of heatmaps.
        """
        both = (_find(table, layer) for table in (self.low, self.high))
        c1, c2 = (_repeated(cuts, layer, heatmaps) for cuts in both)
        return c1, c2


def _table(kind: str, cut: Cut) -> Mapping[str, tuple[float, ...]]:
    by_layer = cut if isinstance(cut, Mapping) else {_ALL: cut}
    return {
        layer: tuple(
            check_range(kind, value, 0, open_low=True)
            for value in (one if isinstance(one, Sequence) else (one,))
        )
        for layer, one in by_layer.items()
    }


def _find(table: Mapping[str, tuple[float, ...]], layer: str) -> tuple[float, ...]:
    found = table.get(layer) or table.get(_ALL)
    if found is None:
        raise ValueError(
            f"no C1 or C2 for layer {layer!r}, only for {list(table)}; calibrate with the layers "
            "that are supervised, or give a number for all"
        )
    return found


def _repeated(cuts: tuple[float, ...], layer: str, heatmaps: int) -> tuple[float, ...]:
    if len(cuts) not in (1, heatmaps):
        raise ValueError(
            f"layer {layer!r} has {heatmaps} heatmaps a sample, but C1 or C2 {cuts}; give one for "
            "all or one for each"
        )
    return cuts * (heatmaps // len(cuts))
