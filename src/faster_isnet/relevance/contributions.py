"""What the outputs of a layer are summed from.

A rule needs up to three sums of a layer: of all contributions, of the positive and of the negative
ones. Each is a tensor whose history sends relevance back to the layer's inputs; the sums of the
signed ones also have values, which the rule divides by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from faster_isnet.common.torch_private import is_view
from faster_isnet.relevance.concatenations import split_relevance
from faster_isnet.relevance.deferred_rules import BackwardRule
from faster_isnet.relevance.functions import RelevanceEdge, RelevanceNode, RelevancePass
from faster_isnet.relevance.linear_layers import adjoint_rule
from faster_isnet.relevance.linear_maps import LinearCall


class Contributions(ABC):
    """The contributions to some channels of a layer's output, biases not among them.

    Attributes
    ----------
    channels
        How many channels.
    all
        A tensor whose G goes back to all contributions; its values mean nothing.
    """

    channels: int
    all: Tensor

    @cached_property
    def positive(self) -> Tensor:
        """The sums of the positive contributions."""
        return self._positive()

    @cached_property
    def negative(self) -> Tensor:
        """The sums of the negative contributions."""
        return self._negative()

    @abstractmethod
    def _positive(self) -> Tensor: ...

    @abstractmethod
    def _negative(self) -> Tensor: ...


class Elements(Contributions):
    """A tensor whose elements are contributions by themselves.

    Parameters
    ----------
    values
        The tensor; its history takes relevance as it takes gradients.
    nonnegative
        Whether it is known to have no negative elements.
    """

    def __init__(self, values: Tensor, nonnegative: bool) -> None:
        self.channels = values.shape[1] if values.dim() > 1 else 1
        self.all, self._nonnegative = values, nonnegative

    def _positive(self) -> Tensor:
        return self.all if self._nonnegative else self.all.clamp(min=0)

    def _negative(self) -> Tensor:
        return self.all.clamp(max=0)


class Pooled(Contributions):
    """What a weightless linear function, such as average pooling, makes of its input.

    Parameters
    ----------
    function
        The function of the input alone.
    input
        Its input.
    output
        What it returned for it.
    nonnegative
        Whether the input is known to have no negative elements.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        input: Tensor,  # noqa: A002 - torch's name
        output: Tensor,
        nonnegative: bool,
    ) -> None:
        self.channels = output.shape[1] if output.dim() > 1 else 1
        self.all = output
        self._function, self._input, self._nonnegative = function, input, nonnegative

    def _positive(self) -> Tensor:
        return self.all if self._nonnegative else self._function(self._input.clamp(min=0))

    def _negative(self) -> Tensor:
        return self._function(self._input.clamp(max=0))


class Concatenated(Contributions):
    """Several contributions, side by side.

    Parameters
    ----------
    relevance_pass
        The flag of this forward pass.
    pieces
        Contributions to outputs of the same batch, height and width.
    """

    def __init__(self, relevance_pass: RelevancePass, pieces: Sequence[Contributions]) -> None:
        self._relevance_pass, self._pieces = relevance_pass, pieces
        sizes = [piece.channels for piece in pieces]
        self.channels = sum(sizes)
        first = pieces[0].all
        like = first.new_zeros(()).expand(first.shape[0], self.channels, *first.shape[2:])

        def rule(g: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return torch.split(g, sizes, 1)

        self.all = RelevanceEdge.apply(relevance_pass, rule, like, *(piece.all for piece in pieces))

    def _positive(self) -> Tensor:
        return self._joined([piece.positive for piece in self._pieces])

    def _negative(self) -> Tensor:
        return self._joined([piece.negative for piece in self._pieces])

    def _joined(self, sums: list[Tensor]) -> Tensor:
        return split_relevance(self._relevance_pass, torch.cat(sums, 1), sums, 1)


class Summed(Contributions):
    """A sum of tensors, such as a residual connection.

    Parameters
    ----------
    relevance_pass
        The flag of this forward pass.
    output
        The sum.
    addends
        The tensors that it is made of, of shapes that broadcast to the output's.
    """

    def __init__(
        self, relevance_pass: RelevancePass, output: Tensor, addends: tuple[Tensor, ...]
    ) -> None:
        self.channels = output.shape[1] if output.dim() > 1 else 1
        self._addends = addends
        self.all = RelevanceEdge.apply(relevance_pass, _to_addends, output, *addends)

    def _positive(self) -> Tensor:
        x, y = self._addends
        return x.clamp(min=0) + y.clamp(min=0)

    def _negative(self) -> Tensor:
        x, y = self._addends
        return x.clamp(max=0) + y.clamp(max=0)


class Mapped(Contributions):
    """The outputs of a convolution or dense layer.

    The sums of one sign are convolutions by themselves. For an input without negative elements
    there is one with w⁺ for Z⁺, and Z⁻ is what remains; else each takes two.

    Parameters
    ----------
    relevance_pass
        The flag of this forward pass.
    call
        The layer's call.
    output
        What it returned, bias included.
    nonnegative
        Whether the input is known to have no negative elements.
    """

    def __init__(
        self, relevance_pass: RelevancePass, call: LinearCall, output: Tensor, nonnegative: bool
    ) -> None:
        self.channels = output.shape[1]
        self._relevance_pass, self._call, self._output = relevance_pass, call, output
        self._nonnegative = nonnegative
        self.all = RelevanceEdge.apply(
            relevance_pass, _adjoint(call), output, call.input, call.weight
        )

    def _positive(self) -> Tensor:
        x, w = self._call.input, self._call.weight
        if self._nonnegative:
            return self._apply(x, w.relu())
        return self._apply(x.clamp(min=0), w.relu()) + self._apply(x.clamp(max=0), w.clamp(max=0))

    def _negative(self) -> Tensor:
        x, w = self._call.input, self._call.weight
        if self._nonnegative:
            return self._rest(w.clamp(max=0))
        return self._apply(x.clamp(min=0), w.clamp(max=0)) + self._apply(x.clamp(max=0), w.relu())

    def _apply(self, x: Tensor, weight: Tensor) -> Tensor:
        y = self._call.map.forward(x, weight)
        return RelevanceNode.apply(self._relevance_pass, _adjoint(self._call), y, x, weight)  # type: ignore[no-any-return]

    def _rest(self, weight: Tensor) -> Tensor:
        """Return what the positive contributions leave of the output: no convolution needed."""
        rest = self._output - self.positive
        if self._call.bias is not None:
            rest = rest - self._call.map.per_output(self._call.bias)
        # Rounding must not make a positive number of a sum of negative ones.
        rest = rest.clamp(max=0)
        return RelevanceNode.apply(  # type: ignore[no-any-return]
            self._relevance_pass, _adjoint(self._call), rest, self._call.input, weight
        )


def _adjoint(call: LinearCall) -> BackwardRule:
    rule = adjoint_rule(call.map)

    def copying_rule(g: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor | None, ...]:
        # What the adjoint keeps of a slice, a concatenation's, would keep the whole.
        return rule(g.clone() if is_view(g) else g, x, weight)

    return copying_rule


def _to_addends(g: Tensor, *addends: Tensor) -> tuple[Any, ...]:
    return tuple(g.sum_to_size(addend.shape) for addend in addends)
