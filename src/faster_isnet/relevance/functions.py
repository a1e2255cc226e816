"""The autograd functions of the engine, and the flag that switches them.

They compute in the forward pass what PyTorch computes. Backward they look at one flag: in a
standard backward they are PyTorch's gradient, in a relevance pass they carry relevance in the
G convention, R = a ⊙ G (LRP as one modified backward pass; Bassi et al., IEEE Access 12, 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from faster_isnet.common.torch_private import can_keep_version, keep_version
from faster_isnet.relevance.deferred_rules import BackwardRule, DeferredRule, DeferredRules


class RelevancePass:
    """Says whether the backward that runs now carries relevance.

    An object that all functions of one forward pass share, and not a thread-local: on CUDA the
    backward runs in other threads than the one that asked for it.

    Parameters
    ----------
    differentiable
        Whether the relevance shall be differentiated, as in training.

    Attributes
    ----------
    active
        Whether a relevance pass runs.
    number
        Which of a composite's passes it is.
    batched
        Whether it carries several heatmaps of each sample at once.
    deferred
        The backward rules that are not in the graph yet.
    last_concatenation
        What was concatenated last, for one that continues it.
    sources
        The nodes of the graph where the image, and what else relevance is asked of, comes in.
    """

    def __init__(self, differentiable: bool = True) -> None:
        self.differentiable = differentiable
        self.active, self.number, self.batched = False, 0, False
        self.deferred = DeferredRules()
        self.last_concatenation: object = None  # see concatenations.Concatenation
        self.sources: frozenset[Any] = frozenset()

    def defer(self, output: Tensor, rule: BackwardRule, *operands: Tensor) -> Tensor:
        """Defer the backward rule of ``output``, and return that."""
        if not can_keep_version():  # to put the rule into the graph later
            return RelevanceNode.apply(self, rule, output, *operands)  # type: ignore[no-any-return]
        return self.deferred.defer(output, rule, *operands)

    def flush(self, arguments: Iterable[Any]) -> None:
        """Put the deferred rules of what is among a function's arguments into the graph."""
        if self.deferred:
            self._attach(self.deferred.flush(arguments))

    def reset(self, attach: bool = True) -> None:
        """Put all deferred rules into the graph, or drop them; drop the last concatenation."""
        deferred = list(self.deferred.reset())  # which removes them as it goes
        if attach:
            self._attach(deferred)
        self.last_concatenation = None

    def _attach(self, outputs_and_rules: Iterable[tuple[Tensor, DeferredRule]]) -> None:
        for output, deferred in outputs_and_rules:
            # The values stay, so whatever has kept them for a gradient may use them.
            with torch.enable_grad(), keep_version(output):
                RelevanceNode.apply(self, deferred.rule, output, *deferred.operands)

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


class RelevanceNode(Function):
    """An identity whose relevance goes elsewhere than its gradient.

    ``RelevanceNode.apply(relevance_pass, rule, output, *operands)`` returns ``output``. In a
    standard backward the gradient goes on to ``output``'s own history; in a relevance pass it goes
    to ``operands`` by ``rule``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        rule: BackwardRule,
        output: Tensor,
        *operands: Tensor,
    ) -> Tensor:
        """Return ``output`` itself, with this node put on top of its history."""
        ctx.relevance_pass, ctx.rule = relevance_pass, rule
        ctx.gradient_edges = 1  # to the output's history
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*operands)
        # Returning an input as it is would make it a view, which in-place activations refuse.
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Send the gradient to the output's history, or relevance to the operands."""
        nothing = (None,) * (len(ctx.needs_input_grad) - 3)
        if not ctx.relevance_pass.active:
            return None, None, grad, *nothing
        if grad is None:
            return None, None, None, *nothing
        return None, None, None, *ctx.rule(grad, *ctx.saved_tensors)


class RelevanceEdge(Function):
    """A placeholder for several tensors, as which they are an operand of relevance nodes.

    ``RelevanceEdge.apply(relevance_pass, rule, like, *operands)`` returns zeros shaped as ``like``,
    which take no memory. Nodes that have it as an operand send their relevance to ``operands`` by
    ``rule``, which runs once, on the sum of what all of them send.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        rule: BackwardRule,
        like: Tensor,
        *operands: Tensor,
    ) -> Tensor:
        """Return the placeholder."""
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


class ReLU(Function):
    """ReLU whose relevance goes back by a rule.

    ``ReLU.apply(relevance_pass, rule, inplace, z, *operands)`` returns ``a = relu(z)``. In a
    relevance pass ``rule(G, a, *operands)`` returns the G of ``z`` and of each operand.

    Not a :class:`RelevanceNode`, since it is the one activation that most networks have, works in
    place, and needs nothing but its own output for both backwards.
    """

    @staticmethod
    def forward(
        ctx: Any,
        relevance_pass: RelevancePass,
        rule: BackwardRule,
        inplace: bool,
        z: Tensor,
        *operands: Tensor,
    ) -> Tensor:
        """Return ``relu(z)``, written into ``z`` if ``inplace``."""
        ctx.relevance_pass, ctx.rule = relevance_pass, rule
        ctx.set_materialize_grads(False)
        if inplace:
            ctx.mark_dirty(z)
        # Not torch.relu, which a surrounding interception would replace.
        aten = torch.ops.aten
        a: Tensor = aten.relu_.default(z) if inplace else aten.relu.default(z)
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


class StabilisedShare(Function):
    """``G · a / (a + ε)`` for a ≥ 0, what ReLU leaves of relevance, in half of torch's own steps.

    ``StabilisedShare.apply(G, a, epsilon)``; ε must be a normal number of the dtype.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, a: Tensor, epsilon: float) -> Tensor:
        """Return G − G / (1 + a/ε), which takes two passes over the map and is 0 where a is."""
        ctx.epsilon = epsilon
        ctx.save_for_backward(g, a)
        stabilised = torch.rsub(a, 1, alpha=-1 / epsilon)  # 1 + a/ε
        return torch.addcdiv(g, g, stabilised, value=-1, out=stabilised)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of G, v a/(a + ε), and of a, v G ε/(a + ε)²."""
        g, a = ctx.saved_tensors
        if torch.is_grad_enabled():
            ratio = 1 / (a + ctx.epsilon)
            return v * (a * ratio), v * g * (ctx.epsilon * ratio.square()), None
        stabilised = torch.rsub(a, 1, alpha=-1 / ctx.epsilon)  # 1 + a/ε
        lost = v / stabilised
        of_g = v - lost
        of_a = lost.mul_(g)
        zero = of_a.new_zeros(())
        torch.addcdiv(zero, of_a, stabilised, value=1 / ctx.epsilon, out=of_a)
        return of_g, of_a, None


class Overwrite(Function):
    """``z.copy_(y)`` whose gradient is y's alone.

    For in-place activations, which are computed out of place and written back. PyTorch's copy
    sends zeros to what ``z`` was before, which would then be propagated for nothing.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        """Return ``z``, holding the values of ``y``."""
        ctx.gradient_edges = 1  # to what z was, and nothing goes there
        ctx.mark_dirty(z)
        return z.copy_(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """Pass everything to ``y``."""
        return None, grad
