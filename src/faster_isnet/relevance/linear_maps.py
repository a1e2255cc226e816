"""The linear layers as maps with an adjoint: what every relevance rule is written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class LinearMap(Protocol):
    """A map x ↦ W x + b, and its adjoint."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + b."""

    def adjoint(self, g: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return Wᵀ g, of the shape of the map's input ``x``."""

    def adjoints(self, g: Tensor, weights: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        """Return Wᵀ g for each of several weights."""
        return tuple(self.adjoint(g, weight, x) for weight in weights)

    def gradients(
        self, g: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        """Return the gradients of x, W and b that are needed, for a gradient ``g`` of the output.

        The gradient of W is bilinear in ``g`` and ``x``: what is laid side by side as samples of
        both is summed.
        """

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weight of the map whose outputs are multiplied by ``scale`` ``[C_out]``."""

    def per_output(self, values: Tensor) -> Tensor:
        """Shape ``values`` ``[C_out]`` so that they broadcast over the map's output."""


@dataclass(frozen=True, slots=True)
class Convolution(LinearMap):
    """A convolution or transposed convolution of 1, 2 or 3 dimensions.

    The adjoint is a convolution too, and not PyTorch's convolution backward: it is itself
    differentiated in training, and the double backward of convolutions is slow.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the convolution of ``x`` ``[B, C_in, ...]``."""
        return self._convolve(x, weight, bias, self.transposed, self.output_padding)

    def adjoint(self, g: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return what ``g`` ``[B, C_out, ...]`` sends to each element of ``x``."""
        size = x.shape[2:]
        if self.transposed:
            back = self._convolve(g, weight, None, False, (0,) * len(size))
            # An output padding larger than the stride allows windows that x does not have.
            for dim, n in enumerate(size, start=2):
                back = back.narrow(dim, 0, n)
            return back
        if self.stride.count(1) == len(self.stride):
            return self._convolve(g, weight, None, True, (0,) * len(size))
        kernel = weight.shape[2:]
        spans = zip(self.stride, self.padding, self.dilation, kernel, g.shape[2:], strict=True)
        shortest = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for s, p, d, k, n in spans]
        missing = tuple(n - m for n, m in zip(size, shortest, strict=True))
        return self._convolve(g, weight, None, True, missing)

    def adjoints(self, g: Tensor, weights: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        """Return the adjoints, by one convolution: an image's channels are too few for several."""
        if self.transposed or self.groups > 1:
            return LinearMap.adjoints(self, g, weights, x)
        return self.adjoint(g, torch.cat(weights, 1), x).chunk(len(weights), 1)

    def gradients(
        self, g: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        """Return PyTorch's gradients."""
        return torch.ops.aten.convolution_backward.default(  # type: ignore[no-any-return]
            *(g, x, weight, [g.shape[1]], self.stride, self.padding, self.dilation),
            *(self.transposed, self.output_padding, self.groups, needs),
        )

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Multiply each output channel's kernels."""
        ones = (1,) * len(self.stride)
        if not self.transposed:
            return weight * scale.reshape(-1, 1, *ones)
        # The weight is [C_in, C_out / groups, ...], its rows ordered by group.
        by_group = weight.reshape(self.groups, -1, *weight.shape[1:])
        return (by_group * scale.reshape(self.groups, 1, -1, *ones)).reshape(weight.shape)

    def per_output(self, values: Tensor) -> Tensor:
        """Shape ``values`` to ``[C_out, 1, ...]``."""
        return values.reshape(-1, *(1,) * len(self.stride))

    def _convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        transposed: bool,
        output_padding: Sequence[int],
    ) -> Tensor:
        return torch.convolution(
            *(x, weight.to(x.dtype), bias, self.stride, self.padding, self.dilation),
            *(transposed, output_padding, self.groups),
        )


@dataclass(frozen=True)
class Dense(LinearMap):
    """A linear layer on the last dimension."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``x`` ``[..., in]`` times ``weight`` ``[out, in]``, plus the bias."""
        return F.linear(x, weight, bias)

    def adjoint(self, g: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return what ``g`` ``[..., out]`` sends to each element of ``x``."""
        return g @ weight.to(g.dtype)

    def gradients(
        self, g: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        """Return the matrix products."""
        rows = g.reshape(-1, g.shape[-1])
        return (
            g @ weight if needs[0] else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if needs[1] else None,
            rows.sum(0) if needs[2] else None,
        )

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Multiply each output's row of weights."""
        return weight * scale[:, None]

    def per_output(self, values: Tensor) -> Tensor:
        """Return ``values``: the outputs are the last dimension."""
        return values


@dataclass(slots=True)
class LinearCall:
    """A call of a linear layer, taken apart: ``output = map(input) + bias``."""

    map: LinearMap
    input: Tensor
    weight: Tensor
    bias: Tensor | None


def convolution_call(
    input: Tensor,  # noqa: A002 - torch's name, by which it may be passed
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> LinearCall:
    """Read the arguments of ``torch.conv1d``, ``conv2d``, ``conv3d``."""
    n = weight.dim() - 2
    strides, dilations = _each(stride, n), _each(dilation, n)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        padding = [total // 2 for total in totals]
        if any(total % 2 for total in totals):  # an even kernel: one more on the right
            pads = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
            input, padding = F.pad(input, pads), 0  # noqa: A001
    convolution = Convolution(strides, _each(padding, n), dilations, (0,) * n, groups, False)
    return LinearCall(convolution, input, weight, bias)


def transposed_convolution_call(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> LinearCall:
    """Read the arguments of ``torch.conv_transpose1d``, ``conv_transpose2d``, ``…3d``."""
    n = weight.dim() - 2
    s, p, d, o = (_each(setting, n) for setting in (stride, padding, dilation, output_padding))
    convolution = Convolution(s, p, d, o, groups, True)
    return LinearCall(convolution, input, weight, bias)


def dense_call(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> LinearCall:  # noqa: A002
    """Read the arguments of ``F.linear``."""
    return LinearCall(Dense(), input, weight, bias)


LINEAR_CALLS: dict[Callable[..., Tensor], Callable[..., LinearCall]] = {
    torch.conv1d: convolution_call,
    torch.conv2d: convolution_call,
    torch.conv3d: convolution_call,
    torch.conv_transpose1d: transposed_convolution_call,
    torch.conv_transpose2d: transposed_convolution_call,
    torch.conv_transpose3d: transposed_convolution_call,
    F.linear: dense_call,
}
"""How to read each linear layer's arguments."""


def contrast(logits: Tensor, index: Tensor) -> Tensor:
    """Return y_c − y_c' for all classes c' ≠ c, ``[B, C − 1]``, of logits ``[B, C]``.

    ``index`` ``[B, 1]`` says c for every sample. It is a linear map of its own, known to torch's
    function protocol, so that a composite can make it one with the layer that the logits come from.

    Examples
    --------
    >>> contrast(torch.tensor([[3.0, 5.0, 9.0]]), torch.tensor([[1]]))
    tensor([[-4.,  2.]])
    """
    if has_torch_function_unary(logits):
        return handle_torch_function(contrast, (logits,), logits, index)
    classes = logits.shape[1]
    others = (index + torch.arange(1, classes, device=index.device)) % classes
    return logits.gather(1, index) - logits.gather(1, others)


def _each(setting: int | Sequence[int], n: int) -> tuple[int, ...]:
    """Return a convolution's setting for each of ``n`` dimensions, given one for all or each."""
    settings = (setting,) if isinstance(setting, int) else tuple(setting)
    return settings * n if len(settings) == 1 else settings
