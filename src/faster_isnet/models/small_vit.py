"""Build a small vision transformer for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

_WAVELENGTHS = 1e4


class SmallViT(nn.Module):
    """Classify images by a small vision transformer, at any size that the patches divide.

    Positions are fixed sines and cosines of row and column, and the mean over all places is what
    the head reads, instead of a learnt embedding and a class token: this is better where images or
    data are few, has no size of its own, and leaves every place of every block with relevance to be
    supervised. The blocks are torchvision's.

    Parameters
    ----------
    classes
        Number of logits.
    patch
        Side of a patch, in pixels.
    width
        Of a token, a multiple of ``heads`` and of 4.
    depth
        Number of blocks.
    heads
        Of the attention in a block.

    References
    ----------
    Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; positions and mean: Beyer et
    al., "Better plain ViT baselines for ImageNet-1k", 2022.

    Examples
    --------
    >>> SmallViT(classes=3, patch=8)(torch.rand(2, 3, 64, 32)).shape
    torch.Size([2, 3])
    """

    num_prefix_tokens = 0  # every token has a place

    def __init__(
        self, classes: int, patch: int = 8, width: int = 96, depth: int = 6, heads: int = 3
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.Sequential(
            *(EncoderBlock(heads, width, 4 * width, 0.0, 0.0) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of images ``[B, 3, H, W]``.

        Raises
        ------
        ValueError
            If patches do not divide the image.
        """
        (patch, _), size = self.patches.kernel_size, tuple(images.shape[2:])
        if any(side % patch for side in size):
            raise ValueError(
                f"images of {' x '.join(map(str, size))} pixels are not made of patches of "
                f"{patch} x {patch}; give sides that are multiples of {patch}"
            )
        maps = self.patches(images)
        tokens = maps.flatten(2).transpose(1, 2) + positions(maps)
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


def positions(maps: Tensor) -> Tensor:
    """Return sines and cosines of the row and of the column of each place.

    Parameters
    ----------
    maps
        ``[B, C, h, w]``, of which only the shape, dtype and device are used; C is a multiple of 4.

    Returns
    -------
    Tensor
        ``[h·w, C]``, row by row: C / 4 sines and as many cosines of the column, with wavelengths
        from 2π to 2π · 10⁴ places, then those of the row.

    Examples
    --------
    >>> positions(torch.zeros(1, 4, 1, 2))
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0000, 1.0000]])
    """
    _, channels, height, width = maps.shape
    steps = torch.arange(channels // 4, device=maps.device) / max(channels // 4 - 1, 1)
    frequencies = _WAVELENGTHS**-steps
    rows, columns = torch.meshgrid(
        torch.arange(height, device=maps.device),
        torch.arange(width, device=maps.device),
        indexing="ij",
    )
    angles = [places.flatten()[:, None] * frequencies for places in (columns, rows)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], 1).to(maps)
