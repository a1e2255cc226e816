"""Linear layers and concatenations: relevance by the adjoint, and both gradients of the weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.interception import Interception
from faster_isnet.relevance.linear_layers import (
    Adjoints,
    ConcatenationRule,
    linear_layer,
    split_relevance,
)
from faster_isnet.relevance.linear_maps import LINEAR_CALLS
from faster_isnet.relevance.ways import Way

Layer = Callable[..., Tensor]


# The function, its arguments' shapes, and its options. Where the weight is larger than what is read
# and written its gradients are made as one, elsewhere they are added.
LAYERS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]], dict[str, object]]] = {
    "dense": (F.linear, [(3, 2), (4, 2), (4,)], {}),
    "dense, large weight": (F.linear, [(1, 5), (6, 5)], {}),
    "dense on the last dimension": (F.linear, [(2, 3, 2), (4, 2), (4,)], {}),
    "convolution": (torch.conv2d, [(2, 2, 4, 5), (3, 2, 3, 2), (3,)], {"stride": 2, "padding": 1}),
    "convolution, large weight": (torch.conv2d, [(1, 2, 2, 2), (3, 2, 3, 3)], {"padding": 1}),
    "grouped": (torch.conv1d, [(2, 4, 5), (6, 2, 3), (6,)], {"groups": 2, "dilation": 2}),
    "same padding": (torch.conv1d, [(2, 2, 5), (2, 2, 2), (2,)], {"padding": "same"}),
    "transposed": (torch.conv_transpose2d, [(2, 2, 3, 3), (2, 3, 2, 2), (3,)], {"stride": 2}),
}
CASES = pytest.mark.parametrize(("func", "shapes", "options"), LAYERS.values(), ids=LAYERS)


def tensors(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def relevance(
    func: Layer, options: dict[str, object], g: Tensor, x: Tensor, *parameters: Tensor
) -> Tensor:
    relevance_pass = RelevancePass()
    y = linear_layer(relevance_pass, func, (x, *parameters), options)
    with relevance_pass.running():
        return torch.autograd.grad(y, x, g, create_graph=True)[0]


@CASES
def test_ordinary_gradients(func: Layer, shapes: list, options: dict) -> None:
    def layer(*args: Tensor) -> Tensor:
        return linear_layer(RelevancePass(), func, args, options)

    args = tensors(shapes)
    torch.testing.assert_close(layer(*args), func(*args, **options))
    assert gradcheck(layer, args)
    assert gradgradcheck(layer, args)


@CASES
def test_relevance_is_the_adjoint_and_can_be_differentiated_twice(
    func: Layer, shapes: list, options: dict
) -> None:
    x, weight, *bias = tensors(shapes)
    y = func(x, weight, *bias, **options)
    g = torch.randn_like(y).requires_grad_()
    torch.testing.assert_close(
        relevance(func, options, g, x, weight, *bias), torch.autograd.grad(y, x, g)[0]
    )

    def explained(g: Tensor, weight: Tensor) -> Tensor:
        return relevance(func, options, g, x, weight, *bias)

    assert gradcheck(explained, (g, weight))
    assert gradgradcheck(explained, (g, weight))


@CASES
@pytest.mark.parametrize("loss_of", ["relevance", "output", "both"])
def test_the_weight_gets_the_gradients_of_both_passes(
    func: Layer, shapes: list, options: dict, loss_of: str
) -> None:
    """The same as PyTorch's own double backward."""
    x, *parameters = tensors(shapes)
    relevance_pass = RelevancePass()
    gradients = []
    for y in (
        linear_layer(relevance_pass, func, (x, *parameters), options),
        func(x, *parameters, **options),
    ):
        g = y.square() if loss_of != "relevance" else torch.ones_like(y) * x.sum()
        with relevance_pass.running():
            (back,) = torch.autograd.grad(y, x, g, create_graph=True)
        loss = {"relevance": 0, "output": 1, "both": 1}[loss_of] * y.pow(3).sum()
        loss = loss + {"relevance": 1, "output": 0, "both": 1}[loss_of] * back.pow(3).sum()
        gradients.append(torch.autograd.grad(loss, [x, *parameters], materialize_grads=True))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@CASES
def test_adjoints_for_several_weights(func: Layer, shapes: list, options: dict) -> None:
    x, weight, *_ = tensors(shapes)
    other = torch.randn_like(weight, requires_grad=True)
    call = LINEAR_CALLS[func](x, weight, **options)
    g = torch.randn_like(call.map.forward(call.input, weight)).requires_grad_()

    def adjoints(g: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return Adjoints.apply(call.map, call.input, g, *weights)

    for back, w in zip(adjoints(g, weight, other), (weight, other), strict=True):
        torch.testing.assert_close(back, call.map.adjoint(g, w, call.input))
    for inputs in ((g, weight, other), (g, weight.detach(), other)):
        assert gradcheck(adjoints, inputs)
        assert gradgradcheck(adjoints, inputs)


@CASES
def test_what_is_frozen_gets_nothing(func: Layer, shapes: list, options: dict) -> None:
    x, *parameters = tensors(shapes)
    for parameter in parameters:
        parameter.requires_grad_(False)
    relevance_pass = RelevancePass()
    y = linear_layer(relevance_pass, func, (x, *parameters), options)
    with relevance_pass.running():
        (back,) = torch.autograd.grad(y, x, y.square(), create_graph=True)
    (y.sum() + back.square().sum()).backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in parameters)


