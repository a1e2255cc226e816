"""Clean masks, and compare their shapes with what is expected of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, center_of_mass, label
from torch import Tensor


def clean(mask: Tensor, components: int) -> Tensor:
    """Keep the largest connected components of a mask, and fill their holes.

    Parameters
    ----------
    mask
        ``[1, H, W]`` in {0, 1}. Pixels are connected by their sides, not by corners.
    components
        Number of components to keep, ≥ 1.

    Returns
    -------
    Tensor
        ``[1, H, W]`` in {0, 1}.

    Examples
    --------
    >>> clean(torch.tensor([[[1.0, 0.0, 1.0, 1.0]]]), components=1)
    tensor([[[0., 0., 1., 1.]]])
    """
    labels, _ = label(mask[0].numpy())
    sizes = np.bincount(labels.ravel())[1:]
    largest = 1 + np.argsort(-sizes, kind="stable")[:components]
    filled = binary_fill_holes(np.isin(labels, largest))
    return torch.from_numpy(filled.astype(np.float32))[None]


def main_components(mask: Tensor, share: float = 0.95) -> int:
    """Count the largest connected components that make up a share of the foreground.

    Parameters
    ----------
    mask
        ``[1, H, W]`` in {0, 1}. Pixels are connected by their sides, not by corners.
    share
        In (0, 1]. By default specks of less than a twentieth in all do not count.

    Returns
    -------
    int
        At least 1; 0 without foreground.

    Examples
    --------
    >>> speck = torch.zeros(1, 10, 10)
    >>> speck[:, :8, :8] = 1
    >>> speck[:, 9, 9] = 1
    >>> main_components(speck), main_components(speck, 1.0)
    (1, 2)
    """
    labels, count = label(mask[0].numpy())
    if not count:
        return 0
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    return 1 + int(np.searchsorted(sizes.cumsum(), share * sizes.sum()))


def stability(probabilities: Tensor) -> float:
    """Compute how little a mask depends on the threshold of its probabilities.

    Parameters
    ----------
    probabilities
        ``[1, H, W]`` in [0, 1].

    Returns
    -------
    float
        Intersection over union of the masks at the thresholds 0.3 and 0.7, in [0, 1]; NaN if
        nothing is above 0.3. Kirillov et al. 2023 ("Segment Anything") call it stability score.

    Examples
    --------
    >>> stability(torch.tensor([[[0.0, 0.5, 0.9, 1.0]]]))  # doctest: +ELLIPSIS
    0.666...
    """
    larger = int((probabilities > 0.3).sum())
    return int((probabilities > 0.7).sum()) / larger if larger else float("nan")


@dataclass(frozen=True)
class Shape:
    """Describe a mask by area, number of components and centre.

    Attributes
    ----------
    area
        Foreground as a share of the image.
    components
        Number of connected components; 0 without foreground.
    row, column
        Its centre of mass, as a share of the image's height and width; NaN without foreground.
    """

    area: float
    components: int
    row: float
    column: float

    @classmethod
    def of(cls, mask: Tensor) -> Shape:
        """Measure a mask ``[1, H, W]`` in {0, 1}."""
        pixels = mask[0].numpy() == 1
        _, components = label(pixels)
        if not components:
            return cls(0.0, 0, float("nan"), float("nan"))
        # From the centres of pixels, so that the middle of the image is 0.5.
        row, column = (
            (float(centre) + 0.5) / length
            for centre, length in zip(center_of_mass(pixels), pixels.shape, strict=True)
        )
        return cls(float(pixels.mean()), components, row, column)


@dataclass(frozen=True)
class ShapeRanges:
    """Hold the smallest and the largest value of each attribute of :class:`Shape` in some masks."""

    area: tuple[float, float]
    components: tuple[int, int]
    row: tuple[float, float]
    column: tuple[float, float]

    @classmethod
    def of(cls, shapes: Iterable[Shape]) -> ShapeRanges:
        """Compute the ranges over all shapes with foreground.

        Raises
        ------
        ValueError
            If no shape has foreground.
        """
        found = [shape for shape in shapes if shape.components]
        if not found:
            raise ValueError("no mask to train on has foreground; look at the masks, 255 is inside")
        areas, counts, rows, columns = zip(
            *((shape.area, shape.components, shape.row, shape.column) for shape in found),
            strict=True,
        )
        return cls(*((min(values), max(values)) for values in (areas, counts, rows, columns)))

    def why_implausible(self, shape: Shape, tolerance: float) -> str:
        """Describe why a shape is implausible; return an empty string if it is plausible.

        Parameters
        ----------
        shape
            The shape of a mask.
        tolerance
            By how much it may exceed the ranges: the area by this share of the range's end, the
            centre by this share of the image's side; the number of components not at all.
        """
        if not shape.components:
            return "nothing was found"
        smallest, largest = self.area
        reasons = []
        if not smallest * (1 - tolerance) <= shape.area <= largest * (1 + tolerance):
            reasons.append(_outside("area", shape.area, self.area))
        for name, value, (low, high) in (
            ("centre's row", shape.row, self.row),
            ("centre's column", shape.column, self.column),
        ):
            if not low - tolerance <= value <= high + tolerance:
                reasons.append(_outside(name, value, (low, high)))
        if not self.components[0] <= shape.components <= self.components[1]:
            reasons.append(_outside("number of components", shape.components, self.components))
        return "; ".join(reasons)


OF_OBJECTS = ShapeRanges((0.01, 0.8), (1, 5), (0, 1), (0, 1))
"""What is expected of masks of any object: some pixels, not all of them, and in few pieces."""


def _outside(name: str, value: float, expected: tuple[float, float]) -> str:
    return f"{name} {value:.3g}, expected {expected[0]:.3g} to {expected[1]:.3g}"
