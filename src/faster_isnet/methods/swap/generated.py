"""Generate backgrounds that no image has."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.common.interpolation import LINEAR

_KINDS = 4
_FINEST = 5  # grids of coarse noise have 2 to 2⁵ cells along each dimension


def generated_backgrounds(images: Tensor) -> Tensor:
    """Generate a background for each image, whatever it shows: of one of four kinds, at random.

    One colour; black or white; noise of single pixels, the same in all channels; or coloured noise
    of larger cells, from 2 to 32 along each side (of one size for all images of a call), smooth or
    with edges.

    Parameters
    ----------
    images
        ``[B, C, ...]`` with one to three spatial dimensions; of them, the range of each channel
        and the size are taken.

    Returns
    -------
    Tensor
        Like ``images``.

    Examples
    --------
    >>> backgrounds = generated_backgrounds(2 + torch.rand(16, 3, 8, 8))
    >>> backgrounds.shape, bool((backgrounds >= 2).all()), bool((backgrounds <= 3).all())
    (torch.Size([16, 3, 8, 8]), True, True)
    """
    count, channels, *size = images.shape
    ones = [1] * len(size)
    drawn: dict[str, Any] = {"dtype": images.dtype, "device": images.device}
    colour = torch.rand(count, channels, *ones, **drawn)
    extreme = torch.rand(count, 1, *ones, **drawn).round()
    noise = torch.rand(count, 1, *size, **drawn)
    cells = [min(2 ** int(torch.randint(1, _FINEST + 1, ())), length) for length in size]
    mode = "nearest" if torch.rand(()) < 0.5 else LINEAR[len(size)]
    coarse = F.interpolate(torch.rand(count, channels, *cells, **drawn), size, mode=mode)
    kind = torch.randint(_KINDS, (count, 1, *ones)).to(images.device)
    values = noise.where(kind == 2, coarse)
    values = colour.where(kind == 0, extreme.where(kind == 1, values))
    every = (0, *range(2, images.dim()))
    low, high = images.amin(every, keepdim=True), images.amax(every, keepdim=True)
    return low + values * (high - low)
