"""Concatenations: one function splits the relevance, and a dense block shares its pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function

from faster_isnet.common.torch_private import versions
from faster_isnet.relevance.activations import spellings
from faster_isnet.relevance.functions import RelevancePass

CONCATENATIONS = spellings(["cat", "concat", "concatenate"])


@dataclass(frozen=True)
class ConcatenationRule:
    """Relevance of a concatenation: what it is made of gets its part of G.

    One function splits it, whose gradient is a concatenation. PyTorch's own gradient slices it once
    for each tensor, and the gradient of each slice is as large as the whole. What begins as the
    concatenation before it (a dense block's do) is made from that one: two slices then, and not
    one for each layer of the block.
    """

    def __call__(self, relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Concatenate."""
        tensors, dim = concatenated(*args, **kwargs)
        pieces = continuing(relevance_pass, tensors, dim)
        y = split_relevance(relevance_pass, torch.cat(pieces, dim), pieces, dim)
        written = versions((*tensors, y))
        relevance_pass.last_concatenation = Concatenation(tuple(tensors), dim, y, written)
        return y


class Concatenation(NamedTuple):
    """What was concatenated, along which dimension, what came of it, and the versions of all."""

    tensors: tuple[Tensor, ...]
    dim: int
    output: Tensor
    written: list[int]


def concatenated(
    tensors: Sequence[Tensor], dim: int = 0, axis: int | None = None
) -> tuple[Sequence[Tensor], int]:
    """Read the arguments of ``torch.cat``."""
    return tensors, dim if axis is None else axis


def continuing(
    relevance_pass: RelevancePass, tensors: Sequence[Tensor], dim: int
) -> tuple[Tensor, ...]:
    """Return the pieces to concatenate: the last concatenation, if ``tensors`` begin as it did."""
    last = relevance_pass.last_concatenation
    if isinstance(last, Concatenation) and dim == last.dim and len(tensors) > len(last.tensors):
        unchanged = last.written == versions((*last.tensors, last.output))
        if unchanged and all(map(is_, last.tensors, tensors)):
            return last.output, *tensors[len(last.tensors) :]
    return tuple(tensors)


def split_relevance(
    relevance_pass: RelevancePass, y: Tensor, pieces: Sequence[Tensor], dim: int
) -> Tensor:
    """Make ``y``, the pieces concatenated, split its relevance by one function."""
    # torch.cat leaves out pieces of one dimension that are empty.
    if not y.requires_grad or len({piece.dim() for piece in pieces}) > 1:
        return y
    sizes = [piece.shape[dim] for piece in pieces]
    return SplitRelevance.apply(relevance_pass, dim, sizes, y, *pieces)  # type: ignore[no-any-return]


class SplitRelevance(Function):
    """A concatenation whose relevance is split by one function.

    ``SplitRelevance.apply(relevance_pass, dim, sizes, y, *pieces)`` returns ``y``. It is a
    :class:`~faster_isnet.relevance.functions.RelevanceNode` to the pieces, which it does not keep,
    since they may be written to.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        dim: int,
        sizes: list[int],
        y: Tensor,
        *pieces: Tensor,
    ) -> Tensor:
        """Return ``y`` itself, with this node put on top of its history."""
        ctx.relevance_pass, ctx.dim, ctx.sizes = relevance_pass, dim, sizes
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Send the gradient to the output's history, or relevance to the pieces."""
        if grad is None or not ctx.relevance_pass.active:
            return None, None, None, grad, *(None,) * len(ctx.sizes)
        return None, None, None, None, *grad.split_with_sizes(ctx.sizes, ctx.dim)
