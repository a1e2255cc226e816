"""Swap the backgrounds of a batch's images, so that they give no class away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.common.checks import check_masks

_CELLS = 8
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def swap_backgrounds(images: Tensor, masks: Tensor | None, share: float) -> Tensor:
    """Give images the background of another image of the batch, of whatever class.

    Of whatever class, and not of another one: so a background says nothing of the class, where
    it would otherwise say which class it is not. Where the other image has its own foreground, its
    background is continued smoothly (the mean of each cell of an 8 × 8 grid, interpolated).

    Parameters
    ----------
    images
        ``[B, C, ...]``, with one to three spatial dimensions.
    masks
        ``[B, 1, ...]`` or ``[B, ...]``: 1 in the foreground, 0 in the background,
        :data:`~faster_isnet.NO_MASK` everywhere for an image without a mask, which stays as it is
        and lends no background, as one without background does not. ``None`` if no image has one.
    share
        In [0, 1], of the images whose background is swapped; each is drawn by itself.

    Returns
    -------
    Tensor
        ``[B, C, ...]``; values stay within those of the images. Foregrounds are unchanged, exactly.

    Raises
    ------
    TypeError, ValueError
        If masks have another size than the images, are not binary or have no foreground.

    Examples
    --------
    >>> images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    >>> masks = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(2, 1, 2, 2)
    >>> swap_backgrounds(images, masks, 1.0)[0]
    tensor([[[0., 1.],
             [1., 1.]]])
    """
    if masks is None or share == 0:
        return images
    masks, has_mask = check_masks(masks, images.unsqueeze(1))
    if masks is None:
        return images
    count, device = len(images), images.device
    takes_part = has_mask & (masks == 0).flatten(1).any(1)
    # Those that take part in random order, before the others; a cycle: none lends to itself.
    order = (torch.rand(count).to(device) + 2 * ~takes_part).argsort()
    before = (torch.arange(count, device=device) - 1) % takes_part.sum().clamp(min=1)
    lender = torch.empty_like(order).index_copy(0, order, order[before])
    chosen = (torch.rand(count) < share).to(device) & takes_part
    keeps = (masks == 1) | ~chosen.reshape(-1, *(1,) * (images.dim() - 1))
    return torch.where(keeps, images, _without_foreground(images, masks)[lender])


def _without_foreground(images: Tensor, masks: Tensor) -> Tensor:
    """Return images whose foreground is replaced by what surrounds it."""
    outside = (masks != 1).to(images)
    size, dims = images.shape[2:], images.dim() - 2
    known = _POOLS[dims](outside, _CELLS)
    values = _POOLS[dims](images * outside, _CELLS)
    known, values = (_resized(each, size, _LINEAR[dims]) for each in (known, values))
    spatial = tuple(range(2, images.dim()))
    total = outside.sum(spatial, keepdim=True).clamp(min=1)
    mean = (images * outside).sum(spatial, keepdim=True) / total
    reached = known > torch.finfo(images.dtype).eps
    filling = torch.where(reached, values / known.where(reached, 1), mean)
    return torch.where(masks == 1, filling, images)


def _resized(values: Tensor, size: torch.Size, mode: str) -> Tensor:
    return F.interpolate(values, size, mode=mode, align_corners=False)
