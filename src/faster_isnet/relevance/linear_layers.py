"""Linear layers that pass relevance by their adjoint, at the price of the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import Function

from faster_isnet.common.precision import as_autocast_would
from faster_isnet.relevance.activations import spellings
from faster_isnet.relevance.functions import Detour, RelevancePass
from faster_isnet.relevance.linear_maps import LINEAR_CALLS, Dense, LinearMap
from faster_isnet.relevance.notes import versions
from faster_isnet.relevance.ways import Rule, Way

CONCATENATIONS = spellings(["cat", "concat", "concatenate"])


class LinearLayer(Function):
    """A linear layer whose weight gets the gradients of both passes in one.

    ``LinearLayer.apply(relevance_pass, map, x, weight, bias)`` returns the output y, and two
    tensors without values for :class:`Adjoint`, shaped as x and y. In training the weight has two
    gradients: δ ⊗ x, δ being the gradient of y, and G ⊗ v, where v is the gradient of what became
    of the relevance G. :class:`Adjoint` sends v and G here as the gradients of those two tensors,
    and both are computed as one: for large weights that is much less to write.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        linear_map: LinearMap,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's output, and the ways back from the adjoint to the weight."""
        ctx.relevance_pass, ctx.map = relevance_pass, linear_map
        ctx.set_materialize_grads(False)
        y = linear_map.forward(x, weight, bias)
        if y._is_view():  # of more than two dimensions: in-place activations refuse it
            y = y.clone()
        nothing = y.new_zeros(())
        ways = nothing.expand(x.shape), nothing.expand(y.shape)
        ctx.save_for_backward(x, weight, *ways)
        return y, *ways

    @staticmethod
    def backward(
        ctx: Any, g: Tensor | None, v: Tensor | None, relevance: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Send the gradients back, or relevance by the adjoint."""
        x, weight, *ways = ctx.saved_tensors
        if not ctx.relevance_pass.active:
            needs = ctx.needs_input_grad[2:]
            return None, None, *_gradients(ctx.map, x, weight, needs, g, v, relevance)
        if g is None:
            back = None
        elif ctx.relevance_pass.batched:
            back = ctx.map.adjoint(g, weight, x)
        else:
            back = Adjoint.apply(ctx.map, x, g, weight, *ways)
        return None, None, back, None, None


class Adjoint(Function):
    """The adjoint of a linear layer, whose gradients are plain convolutions and products.

    ``Adjoint.apply(map, x, G, weight, way_to_x, way_to_y)`` returns Wᵀ G, of the shape of x. The
    gradient of the weight is left to :class:`LinearLayer`, at the end of the two ways.
    """

    @staticmethod
    def forward(
        ctx: Any,
        linear_map: LinearMap,
        x: Tensor,
        g: Tensor,
        weight: Tensor,
        way_to_x: Tensor,
        way_to_y: Tensor,
    ) -> Tensor:
        """Return the adjoint."""
        ctx.map = linear_map
        ctx.save_for_backward(g, weight)
        return linear_map.adjoint(g, weight, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        """Send v on through the layer, and v and G to where the weight's gradient is made."""
        g, weight = ctx.saved_tensors
        onward = ctx.map.forward(v, weight) if ctx.needs_input_grad[2] else None
        return None, None, onward, None, v, g


class Adjoints(Function):
    """The adjoints of a layer for several weights, whose gradients are made one after the other.

    ``Adjoints.apply(map, x, G, *weights)`` returns Wᵀ G for each weight, of the shape of x. For the
    few channels of an image the gradients of two weights take less time than that of both as one.
    """

    @staticmethod
    def forward(
        ctx: Any, linear_map: LinearMap, x: Tensor, g: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the adjoints."""
        ctx.map = linear_map
        ctx.save_for_backward(g, *weights)
        return linear_map.adjoints(g, weights, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of G and of each weight."""
        g, *weights = ctx.saved_tensors
        of_g = reduce(torch.add, map(ctx.map.forward, gradients, weights))
        needed = ctx.needs_input_grad[3:]
        of_weights = (  # all of one dtype, which autocast sees to elsewhere
            ctx.map.gradients(g, v.to(g.dtype), weight.to(g.dtype), (False, need, False))[1]
            for v, weight, need in zip(gradients, weights, needed, strict=True)
        )
        return None, None, of_g, *of_weights


@dataclass(frozen=True)
class AdjointRule:
    """Relevance of a linear layer, and of what scales its inputs and outputs by channel, if any.

    Attributes
    ----------
    map
        The layer's.
    input_factors
        How many of the factors scale the inputs; the others scale the outputs.
    """

    map: LinearMap
    input_factors: int = 0

    def __call__(
        self, g: Tensor, x: Tensor, weight: Tensor, *factors: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return Wᵀ G for the input.

        ``factors`` ``[C_in]`` scale the weights, those ``[C_out]`` these as well, or G if smaller.
        """
        nothing = (None,) * len(factors)
        before, behind = factors[: self.input_factors], factors[self.input_factors :]
        if before:
            weight = self.map.scale_inputs(weight, reduce(torch.mul, before))
        if behind:
            scale = reduce(torch.mul, behind)
            if weight.numel() < g.numel():
                weight = self.map.scale_outputs(weight, scale)
            else:
                g = g * self.map.per_output(scale).to(g.dtype)
        return self.map.adjoint(g, weight, x), None, *nothing


def linear_layer(relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Compute a linear layer that passes G by its gradient."""
    call = LINEAR_CALLS[func](*args, **kwargs)
    x, weight = call.input, call.weight
    batched = x.dim() > 1 if isinstance(call.map, Dense) else x.dim() == weight.dim()
    if not (batched and x.requires_grad):
        return func(*args, **kwargs)  # type: ignore[no-any-return]
    if _is_large(weight, x):
        tensors = as_autocast_would(x, weight, call.bias)
        y, *_ = LinearLayer.apply(relevance_pass, call.map, *tensors)
        return y  # type: ignore[no-any-return]
    y = func(*args, **kwargs)
    if isinstance(call.map, Dense) and x.dim() > 2:  # its outputs are no channels
        y = y.clone() if y._is_view() else y  # in-place activations refuse a view
        return Detour.apply(relevance_pass, AdjointRule(call.map), y, x, weight)  # type: ignore[no-any-return]
    if not y.requires_grad:
        return y  # type: ignore[no-any-return]
    entrance = relevance_pass.latest_entrance
    if entrance is not None and entrance.leads_to(x) and weight.numel() < x.numel():
        rule = AdjointRule(call.map, len(entrance.factors))
        operands = entrance.operand, weight, *entrance.factors
    else:
        rule, operands = AdjointRule(call.map), (x, weight)
    return relevance_pass.ways.leave(y, rule, *operands, optional=True)


def _is_large(weight: Tensor, x: Tensor) -> bool:
    """Say whether a weight's gradient costs more to write than what it is made of to copy."""
    return weight.numel() > 16 * x.numel()


def concatenated(
    tensors: Sequence[Tensor], dim: int = 0, axis: int | None = None
) -> tuple[Sequence[Tensor], int]:
    """Read the arguments of ``torch.cat``."""
    return tensors, dim if axis is None else axis


@dataclass(frozen=True)
class ConcatenationRule:
    """Relevance of a concatenation: what it is made of gets its part of G.

    One function splits it, whose gradient is a concatenation. PyTorch's own gradient slices it once
    for each tensor, and the gradient of each slice is as large as the whole. What begins as the
    concatenation before it (a dense block's do) is made from that one: two slices then, and not
    one for each layer of the block.
    """

    joins_ways: ClassVar[bool] = True

    def __call__(self, relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Concatenate."""
        tensors, dim = concatenated(*args, **kwargs)
        pieces = continuing(relevance_pass, tensors, dim)
        # torch.cat leaves out pieces of one dimension that are empty.
        if relevance_pass.differentiable and len({piece.dim() for piece in pieces}) == 1:
            ways = [relevance_pass.ways.join(piece) for piece in pieces]
            y = split_relevance(relevance_pass, torch.cat(pieces, dim), pieces, dim, ways)
        else:
            relevance_pass.settle(pieces)
            y = torch.cat(pieces, dim)
        relevance_pass.latest_concatenation = Concatenation.of(tensors, dim, y)
        return y


def continuing(
    relevance_pass: RelevancePass, tensors: Sequence[Tensor], dim: int
) -> tuple[Tensor, ...]:
    """Return pieces to concatenate: the latest concatenation may be what ``tensors`` begin with."""
    latest = relevance_pass.latest_concatenation
    pieces = latest.continued(tensors, dim) if isinstance(latest, Concatenation) else None
    return pieces or tuple(tensors)


def split_relevance(
    relevance_pass: RelevancePass,
    y: Tensor,
    pieces: Sequence[Tensor],
    dim: int,
    ways: Sequence[Way | None] | None = None,
) -> Tensor:
    """Make ``y``, the pieces concatenated, split its relevance by one function.

    ``ways`` are those of the pieces, where relevance shall go on by them.
    """
    if not y.requires_grad:
        return y
    parts, to_pieces, operands = list[_Part](), list[Tensor](), list[Tensor]()
    for piece, way in zip(pieces, ways or (None,) * len(pieces), strict=True):
        if way is None:
            parts.append(_Part(piece.shape[dim], None, 0))
            to_pieces.append(piece)
        else:
            parts.append(_Part(piece.shape[dim], way.rule, len(way.operands)))
            operands += way.operands
    ways_taken = len(parts) - len(to_pieces)
    return SplitRelevance.apply(relevance_pass, dim, parts, ways_taken, y, *to_pieces, *operands)  # type: ignore[no-any-return]


@dataclass(slots=True)
class _Part:
    """What is sent to a piece of a concatenation: its size, and the rule that takes it on."""

    size: int
    rule: Rule | None
    operands: int


class SplitRelevance(Function):
    """A concatenation whose relevance is split by one function.

    ``SplitRelevance.apply(relevance_pass, dim, parts, ways, y, *pieces, *operands)`` returns ``y``.
    It is a :class:`~faster_isnet.relevance.functions.Detour` to the pieces of those parts that have
    no rule, which it does not keep, since they may be written to, and to the operands of the rules
    of the others, which are ``ways`` in number.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        dim: int,
        parts: list[_Part],
        ways: int,
        y: Tensor,
        *pieces_and_operands: Tensor,
    ) -> Tensor:
        """Return ``y`` itself, with this node put on top of its history."""
        ctx.relevance_pass, ctx.dim, ctx.parts = relevance_pass, dim, parts
        ctx.save_for_backward(*pieces_and_operands[len(parts) - ways :])
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Send the gradient down its own way, or relevance to the pieces."""
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


@dataclass(frozen=True)
class Concatenation:
    """What has been concatenated, along which dimension, and what came of it."""

    tensors: tuple[Tensor, ...]
    dim: int
    output: Tensor
    versions: list[int]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], dim: int, output: Tensor) -> Concatenation:
        """Note it, with the versions that the tensors have now."""
        return cls(tuple(tensors), dim, output, versions((*tensors, output)))

    def continued(self, tensors: Sequence[Tensor], dim: int) -> tuple[Tensor, ...] | None:
        """Return the pieces of a concatenation that begins as this one did, if it does."""
        old = len(self.tensors)
        same = dim == self.dim and len(tensors) > old
        same = same and all(map(is_, self.tensors, tensors))
        if not same or self.versions != versions((*self.tensors, self.output)):
            return None
        return self.output, *tensors[old:]


def _gradients(
    linear_map: LinearMap,
    x: Tensor,
    weight: Tensor,
    needs: tuple[bool, bool, bool],
    g: Tensor | None,
    v: Tensor | None,
    relevance: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight and bias from those of the two passes."""
    need_x, need_weight, need_bias = needs
    if v is None or relevance is None or not need_weight:
        return (None, None, None) if g is None else linear_map.gradients(g, x, weight, needs)
    if g is None:
        return None, linear_map.gradients(relevance, v, weight, (False, True, False))[1], None
    if weight.numel() > 8 * (x.numel() + g.numel()):
        # It costs less to copy what the gradients are made of than to write the weight's twice.
        together = torch.cat([g, relevance]), torch.cat([x, v])
        _, of_weight, _ = linear_map.gradients(*together, weight, (False, True, False))
        of_x, _, of_bias = linear_map.gradients(g, x, weight, (need_x, False, need_bias))
        return of_x, of_weight, of_bias
    of_x, of_weight, of_bias = linear_map.gradients(g, x, weight, needs)
    _, more, _ = linear_map.gradients(relevance, v, weight, (False, True, False))
    assert of_weight is not None
    assert more is not None
    return of_x, of_weight.add_(more), of_bias
