"""A model in evaluation mode for a while."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import Self

from faster_isnet.common.eval_mode import eval_mode


class Cached(nn.Module):
    """Keeps what it computes of its weights while it is evaluated, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.kept = nn.Parameter(torch.ones(2)), None

    def train(self, mode: bool = True) -> Self:
        self.kept = None if mode else self.kept
        return super().train(mode)

    def forward(self) -> Tensor:
        if self.training:
            return 2 * self.weight
        self.kept = 2 * self.weight if self.kept is None else self.kept
        return self.kept


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_kept_of_weights_that_change_later(training: bool) -> None:
    model = Cached().train(training)
    with eval_mode(model):
        assert torch.equal(model(), torch.full((2,), 2.0))
    assert model.training == training
    nn.init.constant_(model.weight, 3.0)
    assert torch.equal(model.eval()(), torch.full((2,), 6.0))


def test_modes_are_restored_after_an_error() -> None:
    class Fails(nn.Module):
        def forward(self) -> None:
            raise RuntimeError(f"training: {self.training}")

    model = nn.Sequential(Fails(), nn.Dropout().eval())
    with pytest.raises(RuntimeError, match="training: False"), eval_mode(model):
        model[0]()
    assert [module.training for module in model.modules()] == [True, True, False]
