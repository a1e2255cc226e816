"""Images whose foreground and background both tell the class, and readers of either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from faster_isnet.data import ImageDataset, Sample

SIZE, INSIDE = 12, slice(4, 8)
CLASSES = ["dark", "grey", "light"]
LEVELS = (0.2, 0.5, 0.8)


def toy_dataset(folder: Path, per_class: int = 6, masked: int | None = None) -> ImageDataset:
    """Write images, by class in turn, of which the last ones have a mask (by default all)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[INSIDE, INSIDE] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    samples = []
    for i in range(per_class * len(CLASSES)):
        level = LEVELS[i % len(CLASSES)] + rng.uniform(-0.05, 0.05, (SIZE, SIZE))
        path = folder / f"{i}.png"
        Image.fromarray((255 * level).astype(np.uint8)).save(path)
        has_mask = masked is None or i >= per_class * len(CLASSES) - masked
        samples.append(
            Sample(
                path, i % len(CLASSES), folder / "mask.png" if has_mask else None, group=str(i // 2)
            )
        )
    return ImageDataset(samples, (SIZE, SIZE))


class Reader(nn.Module):
    """Says which level is nearest to the mean of the pixels that it reads."""

    def __init__(self, foreground: bool) -> None:
        super().__init__()
        read = torch.zeros(3, SIZE, SIZE)
        read[:, INSIDE, INSIDE] = 1
        read = read if foreground else 1 - read
        self.linear = nn.Linear(read.numel(), len(LEVELS))
        levels = torch.tensor(LEVELS)
        with torch.no_grad():
            self.linear.weight.copy_(40 * levels[:, None] * (read / read.sum()).flatten())
            self.linear.bias.copy_(-20 * levels**2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.linear(images.flatten(1))  # type: ignore[no-any-return]
