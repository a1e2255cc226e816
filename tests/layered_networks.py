"""Small networks that tests put together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def images(*shape: int) -> Tensor:
    return torch.rand(2, *(shape or (3, 64, 64)), dtype=torch.float64)


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x, *self.parts[:-1])
        return self.parts[-1](y.flatten(1))


def conv(i: int = 3, o: int = 4, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, bias=bias)


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
