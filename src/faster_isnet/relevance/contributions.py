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

from faster_isnet.relevance.concatenations import split_relevance
from faster_isnet.relevance.functions import RelevanceEdge, RelevanceNode, RelevancePass
from faster_isnet.relevance.linear_layers import adjoint_rule
from faster_isnet.relevance.linear_maps import LinearCall


class Contributions(ABC):
    """The contributions to some channels of a layer's output, biases not among them.

    Parameters
    ----------
    all
        A tensor whose G goes back to all contributions; its values mean nothing.

    Attributes
    ----------
    channels
        How many channels.
    """

    def __init__(self, all: Tensor) -> None:  # noqa: A002
        self.all = all
        self.channels = all.shape[1] if all.dim() > 1 else 1

    @cached_property
    def positive(self) -> Tensor:
        """The sums of the positive contributions."""
        return self._sums(1)

    @cached_property
    def negative(self) -> Tensor:
        """The sums of the negative contributions."""
        return self._sums(-1)

    @abstractmethod
    def _sums(self, sign: int) -> Tensor:
        """Return the sums of the contributions of one sign."""


def _part(x: Tensor, sign: int) -> Tensor:
    """Return the elements of one sign, zeros elsewhere."""
    return x.clamp(min=0) if sign > 0 else x.clamp(max=0)


class Elements(Contributions):
    """Elements that are contributions by themselves, or averages of such.

    Parameters
    ----------
    output
        The elements, whose history takes relevance as it takes gradients; or what a weightless
        linear function, such as average pooling, made of them.
    nonnegative
        Whether it is known that no element is negative.
    pool
        The weightless function, and the elements that it read.
    """

    def __init__(
        self,
        output: Tensor,
        nonnegative: bool,
        pool: tuple[Callable[[Tensor], Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(output)
        self._nonnegative, self._pool = nonnegative, pool

    def _sums(self, sign: int) -> Tensor:
        if self._nonnegative and sign > 0:
            return self.all
        if self._pool is None:
            return _part(self.all, sign)
        function, elements = self._pool
        return function(_part(elements, sign))


class Concatenated(Contributions):
    """Several contributions, side by side: to outputs of the same batch, height and width."""

    def __init__(self, relevance_pass: RelevancePass, pieces: Sequence[Contributions]) -> None:
        self._relevance_pass, self._pieces = relevance_pass, pieces
        sizes = [piece.channels for piece in pieces]
        first = pieces[0].all
        like = first.new_zeros(()).expand(first.shape[0], sum(sizes), *first.shape[2:])

        def rule(g: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return torch.split(g, sizes, 1)

        edge = RelevanceEdge.apply(relevance_pass, rule, like, *(piece.all for piece in pieces))
        super().__init__(edge)

    def _sums(self, sign: int) -> Tensor:
        sums = [piece.positive if sign > 0 else piece.negative for piece in self._pieces]
        return split_relevance(self._relevance_pass, torch.cat(sums, 1), sums, 1)


class Summed(Contributions):
    """A sum of tensors, such as a residual connection, of shapes that broadcast to the output's."""

    def __init__(
        self, relevance_pass: RelevancePass, output: Tensor, addends: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__(RelevanceEdge.apply(relevance_pass, _to_addends, output, *addends))
        self._addends = addends

    def _sums(self, sign: int) -> Tensor:
        x, y = self._addends
        return _part(x, sign) + _part(y, sign)


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
        operands = call.input, call.weight
        super().__init__(
            RelevanceEdge.apply(relevance_pass, adjoint_rule(call.map), output, *operands)
        )
        self._relevance_pass, self._call, self._output = relevance_pass, call, output
        self._nonnegative = nonnegative

    def _sums(self, sign: int) -> Tensor:
        call, x, w = self._call, self._call.input, self._call.weight
        if not self._nonnegative:
            up, down = (
                self._finish(call.map.forward(part, weight), part, weight)
                for part, weight in ((_part(x, s), _part(w, s * sign)) for s in (1, -1))
            )
            return up + down
        w = _part(w, sign)
        if sign > 0:
            return self._finish(call.map.forward(x, w), x, w)
        # What remains of the output without the positive ones: no convolution needed.
        rest = self._output - self.positive
        if call.bias is not None:
            rest = rest - call.map.per_output(call.bias)
        # Rounding must not make a positive number of a sum of negative ones.
        return self._finish(rest.clamp(max=0), x, w)

    def _finish(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        rule = adjoint_rule(self._call.map)
        return RelevanceNode.apply(self._relevance_pass, rule, y, x, weight)  # type: ignore[no-any-return]


def _to_addends(g: Tensor, *addends: Tensor) -> tuple[Any, ...]:
    return tuple(g.sum_to_size(addend.shape) for addend in addends)
