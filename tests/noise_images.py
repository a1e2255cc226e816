"""Images of noise with masks, to plant biases in."""

from __future__ import annotations

import torch
from torch import Tensor


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def box(height: int, width: int, margin: int) -> Tensor:
    """A mask that leaves a border of background."""
    mask = torch.zeros(1, height, width)
    mask[:, margin : height - margin, margin : width - margin] = 1
    return mask


def patchy(height: int, width: int, seed: int) -> Tensor:
    """A mask of random 5 x 5 blocks, in the border too."""
    blocks = (noise(1, 1, 18, 18, seed=seed) > 0.5).float()
    return torch.nn.functional.interpolate(blocks, scale_factor=5)[0, :, :height, :width]


class Made(torch.utils.data.Dataset):
    """Noise with a box of foreground, labels in turn, and the index behind."""

    def __init__(self, n: int, num_classes: int, side: int = 64):
        self.n, self.num_classes, self.side = n, num_classes, side

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        image = noise(3, self.side, self.side, seed=index)
        return image, index % self.num_classes, box(self.side, self.side, 12), index
