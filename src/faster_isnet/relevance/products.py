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
from faster_isnet.relevance.functions import RelevanceNode, RelevancePass
from faster_isnet.relevance.graph_nodes import SHARED, mark_between
from faster_isnet.relevance.interception import Handler

_POWERS = spellings(["square", "square_", "pow", "pow_", "__pow__", "__ipow__"])
_ROOTS = spellings(["sqrt", "sqrt_"])
_ELEMENTWISE = spellings(["mul", "mul_", "multiply", "multiply_"])
PRODUCTS = frozenset(_ELEMENTWISE) | frozenset(
    spellings(
        [
            *("matmul", "__rmatmul__", "mm", "bmm", "mv", "addmm", "baddbmm", "addbmm"),
            *("dot", "vdot", "inner", "outer", "ger", "kron", "tensordot", "einsum", "bilinear"),
        ]
    )
)
"""Functions that are linear in each of the tensors that they read."""
# Names of nodes of torch's graph.
_SOFTMAX = ("SoftmaxBackward0", "SafeSoftmaxBackward0")
_MOVES = (
    *("View", "Reshape", "UnsafeView", "Permute", "Transpose", "Expand", "Repeat", "Clone"),
    *("Select", "Squeeze", "Unsqueeze", "Slice", "Split", "Unbind", "Contiguous", "ToCopy"),
    *("NativeDropout", "MaskedFill", "Where", "Index"),
    *("Mul", "Div", "Add"),  # by numbers: dropout, too
)
_LEADS_TO = "faster_isnet.leads_to"
"""Metadata of a node that leads to sources: these."""


def with_products(table: Mapping[TorchFunction, Handler]) -> dict[TorchFunction, Handler]:
    """Return a table of handlers in which products share relevance equally among their factors.

    Each of n factors that depend on the image gets 1/n of the relevance: where y is linear in a
    and in b, R_a = a ⊙ ½ ∂y/∂a G and R_b = b ⊙ ½ ∂y/∂b G, which sum to R_y each by half (the
    uniform rule for bilinear layers; Achtibat et al., ICML 2024). The gradient alone would give
    each factor all of it. Weights, masks and gates get none, nor do attention weights that
    multiply features element by element: they are a gate there. A power of x with an exponent a > 0
    sends G / a to its gradient, so that R_x = R_y for fractions and learned exponents, too, as in
    generalised mean pooling.
    """

    def multiply(relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        if func in _ELEMENTWISE:
            args = [_gate(relevance_pass, a) if is_softmax(a) else a for a in args]
        factors = _factors(func, args, kwargs, relevance_pass.sources)
        handler: Handler = table.get(func, call_unchanged)
        y = handler(relevance_pass, func, args, kwargs)
        if factors is None:
            return y
        mark_between(y, tensors_in(args, kwargs), SHARED)
        if isinstance(factors, (int, float)) and factors == 1:
            return y
        keeps_output = func in _ROOTS or isinstance(factors, Tensor)  # for its gradient
        if not is_inplace_name(func.__name__) and (keeps_output or is_view(y)):
            y = y.clone()
        return SharedEqually.apply(relevance_pass, factors, y)

    return {**table, **dict.fromkeys([*PRODUCTS, *_POWERS, *_ROOTS], multiply)}


def _gate(relevance_pass: RelevancePass, weights: Tensor) -> Tensor:
    """Return a copy that sends its relevance nowhere."""
    return RelevanceNode.apply(relevance_pass, lambda g: (), weights.clone())  # type: ignore[no-any-return]


class SharedEqually(Function):
    """A product whose relevance is shared equally among its factors.

    ``SharedEqually.apply(relevance_pass, n, y)`` returns ``y``. In a relevance pass it sends G / n
    to the product's own gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, relevance_pass: RelevancePass, factors: float | Tensor, y: Tensor
    ) -> Tensor:
        """Return ``y`` itself, with this node put on top of its history."""
        ctx.relevance_pass, ctx.factors = relevance_pass, factors
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        """Send the gradient on, or an equal share of the relevance."""
        return None, None, grad / ctx.factors if ctx.relevance_pass.active else grad


def _factors(func: Any, args: Any, kwargs: Any, sources: Collection[Any]) -> float | Tensor | None:
    """Return among how many factors a product shares its relevance; None if it does not."""
    if func in _POWERS or func in _ROOTS:
        base, exponent = _power(*args, **kwargs)
        exponent = 0.5 if func in _ROOTS else exponent
        if isinstance(exponent, Tensor) and not leads_to(exponent, sources):
            exponent = exponent.detach()
        elif not (isinstance(exponent, (int, float)) and exponent > 0):
            return None
        return exponent if isinstance(base, Tensor) and leads_to(base, sources) else None
    tensors = [t for t in tensors_in(args, kwargs) if t.grad_fn is not None]
    tensors.sort(key=Tensor.numel)  # gates are small, and soon known as such
    if len(tensors) < 2 or (len(tensors) == 2 and not leads_to(tensors[0], sources)):
        return None
    found = sum(leads_to(tensor, sources) for tensor in tensors)
    return found if found > 1 else None


def is_softmax(value: Any) -> bool:
    """Return whether a value is what a softmax has returned, moved around at most."""
    return isinstance(value, Tensor) and _follows_softmax(value.grad_fn)


def _follows_softmax(node: Any) -> bool:
    """Return whether a node of the graph only moves around what a softmax has returned."""
    while node is not None and node.name() not in _SOFTMAX:
        before = [n for n, _ in node.next_functions if n is not None]
        if hasattr(node, "gradient_edges"):  # the engine's, on top of the function's own
            node = before[0]
        else:
            node = before[0] if len(before) == 1 and node.name().startswith(_MOVES) else None
    return node is not None


def _power(input: Tensor, exponent: Any = 2) -> tuple[Tensor, Any]:  # noqa: A002 - torch's name
    """Read the arguments of ``torch.pow`` and ``torch.square``."""
    return input, exponent


def leads_to(tensor: Tensor, sources: Collection[Any]) -> bool:
    """Return whether relevance of ``tensor`` goes back to one of the nodes ``sources``."""
    reader_of: dict[Any, Any] = {}
    rest: list[tuple[Any, Any]] = [(tensor.grad_fn, None)]
    while rest:
        node, reader = rest.pop()
        if node is None or node in reader_of:
            continue
        reader_of[node] = reader
        if node in sources or node.metadata.get(_LEADS_TO) is sources:
            # What lies between need not be followed again from what comes later. A source itself is
            # not marked: it would keep itself alive.
            while reader is not None:
                reader.metadata[_LEADS_TO] = sources
                reader = reader_of[reader]
            return True
        # The engine's functions say by how many edges only gradients leave.
        edges = node.next_functions[getattr(node, "gradient_edges", 0) :]
        rest += [(before, node) for before, _ in edges]
    return False