@CASES
@pytest.mark.parametrize("create_graph", [False, True])
def test_several_heatmaps_at_once_are_each_on_its_own(
    func: Layer, shapes: list, options: dict, create_graph: bool
) -> None:
    x, *parameters = tensors(shapes)
    relevance_pass = RelevancePass()
    y = linear_layer(relevance_pass, func, (x, *parameters), options)
    g = torch.randn(3, *y.shape, dtype=torch.float64)
    with relevance_pass.running(batched=True):
        (together,) = torch.autograd.grad(y, x, g, is_grads_batched=True, create_graph=create_graph)
    one_by_one = [relevance(func, options, each, x, *parameters) for each in g]
    torch.testing.assert_close(together, torch.stack(one_by_one))


@pytest.mark.parametrize("arguments", [{"dim": 1}, {"dim": -1}, {"axis": 1}, {}])
def test_concatenation(arguments: dict[str, int]) -> None:
    x, y = tensors([(2, 2), (2, 2)])
    relevance_pass = RelevancePass()

    def split(g: Tensor) -> tuple[Tensor, ...]:
        joined = ConcatenationRule()(relevance_pass, torch.cat, ([x, x * y, y],), arguments)
        with relevance_pass.running():
            return torch.autograd.grad(joined, [x, y], g, create_graph=True)

    joined = torch.cat([x, x * y, y], **arguments)
    g = torch.randn_like(joined).requires_grad_()
    for ours, theirs in zip(split(g), torch.autograd.grad(joined, [x, y], g), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert gradcheck(split, g)
    assert gradgradcheck(split, g)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_piece_keeps_no_more_than_its_part_of_the_relevance(layout: torch.memory_format) -> None:
    kept = []
    x, y = (t.to(memory_format=layout) for t in tensors([(2, 3, 4, 4), (2, 5, 4, 4)]))

    def rule(g: Tensor, x: Tensor) -> tuple[Tensor]:
        kept.append(g)
        return (g,)

    relevance_pass, joined = RelevancePass(), torch.cat([x, y], 1)
    joined = split_relevance(relevance_pass, joined, [x, y], 1, [Way(rule, (x,)), None])
    with relevance_pass.running():
        torch.autograd.grad(joined, [x, y], torch.rand_like(joined), create_graph=True)
    (g,) = kept
    assert g.untyped_storage().nbytes() == g.nbytes
    assert g.is_contiguous(memory_format=layout)


def dense_block(x: Tensor, y: Tensor, between: Callable[[list[Tensor], Tensor], object]) -> Tensor:
    """Return the last of the concatenations that a dense block makes."""
    features = [x, x * y]
    for _ in range(3):
        joined = torch.cat(features, 1)
        between(features, joined)
        features.append(joined.sum(1, keepdim=True) * y)
    return torch.cat(features, 1)


BETWEEN: dict[str, Callable[[list[Tensor], Tensor], object]] = {
    "nothing": lambda features, joined: None,
    "another concatenation": lambda features, joined: torch.cat(features[1:], 1),
    "the output written to": lambda features, joined: joined.mul_(2),
    "an input written to": lambda features, joined: features[1].mul_(2),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_a_concatenation_may_continue_the_one_before_it(
    between: Callable[[list[Tensor], Tensor], object],
) -> None:
    x, y = tensors([(2, 3), (2, 1)])

    def relevance(g: Tensor) -> tuple[Tensor, ...]:
        relevance_pass = RelevancePass()
        with Interception({torch.cat: ConcatenationRule()}, relevance_pass):
            joined = dense_block(x, y, between)
        with relevance_pass.running():
            return torch.autograd.grad(joined, [x, y], g, create_graph=True)

    expected = dense_block(x, y, between)
    with Interception({torch.cat: ConcatenationRule()}, RelevancePass()):
        torch.testing.assert_close(dense_block(x, y, between), expected)
    g = torch.randn_like(expected).requires_grad_()
    for ours, theirs in zip(relevance(g), torch.autograd.grad(expected, [x, y], g), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert gradgradcheck(relevance, g)


def test_a_dense_block_costs_two_slices_a_layer() -> None:
    sizes = []
    relevance_pass, (x, y) = RelevancePass(), tensors([(2, 3), (2, 1)])

    def noted(*arguments: Any) -> Tensor:
        joined = ConcatenationRule()(*arguments)
        sizes.append(len(joined.grad_fn.parts))
        return joined

    with Interception({torch.cat: noted}, relevance_pass):
        dense_block(x, y, BETWEEN["nothing"])
    assert sizes == [2, 2, 2, 2]
    relevance_pass.forget()
    with Interception({torch.cat: noted}, relevance_pass):
        torch.cat([x, y, y, y], 1)
    assert sizes[-1] == 4
