"""Concatenations: relevance is split by one function, and a dense block shares its pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from faster_isnet.relevance import flex
from faster_isnet.relevance.concatenations import ConcatenationRule
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.interception import Interception
from faster_isnet.relevance.linear_maps import Convolution


def tensors(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


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
def test_a_layer_keeps_no_more_than_its_part_of_the_relevance(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def adjoint(_: object, g: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        kept.append(g)
        return torch.zeros_like(x)

    monkeypatch.setattr(Convolution, "adjoint", adjoint)
    x, y = (t.to(memory_format=layout) for t in tensors([(2, 3, 4, 4), (2, 5, 4, 4)]))
    relevance_pass, weight = RelevancePass(), torch.rand(3, 3, 1, 1, dtype=torch.float64)
    with Interception(flex(0.1).table, relevance_pass):
        joined = torch.cat([F.conv2d(x, weight), y], 1)
    g = torch.rand_like(joined)
    with relevance_pass.running():
        torch.autograd.grad(joined, [x, y], g, create_graph=True)
    (part,) = kept
    assert torch.equal(part, g[:, :3])
    assert part.untyped_storage().nbytes() == part.nbytes
    assert part.is_contiguous(memory_format=layout)


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

    def counted(*arguments: Any) -> Tensor:
        joined = ConcatenationRule()(*arguments)
        sizes.append(len(joined.grad_fn.sizes))
        return joined

    with Interception({torch.cat: counted}, relevance_pass):
        dense_block(x, y, BETWEEN["nothing"])
    assert sizes == [2, 2, 2, 2]
    relevance_pass.reset()
    with Interception({torch.cat: counted}, relevance_pass):
        torch.cat([x, y, y, y], 1)
    assert sizes[-1] == 4
