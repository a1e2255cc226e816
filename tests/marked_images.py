"""Images whose foreground tells the class, and whose background has a mark that tells it, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faster_isnet.common.logits import class_logits
from faster_isnet.methods import Batch, Method

SIZE, INSIDE = 16, slice(4, 12)
PIXELS = torch.arange(8) % 2 * 2.0 - 1


def marked_images(count: int, mark: str = "true", seed: int = 0, classes: int = 2) -> Batch:
    """Return images with stripes, whose direction is the class, in a square, and a mark beside it.

    Parameters
    ----------
    count
        How many.
    mark
        In a corner, as bright as the class says (``"true"``) or the next class (``"false"``), or
        ``"none"``.
    seed
        Of the random numbers.
    classes
        Two or three; the stripes of the third are a chess board.
    """
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=rng)
    images = 0.5 + 0.1 * torch.randn(count, 1, SIZE, SIZE, generator=rng)
    rows = PIXELS[:, None].expand(8, 8)
    stripes = torch.stack([rows, rows.T, rows * rows.T])[labels]
    images[:, 0, INSIDE, INSIDE] += 0.05 * stripes
    shown = (labels + (mark == "false")) % classes
    if mark != "none":
        images[:, 0, :3, :3] = (shown / (classes - 1))[:, None, None].expand(-1, 3, 3)
    masks = torch.zeros(count, 1, SIZE, SIZE)
    masks[..., INSIDE, INSIDE] = 1
    return Batch(images, labels, masks)


def correlated_images(count: int, correlation: float, seed: int = 0, classes: int = 2) -> Batch:
    """Return images of which a share has the true mark, and the others a false one.

    The attribute is the class whose mark is shown. Each class has the same share of false marks.
    """
    marked = [marked_images(count, mark, seed, classes) for mark in ("true", "false")]
    labels = marked[0].needed("labels")
    is_true = torch.zeros(count, dtype=torch.bool)
    for label in range(classes):
        members = (labels == label).nonzero().flatten()
        is_true[members[: round(correlation * len(members))]] = True
    images = torch.where(is_true[:, None, None, None], *(batch.images for batch in marked))
    return marked[0]._replace(images=images, attributes=(labels + ~is_true) % classes)


def convolutional(classes: int = 2, features: int = 16) -> nn.Sequential:
    """Return a small network of two convolutions, whose pooled maps are classified."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, features, 3, 2, padding=1),
        nn.BatchNorm2d(features),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(features, classes),
    )


def trained(
    method: Method,
    network: nn.Module,
    data: Batch,
    epochs: int = 12,
    batch_size: int = 32,
    learning_rate: float = 1e-2,
) -> nn.Module:
    """Train by Adam with cosine decay; return the network to use, in evaluation mode."""
    network = method.build(network)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    steps = epochs * (len(data.images) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    step = 0
    for epoch in range(epochs):
        for chosen in torch.randperm(len(data.images)).split(batch_size):
            if len(chosen) < batch_size:
                continue
            method.set_progress(epoch, step)
            optimizer.zero_grad()
            method.training_losses(network, data.select(chosen)).total.backward()
            optimizer.step()
            schedule.step()
            step += 1
    return method.deployed(network).eval()


def accuracies(network: nn.Module, count: int = 400, classes: int = 2) -> dict[str, float]:
    """Return the accuracy of new images with true, no and false marks."""
    found = {}
    for mark in ("true", "none", "false"):
        data = marked_images(count, mark, 1, classes)
        found[mark] = _accuracy(network, data.images, data.labels)
    return found


def worst_group_accuracy(network: nn.Module, count: int = 800, classes: int = 2) -> float:
    """Return the lowest accuracy of a group, a class with a mark, on new images."""
    found = []
    for mark in ("true", "false"):
        data = marked_images(count // 2, mark, 1, classes)
        for label in range(classes):
            images, labels, *_ = data.select((data.labels == label).nonzero().flatten())
            found.append(_accuracy(network, images, labels))
    return min(found)


@torch.no_grad()
def _accuracy(network: nn.Module, images: Tensor, labels: Tensor | None) -> float:
    return (class_logits(network(images)).argmax(1) == labels).float().mean().item()
