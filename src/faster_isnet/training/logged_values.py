"""What is logged of a batch, and under which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_accuracy

from faster_isnet.common.logits import class_logits


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
