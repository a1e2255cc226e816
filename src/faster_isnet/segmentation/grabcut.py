"""Draw closer masks inside of those that are too large, by colours alone: GrabCut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from faster_isnet.common.opencv import opencv
from faster_isnet.segmentation.shapes import clean, main_components

ITERATIONS = 5
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
        Pixels deeper inside the mask than this share of its greatest depth are foreground for
        certain, in [0, 1]; by default none are.

    Returns
    -------
    numpy.ndarray
        ``[H, W]``, within ``mask``: the connected components that make up 95 % of what was found,
        without holes. Nothing, if nothing was found, or ``mask`` is empty. The same in each call.

    Raises
    ------
    ValueError
        If the image is no such array, the mask has another size, or covers the whole image, so that
        nothing tells what the background looks like.
    ImportError
        If OpenCV is not installed.

    Examples
    --------
    >>> image = np.full((40, 40, 3), 60, dtype=np.uint8)
    >>> image[10:20, 10:20] = 200
    >>> box = np.zeros((40, 40), dtype=bool)
    >>> box[5:30, 5:30] = True
    >>> found = grabcut(image, box)
    >>> int(found.sum()), bool(found[10:20, 10:20].all())
    (100, True)
    """
    cv2 = require_opencv()
    _check(image, mask)
    if not mask.any():
        return np.zeros_like(mask)
    marks = np.where(mask, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    if core is not None:
        depth = distance_transform_edt(mask)
        marks[depth > core * depth.max()] = cv2.GC_FGD
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
    if mask.all():
        raise ValueError(
            "the mask covers the whole image, so nothing tells what the background looks like; "
            "draw a smaller one"
        )
