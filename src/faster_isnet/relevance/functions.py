"""The autograd functions of the engine, and the flag that switches them.

They compute in the forward pass what PyTorch computes. Backward they look at one flag: in an
ordinary backward they are PyTorch's gradient, in a relevance pass they carry relevance in the
G convention, R = a ⊙ G (LRP as one modified backward pass; Bassi et al., IEEE Access 12, 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from faster_isnet.relevance.scales import RunningScales
from faster_isnet.relevance.ways import Entrance, Rule, Way, Ways


class RelevancePass:
    """Says whether the backward that runs now carries relevance.

    An object that all functions of one forward pass share, and not a thread-local: on CUDA the
    backward runs in other threads than the one that asked for it.

    Parameters
    ----------
    differentiable
        Whether the relevance shall be differentiated, as in training.
    entrances
        Whether relevance may come to a hidden tensor by an entrance of its own, which costs less.
        Who asks for the relevance of that tensor misses what has come so.

    Attributes
    ----------
    ways
        The ways back that are on no history yet.
    running_scales
        The scales of the batch norms that have been evaluated.
    """

    def __init__(self, differentiable: bool = True, entrances: bool = False) -> None:
        self.differentiable, self.entrances = differentiable, entrances
        self.active = False
        self.number = 0
        self.batched = False
        self.ways = Ways()
        self.running_scales = RunningScales()
        self.latest_concatenation: object = None  # see linear_layers.Concatenation
        self.latest_entrance: Entrance | None = None
        self._constants: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return 0 and 1 as tensors of the kind of ``like``.

        Of a number torch makes such a tensor in each call, which takes as long as a small function.
        """
        kind = like.dtype, like.device
        if kind not in self._constants:
            with torch.inference_mode(False):
                zero, one = (like.new_tensor(number) for number in (0.0, 1.0))
            self._constants[kind] = zero, one
        return self._constants[kind]

    def settle(self, arguments: Iterable[Any]) -> None:
        """Put the ways back of what is among a function's arguments on their histories."""
        if self.ways.waiting:
            self._put(self.ways.of(arguments))

    def finish(self) -> None:
        """Put those ways on histories that nothing has joined: the model has run."""
        self._put(self.ways.all(joined=False))
        self.latest_concatenation = self.latest_entrance = None

    def forget(self) -> None:
        """Put all ways on histories, and go on from nothing: what reads tensors is not seen."""
        self._put(self.ways.all(joined=True))
        self.latest_concatenation = self.latest_entrance = None

    def _put(self, outputs_and_ways: Iterable[tuple[Tensor, Way]]) -> None:
        for output, way in outputs_and_ways:
            if way.optional and not self.differentiable:
                continue  # not worth a node that costs more than PyTorch's own gradient
            # The values stay, so that whoever has kept them for a gradient may use them.
            with torch.enable_grad(), _unsafe_preserve_version_counter(output):
                Detour.apply(self, way.rule, output, *way.operands)

    @contextmanager
    def running(self, number: int = 0, batched: bool = False) -> Iterator[None]:
        """Carry relevance in every backward until the block ends.

        ``number`` says which of a composite's passes it is; most have only one. ``batched`` says
        that it carries several heatmaps of each sample at once.
        """
        self.active, self.number, self.batched = True, number, batched
        try:
            yield
        finally:
            self.active = False


class Detour(Function):
    """A value that passes unchanged, and whose relevance takes another way back than its gradient.

    ``Detour.apply(relevance_pass, rule, output, *operands)`` returns ``output``. In an ordinary
    backward the gradient goes on to ``output``'s own history; in a relevance pass it goes to
    ``operands`` by ``rule``.
    """

    @staticmethod
    def forward(
        ctx: Any, relevance_pass: RelevancePass, rule: Rule, output: Tensor, *operands: Tensor
    ) -> Tensor:
        """Return ``output`` itself, with this node put on top of its history."""
        ctx.relevance_pass, ctx.rule = relevance_pass, rule
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*operands)
        # Handing an input on as it is would make it a view, which in-place activations refuse.
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Send the gradient down its own way, or relevance down the detour."""
        nowhere = (None,) * (len(ctx.needs_input_grad) - 3)
        if not ctx.relevance_pass.active:
            return None, None, grad, *nowhere
        if grad is None:
            return None, None, None, *nowhere
        return None, None, None, *ctx.rule(grad, *ctx.saved_tensors)


class Route(Function):
    """A way for relevance alone: a tensor without values that hands the G it receives on.

    ``Route.apply(relevance_pass, rule, like, *operands)`` returns zeros shaped as ``like``, which
    take no memory. What uses them as an operand of a :class:`Detour` sends its relevance to
    ``operands`` by ``rule``; many may, and what they send is added up before.
    """

    @staticmethod
    def forward(
        ctx: Any, relevance_pass: RelevancePass, rule: Rule, like: Tensor, *operands: Tensor
    ) -> Tensor:
        """Return the tensor without values."""
        ctx.relevance_pass, ctx.rule = relevance_pass, rule
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*operands)
        return like.new_zeros(()).expand(like.shape)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        """Send relevance on by the rule."""
        if g is None or not ctx.relevance_pass.active:
            return (None,) * len(ctx.needs_input_grad)
        return None, None, None, *ctx.rule(g, *ctx.saved_tensors)


OWN_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
"""What our ReLUs call: no model does, so an interception knows them from the model's."""


