"""Gradients of scores, which can be differentiated once more, through attention as well."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.methods.score_gradients import score_gradient, twice_differentiable


def attended(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, 2 * x, x.sin())


def written_out(x: Tensor) -> Tensor:
    return (x @ (2 * x).mT / x.shape[-1] ** 0.5).softmax(-1) @ x.sin()


def test_fused_attention_has_the_second_derivative_of_attention_that_is_written_out() -> None:
    x = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    second = []
    for attention in (attended, written_out):
        with twice_differentiable():
            y = attention(x).square()
        gradient = score_gradient(y, x)
        second.append(torch.autograd.grad(gradient.square().sum(), x)[0])
    torch.testing.assert_close(*second)


def test_without_that_it_has_none() -> None:
    """Should torch learn it, the context manager can go."""
    x = torch.rand(2, 1, 3, 4, requires_grad=True)
    gradient = score_gradient(attended(x).square(), x)
    with pytest.raises(RuntimeError, match="not implemented"):
        gradient.square().sum().backward()


def test_the_choice_of_functions_ends_with_the_block() -> None:
    before = torch.backends.cuda.flash_sdp_enabled()
    with twice_differentiable():
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() == before


def test_scores_that_do_not_depend_on_the_values_are_refused() -> None:
    x, y = torch.rand(2, requires_grad=True), torch.rand(2, requires_grad=True)
    for scores in (y * 2, (x * 2).detach()):
        with pytest.raises(ValueError, match="no gradient with respect to"):
            score_gradient(scores, x)
