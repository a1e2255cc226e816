"""Concatenations: one function splits the relevance, and a dense block shares its pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import Function

from faster_isnet.common.torch_private import versions
from faster_isnet.relevance.activations import spellings
from faster_isnet.relevance.deferred_rules import BackwardRule, DeferredRule
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

    fuses: ClassVar[bool] = True

    def __call__(self, relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Concatenate."""
        tensors, dim = concatenated(*args, **kwargs)
        pieces = continuing(relevance_pass, tensors, dim)
        # torch.cat leaves out pieces of one dimension that are empty.
        if len({piece.dim() for piece in pieces}) == 1:
            deferred = [relevance_pass.deferred.fuse(piece) for piece in pieces]
            y = split_relevance(relevance_pass, torch.cat(pieces, dim), pieces, dim, deferred)
        else:
            relevance_pass.flush(pieces)
            y = torch.cat(pieces, dim)
        relevance_pass.last_concatenation = Concatenation.of(tensors, dim, y)
        return y


@dataclass(frozen=True)
class Concatenation:
    """What was concatenated, along which dimension, and what came of it."""

    tensors: tuple[Tensor, ...]
    dim: int
    output: Tensor
    written: list[int]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], dim: int, output: Tensor) -> Concatenation:
        """Return it, with the versions that the tensors have now."""
        return cls(tuple(tensors), dim, output, versions((*tensors, output)))

    def continued(self, tensors: Sequence[Tensor], dim: int) -> tuple[Tensor, ...] | None:
        """Return the pieces of a concatenation that begins as this one did, if it does."""
        old = len(self.tensors)
        same = dim == self.dim and len(tensors) > old
        same = same and all(map(is_, self.tensors, tensors))
        if not same or self.written != versions((*self.tensors, self.output)):
            return None
        return self.output, *tensors[old:]


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
    pieces = last.continued(tensors, dim) if isinstance(last, Concatenation) else None
    return pieces or tuple(tensors)


def split_relevance(
    relevance_pass: RelevancePass,
    y: Tensor,
    pieces: Sequence[Tensor],
    dim: int,
    deferred: Sequence[DeferredRule | None] | None = None,
) -> Tensor:
    """Make ``y``, the pieces concatenated, split its relevance by one function.

    ``deferred`` are the rules of the pieces that relevance shall go on by.
    """
    if not y.requires_grad:
        return y
    parts, unfused, operands = list[_Part](), list[Tensor](), list[Tensor]()
    for piece, fused in zip(pieces, deferred or (None,) * len(pieces), strict=True):
        if fused is None:
            parts.append(_Part(piece.shape[dim], None, 0))
            unfused.append(piece)
        else:
            parts.append(_Part(piece.shape[dim], fused.rule, len(fused.operands)))
            operands += fused.operands
    return SplitRelevance.apply(relevance_pass, dim, parts, len(unfused), y, *unfused, *operands)  # type: ignore[no-any-return]


@dataclass(slots=True)
class _Part:
    """The size of a piece of a concatenation, and the rule that was fused, if one was."""

    size: int
    rule: BackwardRule | None
    operands: int


class SplitRelevance(Function):
    """A concatenation whose relevance is split by one function.

    ``SplitRelevance.apply(relevance_pass, dim, parts, unfused, y, *pieces, *operands)`` returns
    ``y``. It is a :class:`~faster_isnet.relevance.functions.RelevanceNode` to the pieces of those
    parts that have no rule, ``unfused`` in number, which it does not keep, since they may be
    written to, and to the operands of the rules of the others.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        dim: int,
        parts: list[_Part],
        unfused: int,
        y: Tensor,
        *pieces_and_operands: Tensor,
    ) -> Tensor:
        """Return ``y`` itself, with this node put on top of its history."""
        ctx.relevance_pass, ctx.dim, ctx.parts = relevance_pass, dim, parts
        ctx.save_for_backward(*pieces_and_operands[unfused:])
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Send the gradient to the output's history, or relevance to the pieces."""
        if grad is None or not ctx.relevance_pass.active:
            return None, None, None, None, grad, *(None,) * (len(ctx.needs_input_grad) - 5)
        to_pieces, to_operands, operands = [], [], iter(ctx.saved_tensors)
        sizes = [part.size for part in ctx.parts]
        for part, g in zip(ctx.parts, grad.split_with_sizes(sizes, ctx.dim), strict=True):
            if part.rule is None:
                to_pieces.append(g)
            else:
                # A copy: what the rule keeps of a slice would keep the whole.
                to_operands += part.rule(g.clone(), *islice(operands, part.operands))
        return None, None, None, None, None, *to_pieces, *to_operands
