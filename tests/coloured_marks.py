"""Small images whose class is shown by the foreground and by a mark in the background."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from faster_isnet.methods import Batch, Method

SIZE, MARK = 16, 3
INSIDE = slice(4, 12)
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]])  # of the marks, by class
NO_MARK, TRUE, FALSE = "none", "true", "false"

Foreground = Callable[[Tensor, torch.Generator], Tensor]
"""From labels ``[N]`` to what is added inside of the mask, ``[N, 3, 8, 8]``."""


def striped(labels: Tensor, rng: torch.Generator) -> Tensor:
    """Horizontal stripes for class 0, vertical ones for class 1, shifted at random."""
    lines = (torch.arange(8) % 4 < 2).float()
    shifts = torch.randint(4, (len(labels),), generator=rng).tolist()
    rows = torch.stack([lines.roll(shift)[:, None].expand(8, 8) for shift in shifts])
    turned = torch.where((labels == 0)[:, None, None], rows, rows.mT)
    return 0.3 * turned[:, None].expand(-1, 3, -1, -1)


def tinted(labels: Tensor, rng: torch.Generator) -> Tensor:
    """A little more red for class 0, a little more green for class 1."""
    return 0.1 * (COLOURS[labels] > 0.5)[:, :, None, None].expand(-1, -1, 8, 8)


def marked_images(
    foreground: Foreground, mark: str, count: int = 256, seed: int = 0, noise: float = 0.1
) -> Batch:
    """Return images of two classes in turn, with a mark of the true, the false or no class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.4 + noise * torch.rand(count, 3, SIZE, SIZE, generator=rng)
    images[..., INSIDE, INSIDE] += foreground(labels, rng)
    if mark != NO_MARK:
        shown = labels if mark == TRUE else 1 - labels
        images[..., :MARK, :MARK] = COLOURS[shown][:, :, None, None]
    masks = torch.zeros(count, 1, SIZE, SIZE)
    masks[..., INSIDE, INSIDE] = 1
    return Batch(images, labels, masks)


def train(
    method: Method, classifier: Callable[[], nn.Module], batch: Batch, steps: int, seed: int = 0
) -> nn.Module:
    """Train a new classifier by a method on a set of images."""
    torch.manual_seed(seed)
    network = method.build(classifier())
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for _ in range(steps):
        losses = method.training_losses(
            network, batch.select(torch.randperm(len(batch.images))[:32])
        )
        optimizer.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return method.deployed(network).eval()


@torch.no_grad()
def accuracy(network: nn.Module, batch: Batch) -> float:
    return (network(batch.images).argmax(1) == batch.labels).double().mean().item()
