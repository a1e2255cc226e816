"""Relevance of the activations: the only place where LRP-Flex differs from a gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.relevance.call_arguments import tensors_in
from faster_isnet.relevance.functions import (
    Overwrite,
    RelevanceNode,
    RelevancePass,
    ReLU,
    StabilisedShare,
)

TorchFunction = Callable[..., Any]


def spellings(names: Iterable[str]) -> tuple[TorchFunction, ...]:
    """Return the functions of these names: functional ones and methods."""
    spaces = (F, torch, torch.Tensor, torch.special)
    found = (getattr(space, n, None) for n in names for space in spaces)
    return tuple(dict.fromkeys(f for f in found if f is not None))


def _with_inplace(*names: str) -> tuple[TorchFunction, ...]:
    return spellings([*names, *(f"{name}_" for name in names)])


RELUS = _with_inplace("relu")
CLAMPS = _with_inplace("clamp", "clip", "clamp_min")
# φ(0) = 0, so that φ(z) / z is the share of φ in its input.
ACTIVATIONS = _with_inplace(
    *("relu6", "hardtanh", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish"),
    *("hardswish", "tanh", "softsign", "tanhshrink", "hardshrink", "softshrink"),
)
# φ(0) ≠ 0: these weigh features and are no features themselves.
GATES = _with_inplace("sigmoid", "hardsigmoid", "expit", "gumbel_softmax")
# Attention weights where they multiply matrices, a gate where they multiply elements.
SOFTMAX = spellings(["softmax", "softmin"])
# What they return holds the values that they read in the same order, maybe in other memory.
COPIES = frozenset(
    spellings(
        [
            *("clone", "contiguous", "to", "float", "double", "cat", "concat"),
            *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"),
        ]
    )
)
# The numbers by which they change nothing.
_NEUTRAL: dict[TorchFunction, int] = {
    **dict.fromkeys(spellings(["mul", "mul_", "multiply", "div", "div_", "true_divide"]), 1),
    **dict.fromkeys(spellings(["pow", "__pow__"]), 1),
    **dict.fromkeys(spellings(["add", "add_", "sub", "sub_", "subtract"]), 0),
}
ARITHMETIC = frozenset(_NEUTRAL)
# These save their output for their gradient.
SAVE_OUTPUT = frozenset(
    ["tanh", "sigmoid", "softmax", "softmin", "special_expit", "special_softmax"]
)


def passed_on(func: TorchFunction, args: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the tensor whose values a function returns as they are, ``None`` if it changes them.

    Examples
    --------
    >>> x = torch.ones(2)
    >>> passed_on(torch.mul, (x, 1), {}) is x, passed_on(torch.mul, (x, 2), {}) is None
    (True, True)
    """
    tensors = tensors_in(args, kwargs)
    if len(tensors) != 1:
        return None
    if func in _NEUTRAL:
        numbers = [v for v in (*args, *kwargs.values()) if not isinstance(v, Tensor)]
        return tensors[0] if numbers == [_NEUTRAL[func]] else None
    return tensors[0] if func in COPIES else None


@cache
def _inplace_position(func: TorchFunction) -> int | None:
    """Where ``func`` takes its argument ``inplace``, if it takes one."""
    if not inspect.isfunction(func):
        return None
    parameters = list(inspect.signature(func).parameters)
    return parameters.index("inplace") if "inplace" in parameters else None


def is_inplace_name(name: str) -> bool:
    """Return whether a function of this name writes into what it reads."""
    return name.endswith("_") and not name.startswith("__")


