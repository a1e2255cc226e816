"""Relevance of ``F.scaled_dot_product_attention``.

Attention that a model writes out is made of products and a softmax. The fused function has no
second derivative, so its relevance is computed from such parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from faster_isnet.relevance.activations import TorchFunction
from faster_isnet.relevance.functions import RelevanceNode, RelevancePass
from faster_isnet.relevance.graph_nodes import APPROXIMATE
from faster_isnet.relevance.products import leads_to
from faster_isnet.relevance.written_out import (
    attention_arguments,
    scaled_dot_product_attention,
)


@dataclass(frozen=True)
class AttentionRule:
    """Relevance is the gradient, times a constant for each of queries, keys and values.

    The function itself runs forward, in a standard backward, and in a relevance pass of which no
    gradient is asked. In others the attention weights are computed once more, and once more in the
    gradient of that: they are never kept.

    Parameters
    ----------
    constant_weights
        Whether the attention weights are constants, and the values get all relevance.
    shared
        Whether the factors of a product get equal shares: values and weights half each, of which
        queries and keys get half each. Otherwise each gets all of it, as by the gradient.
    """

    constant_weights: bool = False
    shared: bool = True

    def __call__(
        self, relevance_pass: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        """Compute the attention, with a node for its relevance."""
        y = func(*args, **kwargs)
        if not y.requires_grad:
            return y  # type: ignore[no-any-return]
        options = attention_arguments(args, kwargs)
        operands = [options.pop(name) for name in ("query", "key", "value")]
        attn_mask = options.pop("attn_mask")
        if attn_mask is not None and attn_mask.requires_grad:
            operands.append(attn_mask)
        depends = [leads_to(operand, relevance_pass.sources) for operand in operands]
        shares = self._shares(*depends)[: len(operands)]

        def gradients(g: Tensor, *operands: Tensor) -> tuple[Tensor, ...]:
            differentiable = torch.is_grad_enabled()
            in_parts = differentiable or relevance_pass.batched
            attend = scaled_dot_product_attention if in_parts else func
            with torch.enable_grad():
                inputs = [_ending(t, differentiable and t.requires_grad) for t in operands]
                query, key, value, *mask = inputs
                bias = mask[0] if mask else attn_mask
                again = attend(query, key, value, bias, **options)
            found = torch.autograd.grad(again, inputs, g, create_graph=differentiable)
            return tuple(share * of for share, of in zip(shares, found, strict=True))

        def rule(g: Tensor, *operands: Tensor) -> tuple[Tensor, ...]:
            if relevance_pass.batched:
                return gradients(g, *operands)
            return Recomputed.apply(gradients, g, *operands)  # type: ignore[no-any-return]

        # A copy, since the function keeps its output for its gradient.
        y = RelevanceNode.apply(relevance_pass, rule, y.clone(), *operands)
        if self.shared and not self.constant_weights and any(depends[:2]):
            y.grad_fn.metadata[APPROXIMATE] = func.__name__
        return y  # type: ignore[no-any-return]

    def _shares(self, query: bool, key: bool, value: bool, mask: bool = False) -> tuple[float, ...]:
        """Return the constants, given what depends on the image."""
        if self.constant_weights:
            return 0.0, 0.0, 1.0, 0.0
        if not self.shared:
            return 1.0, 1.0, 1.0, 1.0
        of_value = 0.5 if query or key or mask else 1.0
        of_weights = 0.5 if value else 1.0
        of_each = of_weights / 2 if query and key else of_weights
        return of_each, of_each, of_value, of_weights


class Recomputed(Function):
    """A function of tensors that keeps its inputs only, and is computed again for its gradient.

    ``Recomputed.apply(function, *tensors)`` returns the tuple ``function(*tensors)``.
    """

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the function's results."""
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the function once more, and return its gradients."""
        again, wanted = torch.is_grad_enabled(), ctx.needs_input_grad[1:]
        with torch.enable_grad():
            tensors = [
                _ending(tensor, again) if wants else tensor.detach()
                for tensor, wants in zip(ctx.saved_tensors, wanted, strict=True)
            ]
            results = ctx.function(*tensors)
        inputs = [tensor for tensor, wants in zip(tensors, wanted, strict=True) if wants]
        found = iter(torch.autograd.grad(results, inputs, grads, create_graph=again))
        return None, *(next(found) if wants else None for wants in wanted)


def _ending(tensor: Tensor, with_history: bool) -> Tensor:
    """Return a tensor at which a gradient ends: none of several may lead to another of them.

    Where one did, as queries that are made of the output of which values are a part, torch would
    follow the model's own graph between the two, and free it.
    """
    return tensor.view_as(tensor) if with_history else tensor.detach().requires_grad_()
