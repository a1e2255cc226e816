"""The engine's autograd functions: ordinary gradients, and relevance that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from faster_isnet.relevance.activations import ReLURule
from faster_isnet.relevance.functions import (
    Overwrite,
    RelevanceEdge,
    RelevanceNode,
    RelevancePass,
    ReLU,
)


def _double(g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (2 * g * x.square(),)


def node(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return RelevanceNode.apply(relevance_pass, _double, x.sin(), x)


def relu(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return ReLURule(0.1)(relevance_pass, F.relu, (x,), {})


def relu_in_place(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return ReLURule(0.1)(relevance_pass, F.relu, (x.clone(), True), {})


def relu_with_a_rule(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    def rule(g: Tensor, a: Tensor, x: Tensor) -> tuple[None, Tensor]:
        return None, g * a.square()

    return ReLU.apply(relevance_pass, rule, False, x.sin(), 2 * x)


def edge(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    """An edge that two nodes share: its relevance is the sum of theirs."""
    shared = RelevanceEdge.apply(relevance_pass, _double, x, x)
    y = RelevanceNode.apply(relevance_pass, lambda g, _: (3 * g,), x.sin(), shared)
    return RelevanceNode.apply(relevance_pass, lambda g, *_: (g, 4 * g), y.cos(), y, shared)


def overwrite(relevance_pass: RelevancePass, x: Tensor) -> Tensor:
    return Overwrite.apply(x.clone(), x.sin())


FUNCTIONS = [node, relu, relu_in_place, relu_with_a_rule, edge, overwrite]


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


def test_a_node_takes_its_rule_in_a_relevance_pass_only() -> None:
    x, g = points(5), points(5)
    torch.testing.assert_close(relevance(node, x, g), 2 * g * x.square())
    (gradient,) = torch.autograd.grad(node(RelevancePass(), x), x, g)
    torch.testing.assert_close(gradient, g * x.cos())


@pytest.mark.parametrize("function", [relu, relu_in_place])
def test_relu_relevance_is_scaled_by_its_stabilised_ratio(function: Callable[..., Tensor]) -> None:
    x, g = points(20), points(20)
    a = x.relu()
    torch.testing.assert_close(relevance(function, x, g), g * a / (a + 0.1))


def test_the_share_of_a_relu_has_gradients_of_its_own() -> None:
    """The fast path; torch's own take twice the steps."""
    assert type(relevance(relu, points(3), points(3)).grad_fn).__name__ == "StabilisedShareBackward"


@pytest.mark.parametrize("create_graph", [False, True])
def test_several_heatmaps_at_once_are_each_on_its_own(create_graph: bool) -> None:
    x, g = points(20), points(3, 20)
    relevance_pass = RelevancePass()
    y = relu(relevance_pass, x)
    with relevance_pass.running(batched=True):
        (together,) = torch.autograd.grad(y, x, g, is_grads_batched=True, create_graph=create_graph)
    torch.testing.assert_close(together, torch.stack([relevance(relu, x, one) for one in g]))


def test_relu_without_stabiliser_is_the_gradient() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    relevance_pass = RelevancePass()
    y = ReLURule(0.0)(relevance_pass, F.relu, (x,), {})
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
    y = RelevanceNode.apply(relevance_pass, lambda g, x: called.append(g), x.sin(), x)
    stopped = RelevanceNode.apply(relevance_pass, lambda g, y: (None,), y.cos(), y)
    with relevance_pass.running():
        (g,) = torch.autograd.grad((stopped + x).sum(), x)
    assert g.tolist() == [1, 1, 1]
    assert not called


def test_an_edge_adds_up_what_it_is_sent() -> None:
    x, g = points(4), points(4)
    torch.testing.assert_close(relevance(edge, x, g), (3 + 4) * g * 2 * x.square())


def test_an_edge_has_no_values_and_takes_no_memory() -> None:
    x = points(3, 5)
    placeholder = RelevanceEdge.apply(RelevancePass(), _double, x, x)
    assert placeholder.shape == x.shape
    assert placeholder.stride() == (0, 0)


def test_a_pass_knows_its_number() -> None:
    relevance_pass = RelevancePass()
    with relevance_pass.running(1):
        assert (relevance_pass.active, relevance_pass.number) == (True, 1)
    with relevance_pass.running():
        assert relevance_pass.number == 0
