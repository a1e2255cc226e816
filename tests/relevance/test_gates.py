"""Gates that a model writes as arithmetic get no relevance, as those of torch get none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet import Explainer

Gate = Callable[[Tensor], Tensor]


def _manual_softmax(z: Tensor) -> Tensor:
    e = torch.exp(z - z.amax(1, keepdim=True))
    return e / e.sum(1, keepdim=True)


# What they are called, by what torch calls the same.
GATES: dict[str, tuple[Gate, Gate]] = {
    "relu6(z + 3) / 6": (F.hardsigmoid, lambda z: F.relu6(z + 3) / 6),
    "relu6(3 + z, in-place) * 1/6": (F.hardsigmoid, lambda z: nn.ReLU6(True)(3 + z) * (1 / 6)),
    "clamp(z + 3, 0, 6) / 6": (F.hardsigmoid, lambda z: torch.clamp(z + 3, 0, 6) / 6),
    "clamp_(z.add_(3))": (
        F.hardsigmoid,
        lambda z: z.clone().add_(3.0).clamp_(min=0, max=6).div(6),
    ),
    "hardtanh(z + 3, 0, 6) / 6": (F.hardsigmoid, lambda z: F.hardtanh(z + 3, 0.0, 6.0) / 6),
    "clamp(z / 6 + 0.5, 0, 1)": (F.hardsigmoid, lambda z: (z / 6 + 0.5).clip(0, 1)),
    "1 / (1 + exp(-z))": (torch.sigmoid, lambda z: 1 / (1 + torch.exp(-z))),
    "reciprocal": (torch.sigmoid, lambda z: torch.reciprocal((-z).exp() + 1.0)),
    "(1 + exp(-z)) ** -1": (torch.sigmoid, lambda z: (1 + torch.exp(-z)) ** -1),
    "exp(z) / (1 + exp(z))": (torch.sigmoid, lambda z: z.exp() / (1 + z.exp())),
    "ones / (1 + exp(-z))": (torch.sigmoid, lambda z: torch.ones_like(z).div(1 + (-z).exp())),
    "(tanh(z / 2) + 1) / 2": (torch.sigmoid, lambda z: (torch.tanh(z / 2) + 1) / 2),
    "special.expit": (torch.sigmoid, torch.special.expit),
    "special.softmax": (lambda z: z.softmax(1), lambda z: torch.special.softmax(z, 1)),
    "softmin": (lambda z: z.softmax(1), lambda z: F.softmin(-z, 1)),
    "nn.Softmin": (lambda z: z.softmax(1), lambda z: nn.Softmin(1)(-z)),
    "exp / sum": (lambda z: z.softmax(1), _manual_softmax),
}


class Gated(nn.Module):
    """A squeeze-and-excite block."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.last, self.gate = nn.Linear(4 * 36, 3), torch.sigmoid

    def forward(self, x: Tensor) -> Tensor:
        z = 4 * self.b(x).mean((2, 3), keepdim=True)
        return self.last((self.a(x).relu() * self.gate(z)).flatten(1))


@pytest.mark.parametrize("composite", ["flex", "epsilon", "zplus", "alpha2-beta1"])
@pytest.mark.parametrize("name", GATES)
def test_a_gate_has_the_heatmap_that_it_has_by_its_name(name: str, composite: str) -> None:
    model, x, found = Gated().double(), torch.rand(2, 3, 6, 6, dtype=torch.float64), []
    for model.gate in GATES[name]:
        heatmap = Explainer(model, composite)(x, 1, differentiable=True).heatmap
        loss = heatmap.square().sum()
        gradients = torch.autograd.grad(loss, [model.a.weight, model.b.weight, model.last.weight])
        found.append((heatmap, *gradients))
    for expected, other in zip(*found, strict=True):
        assert (other - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("name", GATES)
def test_the_standard_gradient_is_pytorchs(name: str) -> None:
    model, x = Gated().double(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    model.gate = GATES[name][1]
    logits = Explainer(model)(x, 1, differentiable=True).logits
    found = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["1 / (1 + exp(-z))", "special.expit", "exp / sum"])
def test_a_gate_is_no_output(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model.register_forward_hook(lambda module, args, y: GATES[name][1](y))
    with pytest.raises(RuntimeError, match=r"no relevance reaches .*Return logits"):
        Explainer(model)(torch.rand(2, 3, 2, 2))


FEATURES: dict[str, Gate] = {
    "relu6": F.relu6,
    "relu(z + 3)": lambda z: F.relu(z + 3),
    "clamp(z - 1, 0, 6)": lambda z: (z - 1).clamp(0, 6),
    "relu6(z + 6)": lambda z: F.relu6(z + 6),
    "z / 6": lambda z: (z + 3) / 6,
    "exp": torch.exp,
    "tanh": torch.tanh,
    "tanh(z) + 0.1": lambda z: torch.tanh(z) + 0.1,
}


@pytest.mark.parametrize("name", FEATURES)
def test_what_is_no_gate_has_relevance(name: str) -> None:
    model, x = Gated().double(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    nn.init.ones_(model.b.bias)
    model.gate = FEATURES[name]
    explanation = Explainer(model, layers=["b"])(x, 1)
    assert explanation.layers["b"].abs().sum() > 0
