"""Measure the accuracy of a model on batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torchmetrics import MeanMetric

from faster_isnet.common.batch import Batch
from faster_isnet.common.logits import class_logits


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[Any]) -> float:
    """Return the share of samples whose highest logit is the label's.

    Parameters
    ----------
    model
        Maps images ``[B, ...]`` to logits ``[B, C]``, or to a single logit for yes or no; call its
        ``eval()`` first.
    batches
        With labels ``[B]``, see :class:`~faster_isnet.methods.Batch`.
    """
    mean = MeanMetric()
    for batch in map(Batch.of, batches):
        predicted = class_logits(model(batch.images)).argmax(1)
        mean.update(predicted.eq(batch.needed("labels")).float())
    return float(mean.compute())
