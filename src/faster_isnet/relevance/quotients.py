"""Relevance of quotients: what is divided by is a scale, and gets none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from faster_isnet.relevance.activations import (
    TorchFunction,
    call_unchanged,
    out_of_place,
    spellings,
    write_back,
)
from faster_isnet.relevance.functions import RelevanceNode, RelevancePass
from faster_isnet.relevance.interception import Handler
from faster_isnet.relevance.products import leads_to

_DIVISIONS = spellings(["div", "div_", "divide", "divide_", "true_divide", "true_divide_"])
_RECIPROCALS = spellings(["reciprocal", "rsqrt", "__rdiv__", "__rtruediv__"])


def with_quotients(table: Mapping[TorchFunction, Handler]) -> dict[TorchFunction, Handler]:
    """Return a table of handlers in which divisors get no relevance.

    A divisor that depends on the image is a scale: the deviation of a normalisation that is written
    out, the norm of a vector, the sum of attention weights. It is constant in the relevance, as in
    ``F.layer_norm``. Its gradient would cancel the dividend's relevance.
    """

    def divide(relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        division, x, rest, options, inplace = out_of_place(func, args, kwargs)
        divisor = rest[0] if rest else options.get("other")
        if not (isinstance(divisor, Tensor) and leads_to(divisor, relevance_pass.sources)):
            handler: Handler = table.get(func, call_unchanged)
            return handler(relevance_pass, func, args, kwargs)

        def rule(g: Tensor, divisor: Tensor, x: Tensor | None = None) -> tuple[Tensor | None, ...]:
            return (None,) if x is None else (None, (g / divisor).sum_to_size(x.shape))

        dividend = x.clone() if inplace else x
        y = division(dividend, *rest, **options)
        has_relevance = isinstance(x, Tensor) and x.requires_grad
        operands = (divisor, dividend) if has_relevance else (divisor,)
        return write_back(x, RelevanceNode.apply(relevance_pass, rule, y, *operands), inplace)

    def invert(relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        handler: Handler = table.get(func, call_unchanged)
        y = handler(relevance_pass, func, args, kwargs)
        if not y.requires_grad:
            return y
        # A copy, since these functions keep their outputs for their gradients.
        return RelevanceNode.apply(relevance_pass, lambda g: (), y.clone())

    return {**table, **dict.fromkeys(_DIVISIONS, divide), **dict.fromkeys(_RECIPROCALS, invert)}
