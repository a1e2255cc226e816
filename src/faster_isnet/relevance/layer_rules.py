"""The engine of the rule-based composites: what takes the place of each function of a model.

Every linear layer's output gets a :class:`~faster_isnet.relevance.functions.Detour` that shares
its relevance by the layer's rule (method §4). A reader that must see through the layer, as a batch
norm that is to be fused with it or an activation whose output says how much relevance there is,
finds a note about the output and gives its own output a Detour, to the same contributions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from faster_isnet.relevance import normalisations
from faster_isnet.relevance.activations import (
    ACTIVATIONS,
    CLAMPS,
    GATES,
    RELUS,
    ActivationRule,
    GateRule,
    TorchFunction,
    clamp_bounds,
    out_of_place,
    spellings,
    write_back,
)
from faster_isnet.relevance.contributions import (
    Contributions,
    Elements,
    Mapped,
    Pooled,
    Summed,
    Way,
)
from faster_isnet.relevance.functions import Detour, RelevancePass, ReLU, Route
from faster_isnet.relevance.functions import Rule as WayBack
from faster_isnet.relevance.linear_maps import LINEAR_CALLS, Dense, contrast
from faster_isnet.relevance.normalisations import BATCH_NORM_CALLS, per_channel
from faster_isnet.relevance.notes import Notes
from faster_isnet.relevance.rules import Epsilon, Rule, Shares, Sums

SUMS = spellings(["add", "add_"])
AVERAGE_POOLS = spellings(
    [
        *(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
        *("mean", "sum"),
    ]
)
MAX_POOLS = spellings(
    [
        *(f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
        *(f"{kind}max_pool{n}d_with_indices" for kind in ("", "adaptive_") for n in (1, 2, 3)),
        *("amax", "fractional_max_pool2d"),
    ]
)
CONCATENATIONS = spellings(["cat", "concat", "concatenate"])
# What leaves every element, or an average of some, as it is: no negative ones come of it.
KEEPS_SIGN = spellings(
    [
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"),
        *("flatten", "unflatten", "view", "reshape", "permute", "transpose", "movedim", "squeeze"),
        *("unsqueeze", "contiguous", "clone", "chunk", "split", "unbind", "narrow", "select"),
        *("__getitem__", "expand", "repeat", "stack", "flip", "pixel_shuffle", "channel_shuffle"),
    ]
)

Rules = tuple[Rule, ...] | None
"""A layer's rules, one for each relevance pass; None to pass G by the gradient."""


@dataclass(frozen=True)
class Layer:
    """A layer as it runs, for a composite to choose its rule.

    Attributes
    ----------
    type
        One of :data:`~faster_isnet.relevance.composites.LAYER_TYPES`.
    name
        Of the innermost module that runs, as in ``model.named_modules()``.
    depth
        How many convolutions and dense layers have run before, this one not counted.
    """

    type: str
    name: str
    depth: int


@dataclass(frozen=True)
class Output:
    """What is known of a linear layer's output.

    Attributes
    ----------
    rules
        The layer's, None where only a batch norm may see through the output.
    contributions
        What it is summed from: one for the output, or one for each run of its channels.
    scale, shift
        Its batch norm's γ/σ, and all that is not a contribution (biases and what the batch norm
        makes of them), of shapes that broadcast; None for 1 and 0.
    fusable
        Whether a batch norm that reads the output is to be fused with the layer.
    """

    rules: Rules
    contributions: tuple[Contributions, ...]
    scale: Tensor | None = None
    shift: Tensor | None = None
    fusable: bool = True

    @cached_property
    def routes(self) -> _Routes:
        """The ways back that the rules need."""
        return _Routes.of(self)


