"""What a layer's outputs are summed from, and the way back to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from faster_isnet.relevance.contributions import Concatenated, Mapped
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.linear_maps import Dense, LinearCall


@dataclass(frozen=True)
class Noting(Dense):
    """A dense layer that notes the relevance that it passes on."""

    passed: list[Tensor] = field(default_factory=list)

    def adjoint(self, g: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        self.passed.append(g)
        return super().adjoint(g, weight, x)


def test_a_layer_keeps_no_more_than_its_part_of_the_relevance_of_a_concatenation() -> None:
    relevance_pass, x = RelevancePass(), torch.rand(2, 3, requires_grad=True)
    calls = [LinearCall(Noting(), x, torch.rand(width, 3), None) for width in (2, 5)]
    pieces = [Mapped(relevance_pass, call, x @ call.weight.T, nonnegative=True) for call in calls]
    g = torch.rand(2, 7)
    with relevance_pass.running():
        torch.autograd.grad(Concatenated(relevance_pass, pieces).all, x, g, create_graph=True)
    for call, expected in zip(calls, g.split([2, 5], 1), strict=True):
        assert isinstance(call.map, Noting)
        (passed,) = call.map.passed
        assert torch.equal(passed, expected)
        assert passed.untyped_storage().nbytes() == passed.nbytes
