"""Relevance of activations, in every spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.relevance import Interception, RelevancePass, flex

EPSILON = 0.05

RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "in-place module": nn.ReLU(inplace=True),
    "functional": F.relu,
    "functional, positional in-place": lambda x: F.relu(x, True),
    "F.relu_": F.relu_,
    "torch": torch.relu,
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu(),
    "in-place method": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp, positional": lambda x: x.clamp(0),
    "clamp_": lambda x: x.clamp_(min=0),
    "torch.clamp": lambda x: torch.clamp(input=x, min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clip": lambda x: torch.clip(x, 0),
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-0.5, 1.5),
    "leaky relu": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(3, 0.3),
    "elu": nn.ELU(),
    "celu": nn.CELU(0.5),
    "selu": nn.SELU(),
    "gelu": nn.GELU(),
    "gelu, tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "tanh": nn.Tanh(),
    "clamp to a range": lambda x: x.clamp(-0.5, 0.5),
    "clamp from above": lambda x: x.clamp(max=0.5),
}

IN_PLACE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (nn.ReLU(inplace=True), nn.ReLU()),
    "relu6": (nn.ReLU6(inplace=True), nn.ReLU6()),
    "leaky relu": (nn.LeakyReLU(0.2, inplace=True), nn.LeakyReLU(0.2)),
    "leaky_relu_": (lambda x: F.leaky_relu_(x, 0.2), nn.LeakyReLU(0.2)),
    "elu": (nn.ELU(inplace=True), nn.ELU()),
    "selu": (nn.SELU(inplace=True), nn.SELU()),
    "silu": (nn.SiLU(inplace=True), nn.SiLU()),
    "mish": (nn.Mish(inplace=True), nn.Mish()),
    "hardswish": (nn.Hardswish(inplace=True), nn.Hardswish()),
    "tanh_": (lambda x: x.tanh_(), nn.Tanh()),
    "sigmoid_": (lambda x: x.sigmoid_(), nn.Sigmoid()),
    "clamp_": (lambda x: x.clamp_(-0.5, 0.5), lambda x: x.clamp(-0.5, 0.5)),
}

GATES = {
    "sigmoid": torch.sigmoid,
    "module": nn.Sigmoid(),
    "method": lambda x: x.sigmoid(),
    "hardsigmoid": F.hardsigmoid,
    "in-place hardsigmoid": lambda x: F.hardsigmoid(x, inplace=True),
}


def run(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, RelevancePass]:
    relevance_pass = RelevancePass()
    with Interception(flex(EPSILON).table, relevance_pass):
        return model(x.clone()), relevance_pass


def relevance(model: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
    y, relevance_pass = run(model, x)
    with relevance_pass.running():
        return torch.autograd.grad(y, x, g, create_graph=True)[0]


def pair() -> tuple[Tensor, Tensor]:
    shape = (4, 3, 5)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return x, torch.randn(shape, dtype=torch.float64, requires_grad=True)


def stabilised_ratio(y: Tensor, z: Tensor) -> Tensor:
    return y / (z + EPSILON * torch.where(z < 0, -1, 1))


@pytest.mark.parametrize("name", RELUS)
def test_relu_in_every_spelling(name: str) -> None:
    x, g = pair()
    a = x.relu()
    torch.testing.assert_close(relevance(RELUS[name], x, g), g * a / (a + EPSILON))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_shares_by_its_stabilised_ratio(name: str) -> None:
    x, g = pair()
    model = ACTIVATIONS[name]
    model = model.double() if isinstance(model, nn.Module) else model
    torch.testing.assert_close(relevance(model, x, g), g * stabilised_ratio(model(x), x))


@pytest.mark.parametrize("name", [*ACTIVATIONS, *GATES])
def test_ordinary_gradient_is_untouched(name: str) -> None:
    x, g = pair()
    model = (ACTIVATIONS | GATES)[name]
    model = model.double() if isinstance(model, nn.Module) else model
    y, _ = run(model, x)
    expected = torch.autograd.grad(model(x.clone()), x, g)
    torch.testing.assert_close(torch.autograd.grad(y, x, g), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_relevance_is_differentiable(name: str) -> None:
    x, g = pair()
    model = ACTIVATIONS[name]
    model = model.double() if isinstance(model, nn.Module) else model
    assert torch.autograd.gradcheck(lambda x, g: relevance(model, x, g), (x[:2], g[:2]))


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_writes_into_its_input(name: str) -> None:
    """Also for a caller who goes on with the input and not with what is returned."""
    in_place, plain = IN_PLACE[name]
    x, g = pair()

    def ignoring_what_is_returned(z: Tensor) -> Tensor:
        y = in_place(z)
        assert y is z
        return z

    y, _ = run(ignoring_what_is_returned, x)
    torch.testing.assert_close(y, plain(x))
    torch.testing.assert_close(torch.autograd.grad(y, x, g), torch.autograd.grad(plain(x), x, g))
    if name != "sigmoid_":
        torch.testing.assert_close(
            relevance(ignoring_what_is_returned, x, g), relevance(plain, x, g)
        )


def test_in_place_on_a_part_of_a_tensor() -> None:
    x, g = pair()

    def relu_on_two_channels(z: Tensor) -> Tensor:
        z[:, :2].relu_()
        return z

    a = x.relu()
    expected = torch.cat([(g * a / (a + EPSILON))[:, :2], g[:, 2:]], 1)
    torch.testing.assert_close(relevance(relu_on_two_channels, x, g), expected)


@pytest.mark.parametrize("name", GATES)
def test_gate_passes_relevance_to_the_features_only(name: str) -> None:
    x, g = pair()
    gate = GATES[name]
    torch.testing.assert_close(relevance(lambda x: x * gate(2 * x), x, g), g * gate(2 * x))


def test_a_gate_may_be_multiplied_in_place() -> None:
    x, g = pair()

    def swish_in_place(z: Tensor) -> Tensor:
        z = 1.0 * z
        gate = z.sigmoid()
        return z.mul_(gate)

    torch.testing.assert_close(relevance(swish_in_place, x, g), g * x.sigmoid())


@pytest.mark.parametrize("bounds", [{"min": 1}, {"max": -1}, {"min": 0.5, "max": 2}])
def test_clamp_that_moves_zero_keeps_its_gradient(bounds: dict[str, float]) -> None:
    x, g = pair()
    expected = torch.autograd.grad(x.clamp(**bounds), x, g)[0]
    torch.testing.assert_close(relevance(lambda x: x.clamp(**bounds), x, g), expected)


def test_clamp_by_tensors_keeps_its_gradient() -> None:
    x, g = pair()
    low = torch.full((1,), 0.1, dtype=torch.float64)
    expected = torch.autograd.grad(x.clamp(min=low), x, g)[0]
    torch.testing.assert_close(relevance(lambda x: x.clamp(min=low), x, g), expected)


@pytest.mark.parametrize("name", ["gelu", "silu", "hardswish", "tanh"])
def test_no_stabiliser_gives_finite_relevance_at_zero(name: str) -> None:
    x = torch.zeros(1, 3, 2, requires_grad=True)
    relevance_pass = RelevancePass()
    with Interception(flex(0.0).table, relevance_pass):
        y = ACTIVATIONS[name](x)
    with relevance_pass.running():
        (g,) = torch.autograd.grad(y.sum(), x)
    assert g.isfinite().all()


@pytest.mark.parametrize("name", [*RELUS, *GATES])
def test_outside_of_an_explanation_nothing_is_changed(name: str) -> None:
    function = (RELUS | GATES)[name]
    x, _ = pair()
    run(function, x)
    y = function(x.clone())
    assert "Relevance" not in str(y.grad_fn)
    assert type(y.grad_fn).__module__ != "faster_isnet.relevance.functions"
