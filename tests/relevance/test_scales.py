"""Scales of evaluated batch norms: what PyTorch's own gradient multiplies by."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from faster_isnet.relevance.scales import RunningScales

Norm = tuple[Tensor, float, Tensor | None, int]


def gradient(running_var: Tensor, eps: float, weight: Tensor | None, dims: int) -> Tensor:
    """Return what an evaluated batch norm multiplies by, channel by channel."""
    shape = 1, len(running_var), *(1,) * (dims - 2)
    x = torch.zeros(shape, dtype=running_var.dtype, requires_grad=True)
    weight = None if weight is None else weight.to(x)
    y = F.batch_norm(x, torch.zeros_like(running_var), running_var, weight, eps=eps)
    return torch.autograd.grad(y.sum(), x)[0][0]


@st.composite
def norms(draw: st.DrawFn) -> Norm:
    positive = st.floats(0.125, 8, width=32)
    channels = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    values = st.lists(positive, min_size=channels, max_size=channels)
    weight = draw(st.none() | values)
    return (
        torch.tensor(draw(values), dtype=dtype),
        draw(positive),
        None if weight is None else torch.tensor(weight, requires_grad=True),
        draw(st.integers(2, 5)),
    )


@settings(deadline=None)
@given(st.lists(norms(), min_size=1, max_size=5), st.data())
def test_each_is_the_gradient_whenever_it_is_asked_for(
    noted: list[Norm], data: st.DataObject
) -> None:
    scales = RunningScales()
    early = data.draw(st.integers(0, len(noted)))
    getters = [scales.note(*norm) for norm in noted[:early]]
    for get in getters[:1]:  # the others are noted after the first ones have been computed
        get()
    getters += [scales.note(*norm) for norm in noted[early:]]
    order = data.draw(st.permutations(range(len(noted))))
    for number in order:
        found, expected = getters[number](), gradient(*noted[number])
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("batched", [False, True])
def test_what_they_are_made_of_stays_as_it_is(batched: bool) -> None:
    running_var, weight = torch.tensor([3.0]), torch.tensor([2.0])
    scale = RunningScales().note(running_var, 1.0, weight, dims=2)
    if batched:  # in the pass of several heatmaps
        product = torch.vmap(lambda g: g * scale())(torch.ones(2, 1))
        assert product.tolist() == [[1.0], [1.0]]
    assert scale().tolist() == [1.0]
    assert (running_var.tolist(), weight.tolist()) == ([3.0], [2.0])


def test_weights_may_be_there_only_while_their_own_layer_is_passed() -> None:
    """As those are that are sharded layer by layer."""
    scales, weights = RunningScales(), [torch.tensor([2.0]), torch.tensor([6.0])]
    first, second = (scales.note(torch.tensor([3.0]), 1.0, weight, dims=2) for weight in weights)
    weights[0].untyped_storage().resize_(0)
    assert second().tolist() == [3.0]
    weights[0].untyped_storage().resize_(4)
    weights[0].fill_(2.0)
    weights[1].untyped_storage().resize_(0)
    assert first().tolist() == [1.0]
