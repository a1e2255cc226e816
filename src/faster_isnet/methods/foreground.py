"""Keep the foreground of images, and fill the background with one value."""

from __future__ import annotations

from torch import Tensor


def keep_foreground(images: Tensor, masks: Tensor, fill: float = 0.0) -> Tensor:
    """Replace the background of images by a constant.

    Parameters
    ----------
    images
        ``[B, C, ...]``.
    masks
        ``[B, 1, ...]``: 1 in the foreground, anything else in the background.
    fill
        The value of all pixels of the background; 0 is black for images in [0, 1].

    Returns
    -------
    Tensor
        ``[B, C, ...]``; the foreground is unchanged, exactly.

    Examples
    --------
    >>> import torch
    >>> keep_foreground(torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]]))
    tensor([[[[1., 0.]]]])
    """
    foreground = (masks == 1).to(images.dtype)
    # A product, and not torch.where, since the input rules of explanations follow it.
    cut_out = images * foreground
    return cut_out if fill == 0 else cut_out + fill * (1 - foreground)
