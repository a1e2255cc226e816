"""Linear layers: relevance by the adjoint, and both gradients of the weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.linear_layers import linear_layer
from faster_isnet.relevance.linear_maps import Dense

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


@pytest.mark.parametrize(("width", "expected"), [(40, 1), (2, 0)])
def test_a_large_weight_gets_one_gradient_for_both_passes(
    width: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fast path: of the samples of both passes side by side. A small one has torch's own."""
    batches = []

    def gradients(_: Dense, g: Tensor, *args: Any) -> Any:
        if args[-1][1]:
            batches.append(len(g))
        return plain(Dense(), g, *args)

    plain = Dense.gradients
    monkeypatch.setattr(Dense, "gradients", gradients)
    x, weight = tensors([(1, 5), (width, 5)])
    relevance_pass = RelevancePass()
    y = linear_layer(relevance_pass, F.linear, (x, weight), {})
    with relevance_pass.running():
        (back,) = torch.autograd.grad(y, x, y.square(), create_graph=True)
    (y.sum() + back.square().sum()).backward()
    assert batches == [2] * expected
