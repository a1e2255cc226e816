"""Functions that call others inside, written out so that these are intercepted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute what ``F.scaled_dot_product_attention`` does, from products and a softmax."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query * scale @ key.transpose(-2, -1)  # scaled first: float16 ends at 65,504
    if is_causal:
        attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if allowed else scores + attn_mask
    return F.dropout(scores.softmax(-1), dropout_p) @ value


_SIGNATURE = signature(scaled_dot_product_attention)


def attention_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a call of ``F.scaled_dot_product_attention`` by name."""
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _opened(func: Any) -> Callable[..., Any]:
    """Copy a function in Python that would hand itself over to an interception.

    The copy runs instead, and what it calls is intercepted.
    """
    unseen = {**func.__globals__, "has_torch_function": lambda _: False}
    copy = FunctionType(func.__code__, unseen, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def opened(func: Callable[..., Any], args: Any, kwargs: Any) -> Callable[..., Any] | None:
    """Return a function that computes the same by calls that have rules, if this call needs one.

    ``F.multi_head_attention_forward`` does, and ``F.scaled_dot_product_attention`` with dropout:
    only what is written out knows which weights were dropped.
    """
    if func is F.multi_head_attention_forward:
        return _opened(F.multi_head_attention_forward)
    if func is F.scaled_dot_product_attention and attention_arguments(args, kwargs)["dropout_p"]:
        return scaled_dot_product_attention
    return None
