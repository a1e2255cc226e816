"""The scales γ/σ of the batch norms that a forward pass has evaluated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


class RunningScales:
    """γ/σ of evaluated batch norms, computed for all of them when the first one is needed.

    Each takes a few small functions. Called one right after the other, those of a hundred norms
    take a fraction of the time that they take between convolutions.

    Examples
    --------
    >>> scales = RunningScales()
    >>> first = scales.note(torch.tensor([3.0, 15.0]), 1.0, None, dims=4)
    >>> second = scales.note(torch.tensor([0.0]), 0.25, torch.tensor([10.0]), dims=2)
    >>> first().shape, second()
    (torch.Size([2, 1, 1]), tensor([20.]))
    """

    def __init__(self) -> None:
        self._noted: list[tuple[Tensor, float, Tensor | None, int]] = []
        self._computed: list[Tensor] = []

    def note(
        self, running_var: Tensor, eps: float, weight: Tensor | None, dims: int
    ) -> Callable[[], Tensor]:
        """Take note of a batch norm of maps ``[B, C, ...]`` of ``dims`` dimensions.

        What is returned returns its scale, ``[C, 1, ...]``.
        """
        self._noted.append((running_var, eps, weight, dims))
        return partial(self._scale, len(self._noted) - 1)

    def _scale(self, number: int) -> Tensor:
        if number >= len(self._computed):
            self._compute(self._noted[len(self._computed) :])
        return self._computed[number]

    @torch.no_grad()
    def _compute(self, noted: list[tuple[Tensor, float, Tensor | None, int]]) -> None:
        variances, eps, weights, all_dims = zip(*noted, strict=True)
        scales = torch._foreach_add(variances, eps)
        torch._foreach_rsqrt_(scales)
        weighted = [(s, w) for s, w in zip(scales, weights, strict=True) if w is not None]
        if weighted:
            torch._foreach_mul_(*zip(*weighted, strict=True))
        self._computed += (
            scale.reshape(-1, *(1,) * (dims - 2))
            for scale, dims in zip(scales, all_dims, strict=True)
        )
