"""What is divided by is a scale, and gets no relevance."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet import Explainer

Function = Callable[[Tensor, Tensor], Tensor]


class Two(nn.Module):
    """Combines two branches of an image by a function."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 4, 3, padding=1, bias=False) for _ in range(2))
        self.function, self.last = function, nn.Linear(64, 3, bias=False)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.a(x), 1 + self.b(x).square()).flatten(1))


def images() -> Tensor:
    return torch.rand(2, 3, 4, 4, dtype=torch.float64)


QUOTIENTS: dict[str, Function] = {
    "/": lambda a, b: a / b,
    "div": lambda a, b: torch.div(a, other=b),
    "in-place": lambda a, b: a.clone().div_(b),
    "broadcast": lambda a, b: a / b.mean(1, keepdim=True),
    "reciprocal": lambda a, b: a * b.reciprocal(),
    "1 /": lambda a, b: a * (1 / b),
    "rsqrt": lambda a, b: a * torch.rsqrt(b),
    "a normalisation written out": lambda a, b: (
        (a - a.mean(1, keepdim=True)) / (a.var(1, keepdim=True) + 1e-6).sqrt()
    ),
    "a norm": lambda a, b: a / a.norm(dim=1, keepdim=True),
    "normalize": lambda a, b: F.normalize(a, dim=1),
    "linear attention": lambda a, b: (a @ (a.mT @ a)) / (b @ b.mT.sum(-1, keepdim=True)),
}


@pytest.mark.parametrize("composite", ["flex", "epsilon", "cp-lrp"])
@pytest.mark.parametrize("name", QUOTIENTS)
def test_the_dividend_has_all_relevance(name: str, composite: str) -> None:
    explanation = Explainer(Two(QUOTIENTS[name]), composite, 0.0)(images(), "all-classes")
    sums = explanation.heatmap.flatten(2).sum(2)
    torch.testing.assert_close(sums, explanation.quantity, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", QUOTIENTS)
def test_the_divisor_is_differentiated_in_the_gradient_of_the_relevance(name: str) -> None:
    model, x = Two(QUOTIENTS[name]), images()[:1]

    def heatmap(a: Tensor, b: Tensor) -> Tensor:
        weights = {"a.weight": a, "b.weight": b}

        class Called(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.func.functional_call(model, weights, (x,))

        return Explainer(Called(), epsilon=0.1)(x, 1, differentiable=True).heatmap

    weights = [w.detach().requires_grad_() for w in (model.a.weight, model.b.weight)]
    assert torch.autograd.gradcheck(heatmap, weights, fast_mode=True)


def test_numbers_and_weights_are_divided_by_as_ever() -> None:
    for divisor in (3.0, torch.full((4, 1, 1), 3.0, dtype=torch.float64, requires_grad=True)):
        model, x = Two(lambda a, b, divisor=divisor: a / divisor), images()
        expected = x * torch.autograd.grad(model(x.requires_grad_())[:, 1].sum(), x)[0]
        found = Explainer(model, epsilon=0.0)(x.detach(), 1).heatmap[:, 0]
        torch.testing.assert_close(found, expected.detach())
