"""Check that tensors are pictures, masks and heatmaps that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_tensor(
    name: str, tensor: Tensor, channels: Sequence[int] = (), size: Sequence[int] | None = None
) -> None:
    """Raise ``ValueError`` unless ``tensor`` is finite and ``[C, H, W]`` of this C and size."""
    shape = tuple(tensor.shape)
    if len(shape) != 3 or 0 in shape or (channels and shape[0] not in channels):
        wanted = " or ".join(f"[{c}, H, W]" for c in channels) or "[C, H, W]"
        raise ValueError(f"{name} must have shape {wanted}, got {list(shape)}")
    if size is not None and shape[1:] != tuple(size):
        raise ValueError(f"{name} must be of size {list(size)}, got {list(shape[1:])}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} has values that are not finite")


def check_image(image: Tensor, size: Sequence[int] | None = None) -> None:
    """Raise ``ValueError`` unless ``image`` is a picture in [0, 1] of this ``[H, W]``."""
    check_tensor("image", image, channels=(1, 3), size=size)
    if image.min() < -1e-3 or image.max() > 1 + 1e-3:  # rounding of a (de)normalisation is fine
        raise ValueError(f"image must be in [0, 1], got [{image.min():g}, {image.max():g}]")


def check_mask(mask: Tensor, size: Sequence[int] | None = None) -> None:
    """Raise ``ValueError`` unless ``mask`` is of zeros and ones and of this ``[H, W]``."""
    check_tensor("mask", mask, channels=(1,), size=size)
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold only 0 and 1")
