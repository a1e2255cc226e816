"""Relevance of products of tensors that depend on the image both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor
from torch.autograd.function import Function

from faster_isnet.common.torch_private import is_view
from faster_isnet.relevance.activations import (
    TorchFunction,
    call_unchanged,
    is_inplace_name,
    spellings,
)
from faster_isnet.relevance.call_arguments import tensors_in
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.interception import Handler

_POWERS = spellings(["square", "square_", "pow", "pow_", "__pow__", "__ipow__"])
PRODUCTS = frozenset(
    spellings(
        [
            *("mul", "mul_", "multiply", "multiply_", "matmul", "__rmatmul__", "mm", "bmm", "mv"),
            *("dot", "vdot", "inner", "outer", "ger", "kron", "tensordot", "einsum", "bilinear"),
        ]
    )
)
"""Functions that are linear in each of the tensors that they read."""


def with_products(table: Mapping[TorchFunction, Handler]) -> dict[TorchFunction, Handler]:
    """Return a table of handlers in which products share relevance equally among their factors.

    Each of n factors that depend on the image gets 1/n of the relevance: where y is linear in a
    and in b, R_a = a ⊙ ½ ∂y/∂a G and R_b = b ⊙ ½ ∂y/∂b G, which sum to R_y each by half (the
    uniform rule for bilinear layers; Achtibat et al., ICML 2024). The gradient alone would give
    each factor all of it. Weights, masks and gates get none.
    """

    def multiply(relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        factors = _factors(func, args, kwargs, relevance_pass.sources)
        handler: Handler = table.get(func, call_unchanged)
        y = handler(relevance_pass, func, args, kwargs)
        if factors < 2:
            return y
        y = y.clone() if is_view(y) and not is_inplace_name(func.__name__) else y
        return SharedEqually.apply(relevance_pass, factors, y)

    return {**table, **dict.fromkeys([*PRODUCTS, *_POWERS], multiply)}


class SharedEqually(Function):
    """A product whose relevance is shared equally among its factors.

    ``SharedEqually.apply(relevance_pass, n, y)`` returns ``y``. In a relevance pass it sends G / n
    to the product's own gradient.
    """

    @staticmethod
    def forward(ctx: Any, relevance_pass: RelevancePass, factors: int, y: Tensor) -> Tensor:
        """Return ``y`` itself, with this node put on top of its history."""
        ctx.relevance_pass, ctx.factors = relevance_pass, factors
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        """Send the gradient on, or an equal share of the relevance."""
        return None, None, grad / ctx.factors if ctx.relevance_pass.active else grad


def _factors(func: Any, args: Any, kwargs: Any, sources: Collection[Any]) -> int:
    """Return among how many factors a product shares its relevance."""
    if func in _POWERS:
        base, exponent = _power(*args, **kwargs)
        whole = isinstance(exponent, (int, float)) and exponent >= 2 and exponent == int(exponent)
        return int(exponent) if whole and leads_to(base, sources) else 1
    tensors = [t for t in tensors_in(args, kwargs) if t.grad_fn is not None]
    tensors.sort(key=Tensor.numel)  # gates are small, and soon known as such
    if len(tensors) < 2 or (len(tensors) == 2 and not leads_to(tensors[0], sources)):
        return 1
    return sum(leads_to(tensor, sources) for tensor in tensors)


def _power(input: Tensor, exponent: Any = 2) -> tuple[Tensor, Any]:  # noqa: A002 - torch's name
    """Read the arguments of ``torch.pow`` and ``torch.square``."""
    return input, exponent


def leads_to(tensor: Tensor, sources: Collection[Any]) -> bool:
    """Return whether relevance of ``tensor`` goes back to one of the nodes ``sources``."""
    seen, rest = set[Any](), [tensor.grad_fn]
    while rest:
        node = rest.pop()
        if node is None or node in seen:
            continue
        if node in sources:
            return True
        seen.add(node)
        # The engine's functions say by how many edges only gradients leave.
        edges = node.next_functions[getattr(node, "gradient_edges", 0) :]
        rest += [before for before, _ in edges]
    return False
