"""Measure the accuracy of a model on batches."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> float:
    """Return the share of samples whose highest logit is the label's.

    Parameters
    ----------
    model
        Maps images ``[B, ...]`` to logits ``[B, C]``; call its ``eval()`` first.
    batches
        ``(images, labels, ...)`` with labels ``[B]``.
    """
    mean = MeanMetric()
    for images, labels, *_ in batches:
        mean.update((model(images).argmax(1) == labels).float())
    return float(mean.compute())
