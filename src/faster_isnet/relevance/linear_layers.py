"""Linear layers that pass relevance by their adjoint, at the price of the arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from faster_isnet.common.precision import as_autocast_would
from faster_isnet.common.torch_private import is_view
from faster_isnet.relevance.deferred_rules import BackwardRule
from faster_isnet.relevance.functions import RelevanceNode, RelevancePass
from faster_isnet.relevance.linear_maps import LINEAR_CALLS, Dense, Gradients, LinearMap


class LinearLayer(Function):
    """A linear layer whose weight gets the gradients of both passes in one.

    ``LinearLayer.apply(relevance_pass, map, x, weight, bias)`` returns the output y, and two
    placeholders without values for :class:`Adjoint`, shaped as x and y. In training the weight has
    two gradients: δ ⊗ x, δ being the gradient of y, and G ⊗ v, where v is the gradient of what
    became of the relevance G. :class:`Adjoint` sends v and G here as the gradients of the
    placeholders, and both gradients of the weight are computed as one: for large weights that is
    much less to write.
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
        """Return the layer's output, and the placeholders."""
        ctx.relevance_pass, ctx.map = relevance_pass, linear_map
        ctx.set_materialize_grads(False)
        y = _no_view(linear_map.forward(x, weight, bias))
        nothing = y.new_zeros(())
        placeholders = nothing.expand(x.shape), nothing.expand(y.shape)
        ctx.save_for_backward(x, weight, *placeholders)
        return y, *placeholders

    @staticmethod
    def backward(
        ctx: Any, g: Tensor | None, v: Tensor | None, relevance: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Send the gradients back, or relevance by the adjoint."""
        x, weight, *placeholders = ctx.saved_tensors
        if not ctx.relevance_pass.active:
            needs = ctx.needs_input_grad[2:]
            return None, None, *_gradients(ctx.map, x, weight, needs, g, v, relevance)
        if g is None:
            back = None
        elif ctx.relevance_pass.batched:
            back = ctx.map.adjoint(g, weight, x)
        else:
            back = Adjoint.apply(ctx.map, x, g, weight, *placeholders)
        return None, None, back, None, None


class Adjoint(Function):
    """The adjoint of a linear layer, whose weight gets its gradient elsewhere.

    ``Adjoint.apply(map, x, G, weight, like_x, like_y)`` returns Wᵀ G, of the shape of x. The
    gradient of the weight is left to :class:`LinearLayer`, which the placeholders lead to.
    """

    @staticmethod
    def forward(
        ctx: Any,
        linear_map: LinearMap,
        x: Tensor,
        g: Tensor,
        weight: Tensor,
        like_x: Tensor,
        like_y: Tensor,
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


def adjoint_rule(linear_map: LinearMap) -> BackwardRule:
    """Return the backward rule of a linear layer, for operands x and weight: Wᵀ G for x."""

    def rule(g: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, None]:
        # A copy of a slice: what is kept of a concatenation's would keep the whole.
        return linear_map.adjoint(g.clone() if is_view(g) else g, weight, x), None

    return rule


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
    rule = adjoint_rule(call.map)
    if isinstance(call.map, Dense) and x.dim() > 2:  # its outputs are no channels
        return RelevanceNode.apply(relevance_pass, rule, _no_view(y), x, weight)  # type: ignore[no-any-return]
    return relevance_pass.defer(y, rule, x, weight) if y.requires_grad else y


def _is_large(weight: Tensor, x: Tensor) -> bool:
    """Return whether a weight's gradient costs more to write than what it is made of to copy."""
    return weight.numel() > 16 * x.numel()


def _no_view(y: Tensor) -> Tensor:
    """Return ``y``, copied if it is a view, which in-place activations refuse."""
    return y.clone() if is_view(y) else y


def _gradients(
    linear_map: LinearMap,
    x: Tensor,
    weight: Tensor,
    needs: tuple[bool, bool, bool],
    g: Tensor | None,
    v: Tensor | None,
    relevance: Tensor | None,
) -> Gradients:
    """Return the gradients of x, weight and bias from those of the two passes."""
    need_x, need_weight, need_bias = needs
    if v is None or relevance is None or not need_weight:
        return (None, None, None) if g is None else linear_map.gradients(g, x, weight, needs)
    if g is None:
        return None, linear_map.gradients(relevance, v, weight, (False, True, False))[1], None
    # It costs less to copy what the gradients are made of than to write the weight's twice.
    together = torch.cat([g, relevance]), torch.cat([x, v])
    _, of_weight, _ = linear_map.gradients(*together, weight, (False, True, False))
    of_x, _, of_bias = linear_map.gradients(g, x, weight, (need_x, False, need_bias))
    return of_x, of_weight, of_bias