def _rectified(
    ctx: Any,
    relevance_pass: RelevancePass,
    rule: Callable[..., Any],
    inplace: bool,
    z: Tensor,
) -> Tensor:
    """Return ``relu(z)``, and note what its node needs beside its operands."""
    ctx.relevance_pass, ctx.rule = relevance_pass, rule
    ctx.set_materialize_grads(False)
    if inplace:
        ctx.mark_dirty(z)
    a: Tensor = OWN_RELUS[inplace](z)
    return a


class ReLU(Function):
    """ReLU whose relevance goes back by a rule.

    ``ReLU.apply(relevance_pass, rule, inplace, z, *operands)`` returns ``a = relu(z)``. In a
    relevance pass ``rule(G, a, *operands)`` returns the G of ``z`` and of each operand.

    Apart from :class:`Detour`, since it is the one activation that most networks have, works in
    place, and needs nothing but its own output for both ways back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        rule: Rule,
        inplace: bool,
        z: Tensor,
        *operands: Tensor,
    ) -> Tensor:
        """Return ``relu(z)``, written into ``z`` if ``inplace``."""
        a = _rectified(ctx, relevance_pass, rule, inplace, z)
        ctx.save_for_backward(a, *operands)
        return a

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gate the gradient, or send relevance back by the rule."""
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        a, *operands = ctx.saved_tensors
        if ctx.relevance_pass.active:
            return None, None, None, *ctx.rule(grad, a, *operands)
        gated = torch.ops.aten.threshold_backward.default(grad, a, 0)
        return None, None, None, gated, *(None,) * len(operands)


class ScaledReLU(Function):
    """ReLU of what has been scaled by channel, whose relevance may come with that scale applied.

    ``ScaledReLU.apply(relevance_pass, rule, inplace, z, x, *factors)`` returns ``a = relu(z)``, z
    being made of x, and a tensor without values for an
    :class:`~faster_isnet.relevance.ways.Entrance`. In a relevance pass
    ``rule(G, scaled G, a, *factors)`` returns the G of x; one of the two that arrive may be None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        rule: Callable[..., Tensor],
        inplace: bool,
        z: Tensor,
        x: Tensor,
        *factors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return ``relu(z)``, written into ``z`` if ``inplace``, and the tensor without values."""
        a = _rectified(ctx, relevance_pass, rule, inplace, z)
        ctx.save_for_backward(a, *factors)
        zero, _ = relevance_pass.constants(a)
        return a, zero.expand(a.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, scaled: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gate the gradient, or send relevance back by the rule."""
        nothing = (None,) * (len(ctx.needs_input_grad) - 5)
        if grad is None and scaled is None:
            return None, None, None, None, None, *nothing
        a, *factors = ctx.saved_tensors
        if ctx.relevance_pass.active:
            return None, None, None, None, ctx.rule(grad, scaled, a, *factors), *nothing
        gated = torch.ops.aten.threshold_backward.default(grad, a, 0)
        return None, None, None, gated, None, *nothing


def stabilised_share(g: Tensor, a: Tensor, epsilon: float, one: Tensor) -> Tensor:
    """Return ``G · a / (a + ε)`` for a ≥ 0, without a gradient: what ReLU leaves of relevance.

    As G − G / (1 + a/ε), which takes two passes over the map and is exactly 0 where a is. ε must
    be a normal number of the dtype, ``one`` is a tensor that holds 1.
    """
    stabilised = torch.add(one, a, alpha=1 / epsilon)  # 1 + a/ε
    return torch.addcdiv(g, g, stabilised, value=-1, out=stabilised)


class StabilisedShare(Function):
    """:func:`stabilised_share`, with a gradient that takes half of the steps of torch's own.

    ``StabilisedShare.apply(g, a, epsilon, zero, one)``, the last two being tensors that hold these
    numbers.
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, a: Tensor, epsilon: float, zero: Tensor, one: Tensor
    ) -> Tensor:
        """Return the share."""
        ctx.epsilon, ctx.zero, ctx.one = epsilon, zero, one
        ctx.save_for_backward(g, a)
        return stabilised_share(g, a, epsilon, one)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of G, v a/(a + ε), and of a, v G ε/(a + ε)²."""
        g, a = ctx.saved_tensors
        if torch.is_grad_enabled():
            ratio = 1 / (a + ctx.epsilon)
            of_a = v * g * (ctx.epsilon * ratio.square())
            return v * (a * ratio), of_a, None, None, None
        stabilised = torch.add(ctx.one, a, alpha=1 / ctx.epsilon)  # 1 + a/ε
        lost = v / stabilised
        back = v - lost
        of_a = lost.mul_(g)
        torch.addcdiv(ctx.zero, of_a, stabilised, value=1 / ctx.epsilon, out=of_a)
        return back, of_a, None, None, None


class Overwrite(Function):
    """``z.copy_(y)`` whose gradient is y's alone.

    For in-place activations, which are computed out of place and written back. PyTorch's copy
    sends zeros to what ``z`` was before, which would then be propagated for nothing.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        """Return ``z``, holding the values of ``y``."""
        ctx.mark_dirty(z)
        return z.copy_(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """Pass everything to ``y``."""
        return None, grad