def out_of_place(
    func: TorchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[TorchFunction, Tensor, tuple[Any, ...], dict[str, Any], bool]:
    """Take a call apart into a function that leaves its input alone, input, rest, and ``inplace``.

    Returns
    -------
    tuple
        ``(function, z, rest, kwargs, inplace)``: ``function(z, *rest, **kwargs)`` computes the
        same without writing into ``z``; ``inplace`` says whether the call would have.

    Examples
    --------
    >>> x = torch.ones(2)
    >>> calls = (torch.relu_, (x,)), (F.relu, (x, True)), (F.relu, (x,))
    >>> [out_of_place(func, args, {})[-1] for func, args in calls]
    [True, True, False]
    """
    name, position = func.__name__, _inplace_position(func)
    inplace = bool(kwargs.get("inplace")) or is_inplace_name(name)
    kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
    if position is not None and len(args) > position:
        inplace = inplace or bool(args[position])
        args = (*args[:position], *args[position + 1 :])
    if is_inplace_name(name):
        space = next(s for s in (torch, F, torch.Tensor) if hasattr(s, name[:-1]))
        func = getattr(space, name[:-1])
    z, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
    return func, z, rest, kwargs, inplace


def write_back(z: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """Return ``y``, through ``z`` if the call was made to write there."""
    return Overwrite.apply(z, y) if inplace else y


def stabilise(z: Tensor, epsilon: float) -> Tensor:
    """Return z + ε·sign(z) with sign(0) = +1, so that a division by it is safe.

    With ε = 0, or an ε that the dtype rounds to 0, zeros become ones: what is divided by them is
    zero as well, and 0/0 shall be 0.

    Examples
    --------
    >>> stabilise(torch.tensor([-1.0, 0.0, 1.0]), 0.5)
    tensor([-1.5000,  0.5000,  1.5000])
    """
    if epsilon < torch.finfo(z.dtype).tiny:
        return z.masked_fill(z == 0, 1)
    return z + torch.copysign(z.new_tensor(epsilon), z.detach())


def stabilise_nonnegative(z: Tensor, epsilon: float) -> Tensor:
    """Return z + ε for z ≥ 0: :func:`stabilise` without looking at signs."""
    none = epsilon < torch.finfo(z.dtype).tiny
    return z.masked_fill(z == 0, 1) if none else z + epsilon


@dataclass(frozen=True)
class ReLURule:
    """G_z = G_a · a / (a + ε) for ReLU in every spelling (method §1)."""

    epsilon: float
    fuses: ClassVar[bool] = True

    def __call__(
        self, relevance_pass: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        """Compute ReLU, by one node for it and for the deferred rule of its input, if any."""
        _, z, _, _, inplace = out_of_place(func, args, kwargs)
        deferred = relevance_pass.deferred.fuse(z, overwrites=inplace)
        # Not ``deferred`` itself, which would keep the operands alive.
        before, operands = (None, ()) if deferred is None else (deferred.rule, deferred.operands)

        def rule(g: Tensor, a: Tensor, *operands: Tensor) -> tuple[Tensor | None, ...]:
            share = self._share(relevance_pass, g, a)
            return (share,) if before is None else (None, *before(share, *operands))

        return ReLU.apply(relevance_pass, rule, inplace, z, *operands)  # type: ignore[no-any-return]

    def _share(self, relevance_pass: RelevancePass, g: Tensor, a: Tensor) -> Tensor:
        if self.epsilon < torch.finfo(a.dtype).tiny:  # a + ε is a: the gradient
            return torch.ops.aten.threshold_backward.default(g, a, 0)  # type: ignore[no-any-return]
        if relevance_pass.batched:
            return g * (a / (a + self.epsilon))
        return StabilisedShare.apply(g, a, self.epsilon)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ActivationRule:
    """G_z = G_a · φ(z) / (z + ε·sign z) for an activation with φ(0) = 0 (method §1).

    φ(z) is computed again in the relevance pass rather than kept: a later in-place operation may
    change the output, never the input that φ keeps for its own gradient.
    """

    epsilon: float

    def __call__(
        self, relevance_pass: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        """Compute the activation, with a node for its relevance."""

        def share(y: Tensor, z: Tensor) -> Tensor:
            return y / stabilise(z, self.epsilon)

        return _with_node(relevance_pass, func, args, kwargs, share)


@dataclass(frozen=True)
class GateRule:
    """No relevance for a gate: what it multiplies receives all of it.

    The product's gradient gives the features x ⊙ gate ⊙ G; relevance of the gate ends here (the
    "signal-take-all" rule; Arras et al., 2019, and method §1).
    """

    def __call__(
        self, relevance_pass: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        """Compute the gate, with a node that sends its relevance nowhere."""
        return _with_node(relevance_pass, func, args, kwargs, None)


def gated_linear_unit(relevance_pass: RelevancePass, func: TorchFunction, *call: Any) -> Tensor:
    """Compute a ⊙ sigmoid(b), of whose relevance the gate, sigmoid(b), gets none."""
    (args, kwargs) = call
    y: Tensor = func(*args, **kwargs)
    x = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", -1)

    def rule(g: Tensor, x: Tensor) -> tuple[Tensor]:
        _, b = x.chunk(2, dim)
        return (torch.cat([g * b.sigmoid(), torch.zeros_like(g)], dim),)

    return RelevanceNode.apply(relevance_pass, rule, y, x) if y.requires_grad else y


def _with_node(
    relevance_pass: RelevancePass,
    func: TorchFunction,
    args: Any,
    kwargs: Any,
    share: Callable[[Tensor, Tensor], Tensor] | None,
) -> Tensor:
    """Compute φ(z), with a node that multiplies G by ``share(φ(z), z)``; None for no relevance."""
    phi, z, rest, kwargs, inplace = out_of_place(func, args, kwargs)
    if not z.requires_grad:
        return func(*args, **kwargs)  # type: ignore[no-any-return]

    def rule(g: Tensor, *operands: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(g * share(phi(z, *rest, **kwargs), z) for z in operands) if share else ()

    source = z.clone() if inplace else z
    y = phi(source, *rest, **kwargs)
    if phi.__name__ in SAVE_OUTPUT:  # which the node marks as changed
        y = y.clone()
    operands = (source,) if share else ()
    return write_back(z, RelevanceNode.apply(relevance_pass, rule, y, *operands), inplace)


@dataclass(frozen=True)
class ClampRule:
    """ReLU where a clamp is one, an activation where 0 stays 0, a gradient elsewhere."""

    activation: Callable[..., Tensor]
    relu: Callable[..., Tensor]
    otherwise: Callable[..., Tensor]

    def __call__(
        self, relevance_pass: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        """Compute the clamp with the rule that fits its bounds."""
        low, high = clamp_bounds(*args[1:], **kwargs)
        if any(isinstance(bound, Tensor) for bound in (low, high)):
            return self.otherwise(relevance_pass, func, args, kwargs)
        if low == 0 and high is None:
            z = args[0] if args else kwargs["input"]
            return self.relu(relevance_pass, F.relu, (z, is_inplace_name(func.__name__)), {})
        if (low is None or low <= 0) and (high is None or high >= 0):
            return self.activation(relevance_pass, func, args, kwargs)
        return self.otherwise(relevance_pass, func, args, kwargs)


def clamp_bounds(
    min: Any = None,  # noqa: A002 - torch's names
    max: Any = None,  # noqa: A002
    input: Any = None,  # noqa: A002
) -> tuple[Any, Any]:
    """Return the bounds of a clamp, given its arguments but for a leading input."""
    return min, max


def call_unchanged(_: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
    """Call the function itself."""
    return func(*args, **kwargs)  # type: ignore[no-any-return]


def activation_handlers(
    activation: Callable[..., Tensor],
    relu: Callable[..., Tensor],
    gate: Callable[..., Tensor],
    softmax: Callable[..., Tensor],
    otherwise: Callable[..., Tensor] = call_unchanged,
) -> dict[TorchFunction, Callable[..., Tensor]]:
    """Return what takes the place of each activation, given a composite's handlers by their kind.

    ``otherwise`` is for clamps that are no activation.
    """
    return {
        **dict.fromkeys(ACTIVATIONS, activation),
        **dict.fromkeys(GATES, gate),
        **dict.fromkeys(SOFTMAX, softmax),
        F.glu: gated_linear_unit,
        **dict.fromkeys(RELUS, relu),
        **dict.fromkeys(CLAMPS, ClampRule(activation, relu, otherwise)),
    }
