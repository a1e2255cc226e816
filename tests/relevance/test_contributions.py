"""What a layer's outputs are summed from, and the way back to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from faster_isnet.relevance.contributions import Concatenated, Mapped
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.linear_maps import Dense, LinearCall


@dataclass(frozen=True)
class Recording(Dense):
    """A dense layer that records the relevance that it passes on, and how often it is computed."""

    passed: list[Tensor] = field(default_factory=list)
    computed: list[Tensor] = field(default_factory=list)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        self.computed.append(weight)
        return super().forward(x, weight, bias)

    def adjoint(self, g: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        self.passed.append(g)
        return super().adjoint(g, weight, x)


def test_a_layer_keeps_no_more_than_its_part_of_the_relevance_of_a_concatenation() -> None:
    relevance_pass, x = RelevancePass(), torch.rand(2, 3, requires_grad=True)
    calls = [LinearCall(Recording(), x, torch.rand(width, 3), None) for width in (2, 5)]
    pieces = [Mapped(relevance_pass, call, x @ call.weight.T, nonnegative=True) for call in calls]
    g = torch.rand(2, 7)
    with relevance_pass.running():
        torch.autograd.grad(Concatenated(relevance_pass, pieces).all, x, g, create_graph=True)
    for call, expected in zip(calls, g.split([2, 5], 1), strict=True):
        assert isinstance(call.map, Recording)
        (passed,) = call.map.passed
        assert torch.equal(passed, expected)
        assert passed.untyped_storage().nbytes() == passed.nbytes


@pytest.mark.parametrize(("nonnegative", "products"), [(True, 1), (False, 4)])
def test_the_sums_of_each_sign(nonnegative: bool, products: int) -> None:
    """Of a non-negative input both take one product, else two each."""
    x, weight = torch.rand(2, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    x = (x if nonnegative else x - 0.5).requires_grad_()
    layer, bias = Recording(), torch.randn(4, dtype=torch.float64)
    call = LinearCall(layer, x, weight, bias)
    mapped = Mapped(RelevancePass(), call, x @ weight.T + bias, nonnegative)
    parts = x[:, None] * weight
    torch.testing.assert_close(mapped.positive, parts.clamp(min=0).sum(2))
    torch.testing.assert_close(mapped.negative, parts.clamp(max=0).sum(2))
    assert len(layer.computed) == products
