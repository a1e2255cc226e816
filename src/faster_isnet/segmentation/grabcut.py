"""Draw closer masks inside of those that are too large, by colours alone: GrabCut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label, maximum
from torch import Tensor

from faster_isnet.common.checks import check_range
from faster_isnet.common.opencv import opencv
from faster_isnet.data.dataset import fit_mask
from faster_isnet.data.mask_outlines import all_rectangles
from faster_isnet.segmentation.hints import Hint
from faster_isnet.segmentation.segmenter import HintedSegmenter, Segmenter, resized
from faster_isnet.segmentation.shapes import OF_OBJECTS, clean, main_components

ITERATIONS = 5
CORE, CORE_OF_BOX = 0.5, 0.7
_LONGEST = 512  # pixels of a side; larger images are made smaller, as it would take minutes
_CHANNELS = 3
_LENGTH_OF_MODEL = 65  # of OpenCV's mixture of five Gaussians


def grabcut(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    iterations: int = ITERATIONS,
    core: float | None = None,
) -> NDArray[np.bool_]:
    """Find the object inside of a mask that is too large, such as a box.

    GrabCut (Rother et al., SIGGRAPH 2004, by OpenCV's ``cv2.grabCut``) describes the colours
    outside of the mask and those inside, moves pixels inside that look like the outside to the
    background, with outlines along edges, and repeats. So it knows colours alone: where object
    and background have the same, as in most radiographs, what it finds means little.

    Parameters
    ----------
    image
        ``[H, W, 3]``.
    mask
        ``[H, W]``; what is outside is background for certain.
    iterations
        How often the colours are described anew, ≥ 1.
    core
        Pixels deeper inside a part of the mask than this share of its greatest depth are foreground
        for certain, in [0, 1]; with 1 none are. By default 0.5, or 0.7 if all parts are rectangles,
        whose middle is less surely of the object: with 1, one mask in twenty had collapsed.

    Returns
    -------
    numpy.ndarray
        ``[H, W]``, within ``mask``: the connected components that make up 95 % of what was found,
        without holes. Nothing, if ``mask`` is empty, or if it is all of the image, since then
        nothing tells what the background looks like. The same in each call.

    Raises
    ------
    ValueError
        If the image is no such array, the mask has another size, or a number is out of range.
    ImportError
        If OpenCV is not installed.

    Examples
    --------
    >>> image = np.full((40, 40, 3), 60, dtype=np.uint8)
    >>> image[10:24, 10:24] = 200
    >>> box = np.zeros((40, 40), dtype=bool)
    >>> box[5:30, 5:30] = True
    >>> found = grabcut(image, box)
    >>> int(found.sum()), bool(found[10:24, 10:24].all())
    (196, True)
    """
    cv2 = require_opencv()
    _check(image, mask)
    check_range("iterations", iterations, 1)
    if core is None:
        core = CORE_OF_BOX if all_rectangles(mask) else CORE
    check_range("core", core, 0, 1)
    if mask.all() or not mask.any():
        return np.zeros_like(mask)
    marks = np.where(mask, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    marks[_relative_depth(mask) > core] = cv2.GC_FGD
    models = np.zeros((1, _LENGTH_OF_MODEL)), np.zeros((1, _LENGTH_OF_MODEL))
    cv2.setRNGSeed(0)  # of the first clusters of colours
    cv2.grabCut(
        np.ascontiguousarray(image), marks, None, *models, iterations, cv2.GC_INIT_WITH_MASK
    )
    found = torch.from_numpy((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).float()[None]
    cleaned: NDArray[np.bool_] = clean(found, main_components(found))[0].numpy() == 1
    return cleaned & mask  # the mask's own holes stay


def require_opencv() -> Any:
    """Return OpenCV; raise an ``ImportError`` with the cure if it is not installed."""
    return opencv("GrabCut", "grabcut")


def _check(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"GrabCut reads images of uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
        )
    if mask.dtype != np.bool_ or mask.shape != image.shape[:2]:
        raise ValueError(
            f"the mask must be bool {list(image.shape[:2])} as the image is, got {mask.dtype} "
            f"{list(mask.shape)}"
        )


def _relative_depth(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return distances from the outline over the greatest one of the part; 0 outside."""
    depth = distance_transform_edt(mask)
    parts, count = label(mask)
    greatest = np.array([1.0, *maximum(depth, parts, range(1, count + 1))])
    relative: NDArray[np.float64] = depth / greatest[parts]
    return relative


class GrabCutSegmenter(HintedSegmenter):
    """Find what differs in its colours from what is around the boxes or masks that are given.

    See :func:`grabcut`. Images whose longest side is above 512 pixels are made smaller for it.

    Raises
    ------
    ImportError
        If OpenCV is not installed.
    """

    def __init__(self) -> None:
        require_opencv()

    def at(self, hint: Hint) -> Segmenter:
        """See :meth:`HintedSegmenter.at`; there must be no points."""
        if hint.points:
            raise ValueError(
                f"{hint.points[0].where}: GrabCut reads boxes or masks, and no points; leave out "
                "--points, or choose --with sam2"
            )
        return _GrabCutAt(hint)


class _GrabCutAt(Segmenter):
    def __init__(self, hint: Hint) -> None:
        super().__init__(OF_OBJECTS, None)
        self._hint = hint

    def probabilities(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """See :meth:`Segmenter.probabilities`; 0 outside of the hint, and else nearly 0 or 1."""
        height, width = image.shape[1:]
        region = self._hint.region((height, width))
        scale = min(1.0, _LONGEST / max(height, width))
        smaller = max(1, round(height * scale)), max(1, round(width * scale))
        colours = image / image.max().clamp(min=torch.finfo(image.dtype).eps)
        colours = resized(colours.expand(_CHANNELS, -1, -1)[None], image, smaller)
        pixels = (colours.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        found = grabcut(pixels, fit_mask(region, smaller)[0].numpy() == 1)
        inside = resized(torch.from_numpy(found).float()[None, None], image, size)
        return inside * fit_mask(region, inside.shape[1:])

    def mask_of(self, probabilities: Tensor, components: int | None = None) -> Tensor:
        """See :meth:`Segmenter.mask_of`; holes of the hint stay holes."""
        return super().mask_of(probabilities, components) * (probabilities > 0)
