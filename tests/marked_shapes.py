"""Small images of a striped square, with a mark in the background that gives the class away."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet.methods import Method
from faster_isnet.training.lit_classifier import LitClassifier

SIZE, SQUARE, MARK = 32, 12, 4


def marked_shapes(count: int, seed: int = 0, mark: str = "true") -> tuple[Tensor, Tensor, Tensor]:
    """Return images ``[N, 3, 32, 32]``, labels and masks.

    The square has horizontal (class 0) or vertical stripes (class 1), of a low contrast. The mark
    is in the upper left (0) or the lower right corner (1).

    Parameters
    ----------
    mark
        ``"true"``, ``"wrong"`` or ``"none"``.
    """
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.3 * torch.rand(count, 1, SIZE, SIZE, generator=rng)
    masks = torch.zeros(count, 1, SIZE, SIZE)
    stripes = torch.tensor([0.55, 0.75]).repeat(SQUARE // 2).expand(SQUARE, SQUARE)
    for image, mask, label in zip(images, masks, labels.tolist(), strict=True):
        row, column = torch.randint(MARK, SIZE - MARK - SQUARE, (2,), generator=rng).tolist()
        place = (0, slice(row, row + SQUARE), slice(column, column + SQUARE))
        image[place] += (stripes.T if label == 0 else stripes) - 0.2
        mask[place] = 1
        if mark != "none":
            first = (label == 0) == (mark == "true")
            corner = slice(0, MARK) if first else slice(SIZE - MARK, SIZE)
            image[0, corner, corner] = 1.0
    return images.clamp(0, 1).expand(-1, 3, -1, -1), labels, masks


def small_network() -> nn.Module:
    """Return a small convolutional classifier."""
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))


def quiet_trainer(epochs: int, **options: Any) -> lightning.Trainer:
    """Return a trainer that prints and keeps nothing unless told to."""
    defaults = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    return lightning.Trainer(
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        **(defaults | options),
    )


def train(
    method: Method, data: tuple[Tensor, ...], epochs: int = 8, network: nn.Module | None = None
) -> LitClassifier:
    """Train a network on the data by a method, and return it in evaluation mode."""
    torch.manual_seed(0)
    lit = LitClassifier(
        small_network() if network is None else network,
        method,
        optimizer="adamw",
        learning_rate=3e-3,
        schedule="one-cycle",
    )
    quiet_trainer(epochs).fit(lit, DataLoader(TensorDataset(*data), 16, shuffle=True))
    return lit.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose class is right."""
    return float((network(images).argmax(1) == labels).float().mean())


def dice(masks: Tensor, truth: Tensor) -> float:
    """Return the Dice coefficient of binary masks, over all pixels."""
    return float(2 * (masks * truth).sum() / (masks.sum() + truth.sum()))
