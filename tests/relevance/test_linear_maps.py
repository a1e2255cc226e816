"""Linear layers as maps with an adjoint."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from faster_isnet.relevance.linear_maps import LINEAR_CALLS, dense_call

CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


@st.composite
def convolution_arguments(draw: st.DrawFn, transposed: bool) -> tuple[int, Tensor, Tensor, dict]:
    n = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 2))
    sizes = tuple(draw(st.integers(3, 8)) for _ in range(n))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(n))
    each = {
        name: tuple(draw(st.integers(1, 3)) for _ in range(n)) for name in ("stride", "dilation")
    }
    padding = tuple(draw(st.integers(0, 2)) for _ in range(n))
    arguments = {**each, "padding": padding, "groups": groups}
    if transposed:
        limits = [max(s, d) - 1 for s, d in zip(*each.values(), strict=True)]
        arguments["output_padding"] = tuple(draw(st.integers(0, limit)) for limit in limits)
    x = torch.randn(2, 2 * groups, *sizes, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2 * groups, 2, *kernel, dtype=torch.float64)
    return n, x, weight, arguments


def check_map(func, x: Tensor, weight: Tensor, arguments: dict) -> None:
    """Compare a call's map with the function, and its adjoint with the function's gradient."""
    try:
        y = func(x, weight, **arguments)
    except RuntimeError:  # the kernel is larger than the padded input
        assume(False)
    call = LINEAR_CALLS[func](x, weight, **arguments)
    torch.testing.assert_close(call.map.forward(call.input, weight), y)
    g = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, g)
    back = call.map.adjoint(g, weight, call.input)
    if call.input is x:
        torch.testing.assert_close(back, expected)
    else:
        torch.testing.assert_close(torch.autograd.grad(call.input, x, back)[0], expected)
    of_input, _, of_bias = call.map.gradients(g, call.input, weight, (True, False, True))
    torch.testing.assert_close(of_input, back)
    torch.testing.assert_close(of_bias, g.sum([0, *range(2, g.dim())]))
    scale = torch.randn(y.shape[1], dtype=torch.float64)
    scaled = call.map.forward(call.input, call.map.scale_outputs(weight, scale))
    torch.testing.assert_close(scaled, call.map.per_output(scale) * y)


@settings(max_examples=60)
@given(convolution_arguments(transposed=False))
def test_convolution(drawn: tuple[int, Tensor, Tensor, dict]) -> None:
    n, x, weight, arguments = drawn
    check_map(CONVOLUTIONS[n], x, weight, arguments)


@settings(max_examples=60)
@given(convolution_arguments(transposed=True))
def test_transposed_convolution(drawn: tuple[int, Tensor, Tensor, dict]) -> None:
    n, x, weight, arguments = drawn
    check_map(TRANSPOSED[n], x, weight, arguments)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_by_name(padding: str, kernel: tuple[int, int], dilation: int) -> None:
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, *kernel, dtype=torch.float64)
    check_map(torch.conv2d, x, weight, {"padding": padding, "dilation": dilation})


@pytest.mark.parametrize("size", [(12, 12), (9, 14)])
@pytest.mark.parametrize("padding", [0, 1, (3, 3), (2, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [(7, 7), (1, 3), (4, 2)])
def test_the_layer_of_an_image(
    kernel: tuple[int, int], stride: int, padding: int | tuple[int, int], size: tuple[int, int]
) -> None:
    """Strided, and whatever of the image its windows leave out."""
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, *kernel, dtype=torch.float64)
    check_map(torch.conv2d, x, weight, {"stride": stride, "padding": padding})
    dilated = weight[..., :3, :3].contiguous()
    check_map(torch.conv2d, x, dilated, {"stride": stride, "padding": padding, "dilation": 2})


def test_dense() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight, scale = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    y = F.linear(x, weight)
    linear = dense_call(x, weight).map
    torch.testing.assert_close(linear.forward(x, weight), y)
    g = torch.randn_like(y)
    torch.testing.assert_close(linear.adjoint(g, weight, x), torch.autograd.grad(y, x, g)[0])
    scaled = linear.forward(x, linear.scale_outputs(weight, scale))
    torch.testing.assert_close(scaled, linear.per_output(scale) * y)
