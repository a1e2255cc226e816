"""Draw for each image of a batch: which other one it is given something of, and whether."""

from __future__ import annotations

import torch
from torch import Tensor


def shuffled_within(chosen: Tensor) -> Tensor:
    """Return indices ``[B]`` that shuffle the chosen samples, and the others, among themselves.

    Parameters
    ----------
    chosen
        ``[B]``, boolean.

    Examples
    --------
    >>> chosen = torch.tensor([True, False, True])
    >>> shuffled_within(chosen)[1]
    tensor(1)
    """
    ours = (~chosen).long().argsort(stable=True)
    shuffled = (torch.rand(len(chosen)).to(chosen.device) + 2 * ~chosen).argsort()
    return torch.empty_like(ours).index_copy(0, ours, shuffled)


def by_image(flags: Tensor, images: Tensor) -> Tensor:
    """Return ``[B]`` as ``[B, 1, ...]``, with the dimensions of the images."""
    return flags.reshape(-1, *(1,) * (images.dim() - 1))
