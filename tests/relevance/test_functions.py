"""The engine's autograd functions: ordinary gradients, and relevance that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from faster_isnet.relevance.functions import Detour, Overwrite, RelevancePass, ReLU


def _double(g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (2 * g * x.square(),)


def detour(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return Detour.apply(relevance_pass, _double, x.sin(), x)


def relu(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return ReLU.apply(relevance_pass, 0.1, x, False)


def relu_in_place(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return ReLU.apply(relevance_pass, 0.1, x.clone(), True)


def overwrite(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return Overwrite.apply(x.clone(), x.sin())


FUNCTIONS = [detour, relu, relu_in_place, overwrite]


def relevance(function: Callable[..., Tensor], x: Tensor, g: Tensor) -> Tensor:
    """Send ``g`` back through ``function`` in a relevance pass."""
    relevance_pass = RelevancePass()
    y = function(relevance_pass, x)
    with relevance_pass.running():
        return torch.autograd.grad(y, x, g, create_graph=True)[0]


def points(*shape: int) -> Tensor:
    """Values that keep away from the kink of ReLU."""
    x = torch.rand(*shape, dtype=torch.float64) + 0.2
    return (x * torch.where(torch.rand(*shape) < 0.5, -1.0, 1.0)).requires_grad_()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_ordinary_gradient_is_the_gradient(function: Callable[..., Tensor]) -> None:
    x = points(3, 4)
    assert gradcheck(lambda x: function(RelevancePass(), x), x)
    assert gradgradcheck(lambda x: function(RelevancePass(), x), x)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_relevance_can_be_differentiated_twice(function: Callable[..., Tensor]) -> None:
    x, g = points(3, 4), points(3, 4)
    assert gradcheck(lambda x, g: relevance(function, x, g), (x, g))
    assert gradgradcheck(lambda x, g: relevance(function, x, g), (x, g))


def test_detour_takes_its_rule_in_a_relevance_pass_only() -> None:
    x, g = points(5), points(5)
    torch.testing.assert_close(relevance(detour, x, g), 2 * g * x.square())
    (gradient,) = torch.autograd.grad(detour(RelevancePass(), x), x, g)
    torch.testing.assert_close(gradient, g * x.cos())


@pytest.mark.parametrize("function", [relu, relu_in_place])
def test_relu_relevance_is_scaled_by_its_stabilised_ratio(function: Callable[..., Tensor]) -> None:
    x, g = points(20), points(20)
    a = x.relu()
    torch.testing.assert_close(relevance(function, x, g), g * a / (a + 0.1))


def test_relu_without_stabiliser_is_the_gradient() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    relevance_pass = RelevancePass()
    y = ReLU.apply(relevance_pass, 0.0, x, False)
    with relevance_pass.running():
        (g,) = torch.autograd.grad(y.sum(), x)
    assert g.tolist() == [0, 0, 1]


def test_the_flag_falls_when_a_relevance_pass_fails() -> None:
    relevance_pass = RelevancePass()
    with pytest.raises(KeyError), relevance_pass.running():
        raise KeyError
    assert not relevance_pass.active


def test_a_value_that_gets_no_relevance_sends_none_on() -> None:
    x = points(3)
    relevance_pass = RelevancePass()
    called = []
    y = Detour.apply(relevance_pass, lambda g, x: called.append(g), x.sin(), x)
    stopped = Detour.apply(relevance_pass, lambda g, y: (None,), y.cos(), y)
    with relevance_pass.running():
        (g,) = torch.autograd.grad((stopped + x).sum(), x)
    assert g.tolist() == [1, 1, 1]
    assert not called
