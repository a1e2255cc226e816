"""How often a model is right."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from faster_isnet.evaluation import accuracy


def test_accuracy_counts_samples_not_batches() -> None:
    logits = torch.eye(5)
    labels = torch.tensor([0, 1, 2, 3, 0])
    batches = [(logits[:4], labels[:4]), (logits[4:], labels[4:], "masks are not looked at")]
    assert accuracy(nn.Identity(), batches) == pytest.approx(4 / 5)
