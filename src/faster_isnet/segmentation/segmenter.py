"""Say what every segmenter does, whoever has trained it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn import functional as F

from faster_isnet.segmentation.hints import Hint
from faster_isnet.segmentation.shapes import ShapeRanges, clean, main_components


class Segmenter(ABC):
    """Find the foreground of images.

    Parameters
    ----------
    expected
        Ranges in which the shapes of plausible masks are.
    components
        Number of connected components that masks have at most, ≥ 1. ``None`` keeps the largest
        ones, which make up 95 % of what was found.
    """

    def __init__(self, expected: ShapeRanges, components: int | None) -> None:
        self.expected = expected
        self.components = components

    @abstractmethod
    def probabilities(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Compute how probable it is that each pixel is foreground.

        Parameters
        ----------
        image
            ``[C, H, W]`` in [0, 1], C 1 or 3.
        size
            Height and width of the result; by default the image's.

        Returns
        -------
        Tensor
            ``[1, *size]`` float32 in [0, 1], on the CPU.
        """

    def mask(
        self, image: Tensor, components: int | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Predict the mask of an image.

        Parameters
        ----------
        image
            ``[C, H, W]`` in [0, 1], C 1 or 3.
        components
            Number of connected components to keep; by default the segmenter's own.
        size
            Height and width of the mask; by default the image's.

        Returns
        -------
        Tensor
            ``[1, *size]`` float32 in {0, 1}, on the CPU, without holes.
        """
        return self.mask_of(self.probabilities(image, size), components)

    def mask_of(self, probabilities: Tensor, components: int | None = None) -> Tensor:
        """Return the mask ``[1, H, W]`` of what is probably foreground; see :meth:`mask`."""
        mask = (probabilities > 0.5).float()
        kept = self.components if components is None else components
        return clean(mask, max(1, main_components(mask)) if kept is None else kept)


class HintedSegmenter(ABC):
    """Find the objects of images where a hint says that they are."""

    @abstractmethod
    def at(self, hint: Hint) -> Segmenter:
        """Return what finds the objects of one image.

        Parameters
        ----------
        hint
            Of this image. Its boxes and points are compared with the image when that is given.

        Raises
        ------
        ValueError
            If the hint is of a kind that cannot be used.
        """


def resized(values: Tensor, image: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return values ``[1, C, h, w]`` in ``size``, or an image's, as ``[C, *size]``."""
    size = (image.shape[1], image.shape[2]) if size is None else size
    return F.interpolate(values, size, mode="bilinear", antialias=True)[0]
