"""Gates that a model writes as arithmetic: ``relu6(z + 3) / 6``, ``1 / (1 + exp(-z))``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from torch import Tensor

from faster_isnet.relevance.activations import (
    CLAMPS,
    GateRule,
    TorchFunction,
    call_unchanged,
    clamp_bounds,
    spellings,
)
from faster_isnet.relevance.functions import RelevanceNode, RelevancePass
from faster_isnet.relevance.interception import Handler
from faster_isnet.relevance.tensor_metadata import TensorMetadata

_EXPONENTIALS = spellings(["exp", "exp_", "exp2", "exp2_"])
_BOUNDED = spellings(["tanh", "tanh_", "erf", "erf_"])
_ADDITIONS = spellings(["add", "add_"])
_TOTALS = spellings(["sum"])
_RELU6 = spellings(["relu6", "relu6_"])
_HARDTANH = spellings(["hardtanh", "hardtanh_"])
_DIVISIONS = spellings(["div", "div_", "divide", "divide_", "true_divide", "true_divide_"])
_RECIPROCALS = spellings(["reciprocal", "__rdiv__", "__rtruediv__"])
_POWERS = spellings(["pow", "__pow__"])


class _Kind(Enum):
    """What a tensor is that a gate is made of."""

    EXPONENTIAL = auto()
    SUM_OF_EXPONENTIALS = auto()  # and of numbers ≥ 0
    BOUNDED = auto()  # in [-1, 1]


class Gates:
    """Recognises gates that are written as arithmetic in one forward pass of a model.

    A gate weighs features and is no feature itself: φ(0) ≠ 0 and φ is bounded. So are clamps of
    z + c from 0 to h, 0 < c < h (hard sigmoids), a number or exponential that is divided by a sum
    of exponentials (sigmoid, softmax), and tanh z + c, c ≥ 1. They get no relevance, as
    ``torch.sigmoid`` gets none.

    Parameters
    ----------
    table
        What takes the place of each function elsewhere.
    gate
        The handler of gates.
    """

    def __init__(self, table: Mapping[TorchFunction, Handler], gate: Handler | None = None) -> None:
        self._table, self._gate = table, gate or GateRule()
        self._kinds = TensorMetadata[_Kind]()
        self._shifts = TensorMetadata[float]()

    def handlers(self) -> dict[TorchFunction, Handler]:
        """Return the table, with what gates may be made of replaced."""
        bounded = dict.fromkeys([*_RELU6, *_HARDTANH, *CLAMPS], self._clamp)
        quotients = dict.fromkeys([*_DIVISIONS, *_RECIPROCALS, *_POWERS], self._divide)
        kinds = dict.fromkeys([*_EXPONENTIALS, *_BOUNDED, *_TOTALS], self._keep_kind)
        return {
            **self._table,
            **bounded,
            **quotients,
            **kinds,
            **dict.fromkeys(_ADDITIONS, self._add),
        }

    def _call(self, flag: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        handler: Handler = self._table.get(func, call_unchanged)
        return handler(flag, func, args, kwargs)

    def _clamp(self, flag: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        shift = self._shifts.get(args[0] if args else kwargs.get("input"))
        low, high = _bounds(func, args, kwargs)
        if shift is not None and low == 0 and isinstance(high, (int, float)) and shift < high:
            return self._gate(flag, func, args, kwargs)
        return self._call(flag, func, args, kwargs)

    def _add(self, flag: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        values = [*args, *(kwargs[name] for name in ("input", "other") if name in kwargs)]
        kinds = [self._kinds.get(value) for value in values]
        numbers = [float(v) for v in values if isinstance(v, (int, float))]
        y = self._call(flag, func, args, kwargs)
        number = numbers[0] * kwargs.get("alpha", 1) if numbers else None
        exponential = _Kind.EXPONENTIAL, _Kind.SUM_OF_EXPONENTIALS
        if number is None:
            if all(kind in exponential for kind in kinds):
                self._kinds.put(y, _Kind.SUM_OF_EXPONENTIALS)
        elif number >= 1 and _Kind.BOUNDED in kinds:
            return _without_relevance(flag, y)
        elif number > 0:
            if any(kind in exponential for kind in kinds):
                self._kinds.put(y, _Kind.SUM_OF_EXPONENTIALS)
            self._shifts.put(y, number)
        return y

    def _divide(self, flag: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        is_gate = self._is_gate(func, *_quotient(func, args, kwargs))
        y = self._call(flag, func, args, kwargs)
        if not is_gate:
            return y
        # The reciprocal is kept for its own gradient, which a node on it would disturb.
        return _without_relevance(flag, y.clone() if func.__name__ == "reciprocal" else y)

    def _is_gate(self, func: Any, above: Any, below: Any) -> bool:
        weighs = isinstance(above, (int, float)) or self._kinds.get(above) is _Kind.EXPONENTIAL
        weighs = weighs or (isinstance(above, Tensor) and not above.requires_grad)
        return weighs and self._kinds.get(below) is _Kind.SUM_OF_EXPONENTIALS

    def _keep_kind(self, flag: RelevancePass, func: Any, args: Any, kwargs: Any) -> Any:
        read = self._kinds.get(args[0] if args else kwargs.get("input"))
        y = self._call(flag, func, args, kwargs)
        if func in _BOUNDED:
            self._kinds.put(y, _Kind.BOUNDED)
        elif func in _EXPONENTIALS:
            self._kinds.put(y, _Kind.EXPONENTIAL)
        elif read in (_Kind.EXPONENTIAL, _Kind.SUM_OF_EXPONENTIALS):
            self._kinds.put(y, _Kind.SUM_OF_EXPONENTIALS)
        return y


def _without_relevance(flag: RelevancePass, y: Tensor) -> Tensor:
    if not y.requires_grad:
        return y
    return RelevanceNode.apply(flag, lambda g: (), y)  # type: ignore[no-any-return]


def _bounds(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the bounds of a clamp, by whatever name."""
    if func in _RELU6:
        return 0, 6
    if func in _HARDTANH:
        return _hardtanh_bounds(*args[1:], **kwargs)
    return clamp_bounds(*args[1:], **kwargs)


def _hardtanh_bounds(
    min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, **_: Any
) -> tuple[float, float]:
    return min_val, max_val


def _quotient(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return what is divided by what."""
    one, *rest = args or (kwargs.get("input"),)
    other = rest[0] if rest else kwargs.get("other", kwargs.get("exponent"))
    if func in _DIVISIONS:
        return one, other
    if func in _POWERS and other != -1:
        return None, None
    return (1, one) if func in _POWERS or other is None else (other, one)
