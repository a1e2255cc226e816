"""Find masks whose outlines are not those of what is in the images: boxes, too large or small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torchvision.transforms import v2

from faster_isnet.data.dataset import fit_mask
from faster_isnet.data.masks import with_margin

SIDE = 100
"""Pixels that images are resized to, so that distances are in percent of the side."""
_FARTHEST, _NEAR = 14, 1  # from the outline, in percent of the side
_WIDTH = 4  # of an edge, as a peak of the gradient must be higher than what lies so far from it
_BORDER = 3  # pixels at the image's border, where the gradient is that of the padding
_FEWEST_PIXELS = 20  # at a distance, for a mean
_FEWEST_MASKS, _FEWEST_FOR_EDGES = 10, 30
_LEFT = 0.1  # of the foreground, or the margin is meant for other pixels
_LEAST_SIDE = 4  # pixels of a rectangle
_OFFSET = 4  # percent; outlines that were drawn with care were found up to 3 % outside of the edges
_SHARE = 0.75  # of the images, in which edges must lie there rather than on the outline

Profile = NDArray[np.float64]


@dataclass(frozen=True)
class MaskOutline:
    """What an image and its mask tell of how close the mask is.

    Attributes
    ----------
    is_rectangles
        Whether each connected part of the foreground is a rectangle.
    left
        What is left of the foreground's area by the margin, as a share; above 1 if it grows.
    profile
        Mean gradient of the image by the distance from the mask's outline, negative inside, over
        the mean of all; NaN where there are too few pixels.
    """

    is_rectangles: bool
    left: float
    profile: Profile

    @classmethod
    def of(cls, image: Tensor, mask: Tensor, margin: float = 0.0) -> MaskOutline:
        """Look at an image and its mask.

        Parameters
        ----------
        image
            ``[C, H, W]`` in [0, 1].
        mask
            ``[1, H, W]`` in {0, 1}.
        margin
            By which the mask is grown before it is used (shrunk if negative), as a share of the
            side.
        """
        given = fit_mask(mask, (SIDE, SIDE))
        used = with_margin(given, margin * SIDE)
        foreground = used[0].numpy() == 1
        small = v2.functional.resize(image, [SIDE, SIDE], antialias=True).mean(dim=0).numpy()
        gradient = ndimage.gaussian_gradient_magnitude(small, sigma=1.0)
        left = float(used.sum() / given.sum().clamp(min=1))
        return cls(all_rectangles(mask[0].numpy() == 1), left, _profile(gradient, foreground))


def outline_doubts(outlines: Sequence[MaskOutline], margin: float = 0.0) -> list[str]:
    """Say in words if most masks are rectangles, or lie beside the images' edges all alike.

    An outline lies where an image changes most. So the gradient of the images is averaged by the
    distance from the outline; if it has its peak elsewhere, in most images alike, masks are larger
    or smaller than what they are of. On photographs, radiographs and blood cells whose masks were
    grown by 5 or 10 % of the side that was found to within 3 %, and nothing with masks as they are.

    Parameters
    ----------
    outlines
        Of masks with foreground. Of fewer than ten nothing is said, and of fewer than thirty
        nothing of edges.
    margin
        By which they have been grown already, as a share of the side.

    Returns
    -------
    list of str
        At most one sentence.
    """
    count = len(outlines)
    if count < _FEWEST_MASKS:
        return []
    rectangles = sum(each.is_rectangles for each in outlines)
    if rectangles > count / 2:
        return [
            f"{rectangles} of {count} masks looked at are rectangles. What lies between an object "
            "and its rectangle is kept in every image, so what gives the class away there is "
            "learnt; closer masks: faster-isnet segment auto --with grabcut --boxes MASKS (or sam2)"
        ]
    lost = sum(each.left < _LEFT for each in outlines)
    if margin < 0 and lost > count / 2:
        return [
            f"data.mask_margin, {margin:+.2f} times data.size, leaves less than {_LEFT:.0%} of the "
            f"foreground in {lost} of {count} masks looked at; it is in pixels of data.size, so "
            "take a smaller one"
        ]
    if count < _FEWEST_FOR_EDGES:
        return []
    offset, share = _edge_offset(np.stack([each.profile for each in outlines]))
    by_chance = 0.5 + 2 / math.sqrt(count)  # four standard deviations, since the peak is chosen
    if abs(offset) < _OFFSET or share < max(_SHARE, by_chance):
        return []
    where, what, cure = (
        ("inside", "too large, what lies between is kept in every image and learnt", "shrinks")
        if offset < 0
        else ("outside", "too small, what lies between is taken for background", "grows")
    )
    return [
        f"edges in the images lie about {abs(offset)} % of the side {where} the masks' outlines, "
        f"in {share:.0%} of {count} images looked at. If the masks are {what}: data.mask_margin of "
        f"fit {cure} them, in pixels of data.size (here {margin + offset / SIDE:+.2f} times it)"
    ]


def all_rectangles(foreground: NDArray[np.bool_]) -> bool:
    """Return whether each part is a rectangle of more than a few pixels, which anything may be."""
    parts, _ = ndimage.label(foreground)
    boxes = ndimage.find_objects(parts)
    return bool(boxes) and all(
        bool(foreground[box].all()) and min(side.stop - side.start for side in box) >= _LEAST_SIDE
        for box in boxes
    )


def _profile(gradient: NDArray[np.float32], foreground: NDArray[np.bool_]) -> Profile:
    if foreground.all() or not foreground.any():
        return np.full(2 * _FARTHEST + 1, np.nan)
    inside = ndimage.distance_transform_edt(foreground)
    outside = ndimage.distance_transform_edt(~foreground)
    distance = np.floor(np.where(foreground, 0.5 - inside, outside - 0.5)).astype(int)
    used = np.abs(distance) <= _FARTHEST + 1
    used[:_BORDER] = used[-_BORDER:] = used[:, :_BORDER] = used[:, -_BORDER:] = False
    index, length = distance[used] + _FARTHEST + 1, 2 * _FARTHEST + 3
    ring = np.ones(3)  # pixels wide
    total = np.convolve(np.bincount(index, gradient[used], length), ring, "valid")
    pixels = np.convolve(np.bincount(index, minlength=length), ring, "valid")
    profile = np.where(pixels >= _FEWEST_PIXELS, total / np.maximum(pixels, 1), np.nan)
    known = profile[~np.isnan(profile)]
    return profile / max(known.mean(), 1e-12) if len(known) else profile


def _edge_offset(profiles: Profile) -> tuple[int, float]:
    """Return where most edges lie, and in what share of all images rather there than at 0."""
    beside = (profiles[:, : -2 * _WIDTH] + profiles[:, 2 * _WIDTH :]) / 2
    height = profiles[:, _WIDTH:-_WIDTH] - beside
    count = (~np.isnan(height)).sum(axis=0)
    if 2 * count.max() < len(height):
        return 0, 0.0
    means = np.nansum(height, axis=0) / np.maximum(count, 1)
    means[2 * count < len(height)] = -np.inf  # few images reach so far
    peak, zero = int(np.argmax(means)), _FARTHEST - _WIDTH
    there, near = (
        np.fmax.reduce(height[:, max(at - _NEAR, 0) : at + _NEAR + 1], axis=1)
        for at in (peak, zero)
    )
    return peak - zero, float((there > near).mean())  # those where either is unknown are not
