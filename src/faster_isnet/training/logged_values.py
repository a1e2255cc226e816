"""What is logged of a batch, under which name, and what must be finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_accuracy

from faster_isnet.common.logits import class_logits
from faster_isnet.methods.base import Losses


def accuracy_of(logits: Tensor, labels: Tensor, task: str) -> Tensor:
    """Return the share of right samples, or for multi-label of right labels, of a batch."""
    logits = class_logits(logits, task)
    classes = logits.shape[1]
    if task == "multilabel":
        right = (labels > 0.5).long()  # soft labels count as what they are nearer to
        return multilabel_accuracy(logits, right, num_labels=classes, average="micro")
    if labels.is_floating_point():
        labels = labels.argmax(1)
    return multiclass_accuracy(logits, labels, num_classes=classes, average="micro")


def stage_of_loader(stage: str, loaders: Any, index: int) -> str:
    """Return how the names of values start that a loader gives, such as ``"val/elsewhere"``."""
    if isinstance(loaders, Mapping):
        key = list(loaders)[index]
        return stage if key == stage else f"{stage}/{key}"
    several = isinstance(loaders, Sequence) and len(loaders) > 1
    return f"{stage}/{index}" if several else stage


def check_finite(losses: Losses, where: str) -> None:
    """Check that the losses of a training batch are finite.

    Raises
    ------
    FloatingPointError
        If one is not; the message names it.
    """
    # The one place where a training step waits for an accelerator.
    named = {"classification": losses.classification, **losses.parts, "total": losses.total}
    values = torch.stack([value.detach().float() for value in named.values()]).tolist()
    bad = [
        f"{name} loss is {value}"
        for name, value in zip(named, values, strict=True)
        if not math.isfinite(value)
    ]
    if bad:
        raise FloatingPointError(
            f"{where}: the {' and the '.join(bad)}. Training stops before this batch touches the "
            "weights; lower the learning rate or the heatmap weight and resume from the last "
            "checkpoint"
        )
