"""The engine of the rule-based composites: what takes the place of each function of a model.

Every linear layer's output gets a :class:`~faster_isnet.relevance.functions.RelevanceNode` that
shares its relevance by the layer's rule (method §4). A reader that is one with the layer, as a
batch norm that is to be fused with it or an activation whose output says how much relevance there
is, finds metadata of the layer's output and gives its own output a node to the same contributions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.relevance import normalisations
from faster_isnet.relevance.activations import (
    ARITHMETIC,
    COPIES,
    ActivationRule,
    GateRule,
    TorchFunction,
    activation_handlers,
    call_unchanged,
    out_of_place,
    passed_on,
    spellings,
    write_back,
)
from faster_isnet.relevance.attention import AttentionRule
from faster_isnet.relevance.call_arguments import leaves, tensors_in
from faster_isnet.relevance.concatenations import (
    CONCATENATIONS,
    ConcatenationRule,
    concatenated,
    continuing,
)
from faster_isnet.relevance.contributions import Elements, Mapped, Summed
from faster_isnet.relevance.functions import RelevanceEdge, RelevanceNode, RelevancePass, ReLU
from faster_isnet.relevance.gates import Gates
from faster_isnet.relevance.input_rule import InputRule
from faster_isnet.relevance.interception import ForwardPass
from faster_isnet.relevance.linear_maps import LINEAR_CALLS, Dense, contrast
from faster_isnet.relevance.lost_batch_norms import FusableLayers
from faster_isnet.relevance.normalisations import BATCH_NORM_CALLS, per_channel
from faster_isnet.relevance.outputs import (
    Output,
    backward_rule,
    gathered,
    normalised,
    operands_of,
    positive_sum,
    runs,
)
from faster_isnet.relevance.pools import LP_POOLS
from faster_isnet.relevance.products import with_products
from faster_isnet.relevance.quotients import with_quotients
from faster_isnet.relevance.rules import Epsilon, Rule
from faster_isnet.relevance.tensor_metadata import TensorMetadata

SUMS = spellings(["add", "add_"])
AVERAGE_POOLS = spellings(
    [*(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)), "mean", "sum"]
)
MAX_POOLS = spellings(
    [
        *(f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
        *(f"{kind}max_pool{n}d_with_indices" for kind in ("", "adaptive_") for n in (1, 2, 3)),
        *("amax", "fractional_max_pool2d"),
    ]
)
# What leaves every element, or an average of some, as it is: no negative ones come of it.
KEEPS_SIGN = spellings(
    [
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"),
        *("flatten", "unflatten", "view", "reshape", "permute", "transpose", "movedim", "squeeze"),
        *("unsqueeze", "contiguous", "clone", "chunk", "split", "unbind", "narrow", "select"),
        *(
            "to",
            "float",
            "double",
            "__getitem__",
            "expand",
            "repeat",
            "stack",
            "flip",
            "pixel_shuffle",
            "channel_shuffle",
        ),
    ]
)
# What writes into a tensor.
_OPERATORS = [f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "div", "pow", "mod")]
IN_PLACE = frozenset(
    spellings(
        [
            *(name for name in dir(Tensor) if name.endswith("_") and not name.startswith("_")),
            *(*_OPERATORS, "__setitem__"),
        ]
    )
)


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


class LayerRules(ForwardPass):
    """What one forward pass of a model needs to know for its layers' rules.

    Parameters
    ----------
    relevance_pass
        The flag of this forward pass.
    choose
        Returns a layer's rules.
    running
        Returns the name of the innermost module that runs.
    input_rule
        The rule of what reads the image, if that has one of its own.
    epsilon
        The stabiliser of activations other than ReLU.
    """

    def __init__(
        self,
        relevance_pass: RelevancePass,
        choose: Callable[[Layer], tuple[Rule, ...] | None],
        running: Callable[[], str],
        input_rule: InputRule | None,
        epsilon: float,
    ) -> None:
        self._relevance_pass = relevance_pass
        self._choose, self._running, self._input_rule = choose, running, input_rule
        self._activation = ActivationRule(epsilon)
        self._outputs = TensorMetadata[tuple[Output, ...]]()
        self._concatenations = TensorMetadata[tuple[Output, ...]]()
        self._concatenated = TensorMetadata[tuple[Tensor, ...]]()
        self._nonnegative = TensorMetadata[bool]()
        self._fusable = FusableLayers()
        self._depth = 0

    def handlers(self) -> dict[TorchFunction, Callable[..., Any]]:
        """Return what takes the place of each function that the model calls."""
        table: dict[TorchFunction, Callable[..., Any]] = {}
        table |= dict.fromkeys([*IN_PLACE, F.threshold, F.rrelu], self._write)
        table |= activation_handlers(
            self._activate, self._relu, self._gate, self._softmax, self._write
        )
        table |= dict.fromkeys(LINEAR_CALLS, self._linear)
        table |= dict.fromkeys(SUMS, self._sum)
        table |= dict.fromkeys(AVERAGE_POOLS, partial(self._pool, "average_pool"))
        table |= dict.fromkeys(MAX_POOLS, partial(self._pool, "max_pool"))
        table |= dict.fromkeys(CONCATENATIONS, self._concatenate)
        table |= dict.fromkeys(KEEPS_SIGN, self._keep_sign)
        table |= normalisations.HANDLERS | LP_POOLS
        table[F.scaled_dot_product_attention] = AttentionRule()
        table |= dict.fromkeys(BATCH_NORM_CALLS, self._batch_norm)
        for func in (*COPIES, *ARITHMETIC):
            table[func] = partial(self._pass_on, table.get(func, call_unchanged))
        return with_products(Gates(with_quotients(table), self._gate).handlers())

    def quantity_handlers(self) -> dict[TorchFunction, Callable[..., Any]]:
        """Return what takes the place of functions of the logits, which are no layers."""
        return {contrast: self._contrast}

    def has_metadata(self, tensor: Tensor) -> bool:
        """Return True: what the rules know of tensors would be lost on those of a second run."""
        return True

    def start(self, logits: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return logits to read in a relevance pass, and what their relevance is if G is one."""
        outputs = self._outputs.get(logits)
        if outputs is None:
            return super().start(logits, number)
        (output,) = outputs
        assert output.rules is not None
        rule = output.rules[number]
        start = rule.start(logits, positive_sum(output) if rule.needs_positive else None)
        if start is logits:
            return logits, logits
        return self._finish(logits.clone(), start, outputs), start

    def _layer(self, kind: str, read: Tensor) -> tuple[Rule, ...] | None:
        if self._input_rule is not None and self._input_rule.handles(read):
            return None
        return self._choose(Layer(kind, self._running(), self._depth))

    def _finish(self, tensor: Tensor, value: Tensor, outputs: Sequence[Output]) -> Tensor:
        """Make a tensor share its relevance, which is G times ``value``, as a layer's output."""
        rule = backward_rule(self._relevance_pass, outputs)
        return RelevanceNode.apply(  # type: ignore[no-any-return]
            self._relevance_pass, rule, tensor, value, *operands_of(outputs)
        )

    def _put(self, value: Tensor, *outputs: Output, nonnegative: bool = False) -> Tensor:
        """Finish a layer's output, and keep what it is made of."""
        value = self._finish(value, value, outputs)
        self._outputs.put(value, outputs)
        self._nonnegative.put(value, nonnegative)
        if all(output.fusable for output in outputs):
            self._fusable.put(value, self._running())
        return value

    def _is_nonnegative(self, *tensors: Tensor) -> bool:
        rule = self._input_rule
        return all(self._nonnegative.get(t) or (rule and rule.rectified(t)) for t in tensors)

    def _linear(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        call = LINEAR_CALLS[func](*args, **kwargs)
        dense = isinstance(call.map, Dense)
        rules = self._layer("dense" if dense else "convolution", call.input)
        self._depth += 1
        y = func(*args, **kwargs)
        if y.dtype in (torch.float16, torch.bfloat16):
            raise RuntimeError(
                f"a layer{f' of {name!r}' if (name := self._running()) else ''} with a weight of "
                f"shape {list(call.weight.shape)} computes in {y.dtype}, but rules for layers need "
                "full precision; use float32 throughout the model, or composite='flex'"
            )
        # Else no relevance arrives, or it is no batch.
        if not call.input.requires_grad or not (dense or y.dim() == call.weight.dim()):
            return y  # type: ignore[no-any-return]
        mapped = Mapped(self._relevance_pass, call, y, self._is_nonnegative(call.input))
        if rules is None:
            return RelevanceNode.apply(self._relevance_pass, _unchanged, y, mapped.all)  # type: ignore[no-any-return]
        shift = None if call.bias is None else call.map.per_output(call.bias)
        fusable = not dense or y.dim() == 2
        return self._put(y, Output(rules, (mapped,), shift=shift, fusable=fusable))

    def _batch_norm(
        self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        call = BATCH_NORM_CALLS[func](*args, **kwargs)
        x = call.input
        before = self._before(x)
        if not x.requires_grad or any(output.rules is None for output in before):
            return normalisations.HANDLERS[func](flag, func, args, kwargs)
        y, mean, rstd = call.normalise()
        scale = rstd if call.weight is None else rstd * call.weight
        offset = -mean * scale if call.bias is None else call.bias - mean * scale
        scale, offset = per_channel(scale, y), per_channel(offset, y)
        if len(before) == 1:
            return self._put(y, normalised(before[0], scale, offset))
        sizes = [output.channels for output in before]
        parts = torch.split(scale, sizes), torch.split(offset, sizes)
        after = [normalised(*one) for one in zip(before, *parts, strict=True)]
        return self._put(y, *after)

    def _before(self, x: Tensor) -> list[Output]:
        """Return the outputs that a batch norm of ``x`` is one with, those of one rule together."""
        outputs = self._pieces(x)
        for piece in self._concatenated.get(x) or (x,):
            if not (self._concatenations.get(piece) or self._outputs.get(piece)):
                self._fusable.warn_of_lost(piece, self._running())
        own = self._layer("normalisation", x)
        return runs([o if o.rules else replace(o, rules=own) for o in outputs], x)

    def _pieces(self, x: Tensor) -> tuple[Output, ...]:
        """Return what a batch norm of ``x`` would be one with."""
        outputs = self._concatenations.get(x) or self._outputs.get(x)
        if outputs is None or not all(output.fusable for output in outputs):
            return (Output(None, (Elements(x, self._is_nonnegative(x)),)),)
        return outputs

    def _relu(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        relu, z, _rest, _kwargs, inplace = out_of_place(func, args, kwargs)
        outputs = self._outputs.get(z)
        if outputs is None:
            a: Tensor = z.relu_() if inplace else relu(z)
        else:
            # The operands are made before the function writes over what they are made of.
            operands = operands_of(outputs)
            rule = backward_rule(self._relevance_pass, outputs, rectified=True)
            a = ReLU.apply(self._relevance_pass, rule, inplace, z, *operands)
        self._nonnegative.put(a, True)
        return a

    def _keep_output(self, func: TorchFunction, args: Any, kwargs: Any) -> None:
        """Let a layer's output that a call writes into have a copy for the layer's rule to read."""
        if not (func in IN_PLACE or out_of_place(func, args, kwargs)[-1]):
            return
        z = args[0] if args else kwargs["input"]
        for output, outputs in self._outputs.sharing_memory(z):  # z may be a view of it
            copy = output.clone()
            write_back(output, self._finish(copy, copy, outputs), True)

    def _write(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Any:
        self._keep_output(func, args, kwargs)
        return func(*args, **kwargs)

    def _activate(self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        self._keep_output(func, args, kwargs)
        return self._activation(flag, func, args, kwargs)

    def _gate(self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        gate = GateRule()(flag, func, args, kwargs)
        self._nonnegative.put(gate, True)
        return gate

    def _softmax(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        weights: Tensor = func(*args, **kwargs)
        self._nonnegative.put(weights, True)
        return weights

    def _sum(self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        _func, x, rest, kwargs, inplace = out_of_place(func, args, kwargs)
        y = rest[0] if rest else kwargs.get("other")
        rules = self._layer("sum", x)
        relevant = all(isinstance(t, Tensor) and t.requires_grad for t in (x, y))
        if rules is None or not relevant:
            return self._write(flag, func, args, kwargs)  # type: ignore[no-any-return]
        original = x
        if inplace:  # what x is written over with is not what is shared
            outputs = self._outputs.get(x)
            x = x.clone()
            x = x if outputs is None else self._finish(x, x, outputs)
        alpha = kwargs.get("alpha", 1)
        y = y if alpha == 1 else y * alpha
        s = x + y
        nonnegative = self._is_nonnegative(original, y)
        s = write_back(original, s, inplace)
        summed = Summed(self._relevance_pass, s, (x, y))
        return self._put(s, Output(rules, (summed,)), nonnegative=nonnegative)

    def _pool(
        self, kind: str, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Any:
        x = args[0] if args else kwargs["input"]
        rules = self._layer(kind, x)
        result = func(*args, **kwargs)
        pooled = result[0] if isinstance(result, tuple) else result
        if rules is None or not pooled.requires_grad or pooled.dim() < 2:
            return result
        nonnegative = self._is_nonnegative(x)
        pool = None
        if kind == "average_pool":
            rest = {k: v for k, v in kwargs.items() if k != "input"}
            pool = partial(_first, func, args[1:], rest), x
        contributions = Elements(pooled, nonnegative, pool)
        # A copy, since an in-place activation may follow.
        y = self._put(pooled.clone(), Output(rules, (contributions,)), nonnegative=nonnegative)
        return (y, *result[1:]) if isinstance(result, tuple) else y

    def _concatenate(
        self, flag: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        tensors, dim = concatenated(*args, **kwargs)
        pieces = continuing(flag, tensors, dim)
        y = ConcatenationRule()(flag, func, args, kwargs)
        self._nonnegative.put(y, self._is_nonnegative(*tensors))
        if len(tensors) == 1 and (known := self._outputs.get(tensors[0])):
            self._outputs.put(y, known)
        if dim % y.dim() == 1 and y.requires_grad:
            self._concatenated.put(y, tuple(pieces))
            outputs = [output for piece in pieces for output in self._pieces(piece)]
            if any(output.rules for output in outputs):
                together = (gathered(flag, output) for output in runs(outputs, y))
                self._concatenations.put(y, tuple(together))
        return y

    def _keep_sign(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Any:
        self._keep_output(func, args, kwargs)
        result = func(*args, **kwargs)
        tensors = tensors_in(args, kwargs)
        if tensors and self._is_nonnegative(*tensors):
            for tensor in leaves([result]):
                self._nonnegative.put(tensor, True)
        return result

    def _pass_on(
        self,
        handler: Callable[..., Any],
        flag: RelevancePass,
        func: TorchFunction,
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Call ``handler``; what holds the values that the function read has their metadata."""
        read = passed_on(func, args, kwargs)
        origins = [known.origin(read) for known in (self._outputs, self._concatenations)]
        result = handler(flag, func, args, kwargs)
        if read is not None:
            for known, origin in zip((self._outputs, self._concatenations), origins, strict=True):
                known.follow(origin, result)
        return result

    def _contrast(self, _: RelevancePass, func: TorchFunction, args: Any, kwargs: Any) -> Tensor:
        """Take the differences of logits for the outputs of the model's last layer (method §4)."""
        logits, index = args
        z: Tensor = contrast(logits, index)
        outputs = self._outputs.get(logits)
        if outputs is None or outputs[0].scale is not None:
            return z
        (output,) = outputs
        assert output.rules is not None
        if not all(type(rule) is Epsilon for rule in output.rules):
            return z
        (layer,) = output.contributions

        def rule(g: Tensor, _: Tensor) -> tuple[Tensor]:
            return (torch.func.vjp(lambda y: contrast(y, index), logits.detach())[1](g)[0],)

        edge = RelevanceEdge.apply(self._relevance_pass, rule, z, layer.all)
        shift = output.shift
        shift = None if shift is None else contrast(shift.expand_as(logits), index)
        differences = Output(output.rules, (Elements(edge, nonnegative=False),), shift=shift)
        return self._finish(z, z, [differences])


def _unchanged(g: Tensor, _: Tensor) -> tuple[Tensor]:
    return (g,)


def _first(func: TorchFunction, rest: Any, kwargs: Any, x: Tensor) -> Any:
    result = func(x, *rest, **kwargs)
    return result[0] if isinstance(result, tuple) else result