class LayerRules:
    """What one forward pass of a model needs to know for its layers' rules.

    Parameters
    ----------
    relevance_pass
        The flag of this forward pass.
    choose
        Returns a layer's rules.
    running
        Returns the name of the innermost module that runs.
    claimed
        Whether what reads a tensor has a rule from elsewhere (the input rule).
    epsilon
        The stabiliser of activations that read something else than a linear layer's output.
    """

    def __init__(
        self,
        relevance_pass: RelevancePass,
        choose: Callable[[Layer], Rules],
        running: Callable[[], str],
        claimed: Callable[[Tensor], bool],
        epsilon: float,
    ) -> None:
        self._relevance_pass = relevance_pass
        self._choose, self._running, self._claimed = choose, running, claimed
        self._activation = ActivationRule(epsilon)
        self._outputs = Notes[Output]()
        self._nonnegative = Notes[bool]()
        self._depth = 0

    def handlers(self) -> dict[TorchFunction, Callable[..., Any]]:
        """Return what takes the place of each function that the model calls."""
        table: dict[TorchFunction, Callable[..., Any]] = {}
        table |= dict.fromkeys(ACTIVATIONS, self._activate)
        table |= dict.fromkeys(GATES, self._gate)
        table |= dict.fromkeys(RELUS, self._relu)
        table |= dict.fromkeys(CLAMPS, self._clamp)
        table |= dict.fromkeys(LINEAR_CALLS, self._linear)
        table |= dict.fromkeys(SUMS, self._sum)
        table |= dict.fromkeys(AVERAGE_POOLS, self._average_pool)
        table |= dict.fromkeys(MAX_POOLS, self._max_pool)
        table |= dict.fromkeys(CONCATENATIONS, self._concatenate)
        table |= dict.fromkeys(KEEPS_SIGN, self._keep_sign)
        table |= normalisations.HANDLERS
        table |= dict.fromkeys(BATCH_NORM_CALLS, self._batch_norm)
        return table

    def quantity_handlers(self) -> dict[TorchFunction, Callable[..., Any]]:
        """Return what takes the place of functions of the logits, which are no layers."""
        return {contrast: self._contrast}

    def start(self, logits: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return logits to read in a relevance pass, and what their relevance is if G is one."""
        output = self._outputs.get(logits)
        if output is None or output.rules is None:
            return logits, logits
        rule = output.rules[number]
        start = rule.start(logits, _sums(output)[0] if rule.needs_positive else None)
        if start is logits:
            return logits, logits
        return self._finish(logits.clone(), start, output), start

    def _layer(self, kind: str, read: Tensor) -> Rules:
        if self._claimed(read):
            return None
        return self._choose(Layer(kind, self._running(), self._depth))

    def _way_back(self, output: Output, rectified: bool = False) -> WayBack:
        """Return how a layer's output, or its positive part, sends its relevance to its routes."""
        rules, scale, shift, routes = output.rules, output.scale, output.shift, output.routes
        assert rules is not None
        return _way_back(self._relevance_pass, rules, scale, shift, routes.shape, rectified)

    def _finish(self, tensor: Tensor, value: Tensor, output: Output) -> Tensor:
        """Make a tensor share its relevance, which is G times ``value``, as a layer's output."""
        routes = output.routes.tensors
        way_back = self._way_back(output)
        return Detour.apply(self._relevance_pass, way_back, tensor, value, *routes)  # type: ignore[no-any-return]

    def _put(self, value: Tensor, output: Output) -> Tensor:
        """Finish a layer's output and note what it is made of."""
        value = self._finish(value, value, output)
        self._outputs.put(value, output)
        return value

    def _is_nonnegative(self, *tensors: Tensor) -> bool:
        return all(self._nonnegative.get(tensor) for tensor in tensors)

    def _linear(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        call = LINEAR_CALLS[func](*args, **kwargs)
        dense = isinstance(call.map, Dense)
        rules = self._layer("dense" if dense else "convolution", call.input)
        self._depth += 1
        y = func(*args, **kwargs)
        # Else no relevance arrives, or it is no batch.
        if not call.input.requires_grad or not (dense or y.dim() == call.weight.dim()):
            return y  # type: ignore[no-any-return]
        mapped = Mapped(self._relevance_pass, call, y, self._is_nonnegative(call.input))
        if rules is None:
            way = _straight(1)
            return Detour.apply(self._relevance_pass, way, y, mapped.all)  # type: ignore[no-any-return]
        shift = None if call.bias is None else call.map.per_output(call.bias)
        return self._put(
            y, Output(rules, (mapped,), shift=shift, fusable=not dense or y.dim() == 2)
        )

    def _batch_norm(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        call = BATCH_NORM_CALLS[func](*args, **kwargs)
        x = call.input
        before = self._outputs.get(x)
        if before is None or not before.fusable:
            elements = Elements(x, self._is_nonnegative(x))
            before = Output(None, (elements,))
        rules = self._layer("normalisation", x) if before.rules is None else before.rules
        if rules is None or not x.requires_grad:
            return normalisations.batch_norm(self._relevance_pass, call)
        y, mean, rstd = call.normalise()
        scale = rstd if call.weight is None else rstd * call.weight
        scale = per_channel(scale, y)
        bias = 0 if before.shift is None else before.shift
        shift = scale * (bias - per_channel(mean, y))
        if call.bias is not None:
            shift = shift + per_channel(call.bias, y)
        return self._put(y, replace(before, rules=rules, scale=scale, shift=shift, fusable=False))

    def _relu(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        relu, z, _rest, _kwargs, inplace = out_of_place(func, args, kwargs)
        output = self._outputs.get(z)
        if output is None or output.rules is None:
            a = z.relu_() if inplace else relu(z)
        else:
            # The routes are made before the function writes over what they are made of.
            routes = output.routes.tensors
            way_back = self._way_back(output, rectified=True)
            a = ReLU.apply(self._relevance_pass, way_back, inplace, z, *routes)
        self._nonnegative.put(a, True)
        return a

    def _clamp(self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        low, high = clamp_bounds(*args[1:], **kwargs)
        if not isinstance(low, Tensor) and low == 0 and high is None:
            z = args[0] if args else kwargs["input"]
            inplace = func.__name__.endswith("_")
            return self._relu(flag, F.relu, (z,), {"inplace": inplace})
        return self._activation(flag, func, args, kwargs)

    def _activate(self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        # The layer's own Detour stands below, so that the activation itself needs no stabiliser.
        return self._activation(flag, func, args, kwargs)

    def _gate(self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        gate = GateRule()(flag, func, args, kwargs)
        self._nonnegative.put(gate, True)
        return gate

    def _sum(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        _func, x, rest, kwargs, inplace = out_of_place(func, args, kwargs)
        y = rest[0] if rest else kwargs.get("other")
        rules = self._layer("sum", x)
        relevant = all(isinstance(t, Tensor) and t.requires_grad for t in (x, y))
        if rules is None or not relevant:
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        original = x
        if inplace and (output := self._outputs.get(x)) and output.rules is not None:
            # What x is written over with is not what its rule shares.
            x = x.clone()
            x = self._finish(x, x, output)
        alpha = kwargs.get("alpha", 1)
        y = y if alpha == 1 else y * alpha
        s = x + y
        nonnegative = self._is_nonnegative(original, y)
        s = write_back(original, s, inplace)
        summed = Summed(self._relevance_pass, s, (x, y))
        s = self._put(s, Output(rules, (summed,)))
        if nonnegative:
            self._nonnegative.put(s, True)
        return s

    def _average_pool(
        self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        return self._pool("average_pool", func, args, kwargs)

    def _max_pool(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Any:
        return self._pool("max_pool", func, args, kwargs)

    def _pool(self, kind: str, func: TorchFunction, args: Any, kwargs: Any) -> Any:
        x = args[0] if args else kwargs["input"]
        rules = self._layer(kind, x)
        result = func(*args, **kwargs)
        pooled = result[0] if isinstance(result, tuple) else result
        if rules is None or not pooled.requires_grad or pooled.dim() < 2:
            return result
        nonnegative = self._is_nonnegative(x)
        contributions: Contributions
        if kind == "max_pool":  # each output is one element
            contributions = Elements(pooled, nonnegative)
        else:
            rest = {k: v for k, v in kwargs.items() if k != "input"}
            again = partial(_first, func, args[1:], rest)
            contributions = Pooled(again, x, pooled, nonnegative)
        # A copy, since an in-place activation may follow.
        y = self._put(pooled.clone(), Output(rules, (contributions,)))
        if nonnegative:
            self._nonnegative.put(y, True)
        return (y, *result[1:]) if isinstance(result, tuple) else y

    def _concatenate(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        y: Tensor = func(*args, **kwargs)
        tensors = args[0] if args else kwargs["tensors"]
        dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
        outputs = [self._outputs.get(t) for t in tensors]
        if self._is_nonnegative(*tensors):
            self._nonnegative.put(y, True)
        if dim % y.dim() == 1 and any(o is not None and o.fusable for o in outputs):
            self._outputs.put(y, self._joined(tensors, outputs))
        return y

    def _joined(self, tensors: Sequence[Tensor], outputs: Sequence[Output | None]) -> Output:
        """Note about a concatenation that a batch norm can see through it."""
        contributions: list[Contributions] = []
        shifts: list[Tensor | None] = []
        for tensor, output in zip(tensors, outputs, strict=True):
            if output is None or not output.fusable:
                contributions.append(Elements(tensor, self._is_nonnegative(tensor)))
                shifts.append(None)
            else:
                contributions += output.contributions
                shifts.append(output.shift)
        return Output(None, tuple(contributions), shift=_concatenated(shifts, tensors))

    def _keep_sign(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if tensors and self._is_nonnegative(*tensors):
            for tensor in tree_leaves(result):
                self._nonnegative.put(tensor, True)
        return result

    def _contrast(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        """Take the differences of logits for the outputs of the model's last layer (method §4)."""
        logits, index = args
        z: Tensor = contrast(logits, index)
        output = self._outputs.get(logits)
        if output is None or output.rules is None or output.scale is not None:
            return z
        if not all(type(rule) is Epsilon for rule in output.rules):
            return z
        (layer,) = output.contributions

        def back(g: Tensor, _: Tensor) -> tuple[Tensor]:
            return (torch.func.vjp(lambda y: contrast(y, index), logits.detach())[1](g)[0],)

        route = Route.apply(self._relevance_pass, back, z, layer.all)
        shift = output.shift
        if shift is not None:
            shift = contrast(shift.expand_as(logits), index)
        return self._finish(z, z, Output(output.rules, (Way(route),), shift=shift))


class _RoutesShape(NamedTuple):
    """How many ways back there are, without the tensors."""

    sizes: tuple[int, ...]
    flips: bool
    all: int
    positive: int


@dataclass(frozen=True)
class _Routes:
    """The ways back from a layer's output: for all, the positive, the negative contributions."""

    all: tuple[Tensor, ...]
    positive: tuple[Tensor, ...]
    negative: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    flips: bool

    @classmethod
    def of(cls, output: Output) -> _Routes:
        rules, pieces = output.rules, output.contributions
        assert rules is not None
        needs_positive = any(rule.needs_positive for rule in rules)
        needs_negative = any(rule.needs_negative for rule in rules)
        flips = False
        if output.scale is not None and (needs_positive or needs_negative):
            # A negative γ makes negative contributions of positive ones.
            flips = bool((output.scale < 0).any())
        return cls(
            tuple(piece.all for piece in pieces),
            tuple(p.positive for p in pieces) if needs_positive or flips else (),
            tuple(p.negative for p in pieces) if needs_negative or flips else (),
            tuple(piece.channels for piece in pieces),
            flips,
        )

    @property
    def shape(self) -> _RoutesShape:
        return _RoutesShape(self.sizes, self.flips, len(self.all), len(self.positive))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.all, *self.positive, *self.negative)


def _sums(output: Output) -> tuple[Tensor | None, Tensor | None]:
    """Return Z⁺ and Z⁻ of a layer's output, biases included, where its rules need them."""
    routes = output.routes
    return _scaled(
        _join(routes.positive), _join(routes.negative), output.scale, output.shift, routes.flips
    )


def _way_back(
    relevance_pass: RelevancePass,
    rules: tuple[Rule, ...],
    scale: Tensor | None,
    shift: Tensor | None,
    routes: _RoutesShape,
    rectified: bool,
) -> WayBack:
    """Return how the relevance of a layer's output goes back to its contributions.

    The closure must not hold what the output's own history leads to, or memory would leak.
    """
    sizes, flips, n, p = routes

    def way_back(g: Tensor, value: Tensor, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        rule = rules[relevance_pass.number]
        total = _without_bias_gradient(value, shift) if rule.needs_total else None
        positive, negative = _scaled(
            _join(tensors[n : n + p]) if rule.needs_positive or flips else None,
            _join(tensors[n + p :]) if rule.needs_negative or flips else None,
            *(scale, shift, flips),
        )
        sums = Sums(total, positive, negative, rectified)
        shares = _unscaled(rule.share(value * g, sums), scale, flips)
        return (
            None,
            *_split(shares.total, sizes, n),
            *_split(shares.positive, sizes, p),
            *_split(shares.negative, sizes, len(tensors) - n - p),
        )

    return way_back


def _without_bias_gradient(value: Tensor, shift: Tensor | None) -> Tensor:
    """Return ``value`` as a sum whose biases are constants (method §4)."""
    return value if shift is None else value + (shift.detach() - shift)


def _scaled(
    positive: Tensor | None,
    negative: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    flips: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return Z⁺ and Z⁻ after the batch norm, biases included as constants."""
    if flips:
        assert scale is not None
        assert positive is not None
        assert negative is not None
        up = scale >= 0
        positive, negative = (
            torch.where(up, positive, negative),
            torch.where(up, negative, positive),
        )
    up, down = (
        (None, None)
        if shift is None
        else (shift.detach().clamp(min=0), shift.detach().clamp(max=0))
    )
    return _affine(positive, scale, up), _affine(negative, scale, down)


def _affine(x: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
    if x is None or (scale is None and shift is None):
        return x
    if scale is None:
        return x + shift
    return x * scale if shift is None else torch.addcmul(shift, x, scale)


def _unscaled(shares: Shares, scale: Tensor | None, flips: bool) -> Shares:
    """Return the shares of the contributions before the batch norm."""
    total, positive, negative = shares
    if scale is None:
        return shares
    if flips and (positive is not None or negative is not None):
        up = scale >= 0
        like = positive if positive is not None else negative
        assert like is not None
        p = torch.zeros_like(like) if positive is None else positive
        n = torch.zeros_like(like) if negative is None else negative
        positive, negative = torch.where(up, p, n), torch.where(up, n, p)
    return Shares(*(None if s is None else s * scale for s in (total, positive, negative)))


def _join(pieces: Sequence[Tensor]) -> Tensor | None:
    if not pieces:
        return None
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), 1)


def _concatenated(shifts: Sequence[Tensor | None], tensors: Sequence[Tensor]) -> Tensor | None:
    """Join shifts ``[C, 1, ...]`` along the channels, those that are None being 0."""
    if all(shift is None for shift in shifts):
        return None
    parts = [
        t.new_zeros((t.shape[1], *(1,) * (t.dim() - 2))) if shift is None else shift
        for shift, t in zip(shifts, tensors, strict=True)
    ]
    return torch.cat(parts)


def _split(share: Tensor | None, sizes: tuple[int, ...], n: int) -> Sequence[Tensor | None]:
    if share is None or not n:
        return (None,) * n
    return (share,) if n == 1 else share.split(sizes, 1)


def _straight(n: int) -> WayBack:
    def rule(g: Tensor, *operands: Tensor) -> tuple[Tensor, ...]:
        return (g,) * n

    return rule


def _first(func: TorchFunction, rest: Any, kwargs: Any, x: Tensor) -> Tensor:
    result = func(x, *rest, **kwargs)
    return result[0] if isinstance(result, tuple) else result
