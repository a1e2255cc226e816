"""Relevance of the normalisations: affine maps with constant statistics (method §1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from faster_isnet.relevance.deferred_rules import BackwardRule
from faster_isnet.relevance.functions import RelevanceNode, RelevancePass


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Shape ``[C]`` or ``[B, C]`` so that it multiplies ``like`` ``[B, C, ...]`` by channel."""
    return values.reshape(*values.shape, *(1,) * (like.dim() - 2))


def scaled(g: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Multiply G by ``factors``, each ``[C]`` or ``[B, C]``, by channel."""
    return g * per_channel(reduce(torch.mul, factors), g).to(g.dtype)


def scale_rule(g: Tensor, x: Tensor, *factors: Tensor) -> tuple[Tensor | None, ...]:
    """Relevance of what ``x`` times ``factors`` is, apart from a shift."""
    return scaled(g, factors), *(None,) * len(factors)


@dataclass(slots=True)
class BatchNormCall:
    """A call of batch norm, taken apart."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float
    eps: float

    input_position: ClassVar[int] = 0
    """Which of the tensors that the output's node reads is the input."""

    def normalise(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, and μ and 1/σ of every channel as constants."""
        if not self.training:
            y = F.batch_norm(
                *(self.input, self.running_mean, self.running_var, self.weight, self.bias),
                *(False, self.momentum, self.eps),
            )
            return y, *self.statistics()
        if self.input.numel() == self.input.shape[1]:
            raise ValueError(
                f"batch norm in training mode needs more than one value per channel, got input of "
                f"shape {tuple(self.input.shape)}; use larger batches or put the model in eval mode"
            )
        # The native function hands out the statistics it has computed; F.batch_norm keeps them.
        y, mean, rstd = torch.native_batch_norm(
            *(self.input, self.weight, self.bias, self.running_mean, self.running_var),
            *(True, self.momentum, self.eps),
        )
        return y, mean, rstd

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return μ and 1/σ of every channel as constants: the batch's, or the running ones."""
        if self.training:
            dims = [0, *range(2, self.input.dim())]
            variance, mean = torch.var_mean(self.input.detach(), dims, correction=0)
        else:
            assert self.running_mean is not None  # or F.batch_norm raises
            assert self.running_var is not None
            mean, variance = self.running_mean.detach(), self.running_var
        with torch.no_grad():
            return mean, (variance + self.eps).rsqrt_()


@dataclass(slots=True)
class _SharedCall(BatchNormCall):
    """A batch norm that several processes have computed together, with what came of it."""

    output: Tensor
    mean: Tensor
    rstd: Tensor

    input_position: ClassVar[int] = 1  # as :class:`OnDemand` takes them

    def normalise(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, and μ and 1/σ of all processes' samples as constants."""
        return self.output, *self.statistics()

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return μ and 1/σ of all processes' samples as constants."""
        return self.mean.detach(), self.rstd.detach()


class OnDemand(Function):
    """What a node of the graph has computed, whose backward runs only where a gradient arrives.

    ``OnDemand.apply(node, output, *inputs)`` returns ``output``, detached. PyTorch runs the
    backward of a function in Python even if there is no gradient, with zeros; that of a
    synchronised batch norm would send them to all processes in every relevance pass.
    """

    @staticmethod
    def forward(ctx: Any, node: Any, output: Tensor, *inputs: Tensor | None) -> Tensor:
        """Return ``output`` itself, with this node on top of its inputs."""
        ctx.node = node
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Ask the node, if there is something to ask."""
        inputs = len(ctx.needs_input_grad) - 2
        gradients = (None,) * inputs if grad is None else ctx.node.apply(grad)[:inputs]
        return None, None, *gradients


def shared_batch_norm(
    input: Tensor,  # noqa: A002
    output: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """Return ``output``, what ``torch.nn.SyncBatchNorm`` has made of ``input``.

    That module calls no torch function, so this one is called in its place, known to torch's
    function protocol: whatever treats batch norms can treat it as one.
    """
    if has_torch_function_unary(input):
        arguments = input, output, mean, rstd, weight, bias
        return handle_torch_function(shared_batch_norm, (input,), *arguments)
    return output


def _shared_call(
    input: Tensor,  # noqa: A002
    output: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> BatchNormCall:
    return _SharedCall(input, None, None, weight, bias, True, 0.0, 0.0, output, mean, rstd)


def _functional_call(
    input: Tensor,  # noqa: A002 - torch's name, by which it may be passed
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> BatchNormCall:
    return BatchNormCall(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _torch_call(
    input: Tensor,  # noqa: A002
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> BatchNormCall:
    return BatchNormCall(input, running_mean, running_var, weight, bias, training, momentum, eps)


BATCH_NORM_CALLS: dict[Callable[..., Tensor], Callable[..., BatchNormCall]] = {
    F.batch_norm: _functional_call,
    torch.batch_norm: _torch_call,
    shared_batch_norm: _shared_call,
}
"""How to read the arguments of batch norm, which come in several orders."""


@dataclass(frozen=True)
class BatchNormRule:
    """Relevance of batch norm: scaled by γ/σ, σ being the batch's or the running one."""

    fuses: ClassVar[bool] = True

    def __call__(self, relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Compute batch norm, and defer its rule, one with the deferred rule of its input."""
        call = BATCH_NORM_CALLS[func](*args, **kwargs)
        if not (call.training or relevance_pass.differentiable):  # relevance is the gradient
            relevance_pass.flush((call.input,))
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        y, _, rstd = call.normalise()
        if not y.requires_grad:
            return y
        factors = (rstd,) if call.weight is None else (rstd, call.weight)
        if call.training:
            _hold_statistics(relevance_pass, y.grad_fn, call.input_position, factors)
        fused = relevance_pass.deferred.fuse(call.input)
        if fused is None:
            return relevance_pass.defer(y, scale_rule, call.input, *factors)
        before, n = fused.rule, len(fused.operands)

        def rule(g: Tensor, *operands: Tensor) -> tuple[Tensor | None, ...]:
            nothing = (None,) * (len(operands) - n)
            return *before(scaled(g, operands[n:]), *operands[:n]), *nothing

        return relevance_pass.defer(y, rule, *fused.operands, *factors)


def _hold_statistics(
    relevance_pass: RelevancePass, node: Any, input_position: int, factors: tuple[Tensor, ...]
) -> None:
    """Keep relevance that reaches batch norm's own node out of the batch's statistics.

    It does so where a ``torch.autograd.Function`` of the model reads the output: the deferred rule
    is not in the graph that such a function continues.
    """

    def hook(
        grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]
    ) -> tuple[Tensor | None, ...] | None:
        g = grad_outputs[0]
        if g is None or not relevance_pass.active:
            return None
        replaced: list[Tensor | None] = [None for _ in grad_inputs]
        replaced[input_position] = scaled(g, factors)
        return tuple(replaced)

    node.register_hook(hook)


def layer_norm(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Layer norm; relevance is scaled by γ/σ, σ being the sample's own, held constant."""
    y = F.layer_norm(input, normalized_shape, weight, bias, eps)
    if not y.requires_grad:
        return y

    def rule(g: Tensor, x: Tensor, *weight: Tensor) -> tuple[Tensor | None, ...]:
        rstd = torch.native_layer_norm(x.detach(), normalized_shape, None, None, eps)[2]
        return _scale(g, rstd, *weight)

    return _with_rule(relevance_pass, rule, y, input, weight)


def group_norm(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Group norm; relevance is scaled by γ/σ, σ being the group's own, held constant."""
    y = F.group_norm(input, num_groups, weight, bias, eps)
    if not y.requires_grad:
        return y
    return _with_rule(relevance_pass, _group_rule(num_groups, eps), y, input, weight)


def instance_norm(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Instance norm; relevance is scaled by γ/σ, σ being the instance's or the running one."""
    y = F.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )
    if not y.requires_grad:
        return y
    # F.instance_norm returns a view, which a node that marks it as changed refuses.
    y = y.clone()
    if use_input_stats:
        return _with_rule(relevance_pass, _group_rule(input.shape[1], eps), y, input, weight)
    assert running_var is not None  # or F.instance_norm would have raised
    rstd = (running_var + eps).rsqrt().detach()
    return _with_rule(relevance_pass, scale_rule, y, input, rstd, weight)


def rms_norm(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """RMS norm; relevance is scaled by γ / root mean square, held constant."""
    y = F.rms_norm(input, normalized_shape, weight, eps)
    if not y.requires_grad:
        return y

    def rule(g: Tensor, x: Tensor, *weight: Tensor) -> tuple[Tensor | None, ...]:
        floor = torch.finfo(x.dtype).eps if eps is None else eps
        dims = tuple(range(-len(normalized_shape), 0))
        rms = (x.detach().square().mean(dims, keepdim=True) + floor).sqrt()
        return _scale(g, 1 / rms, *weight)

    return _with_rule(relevance_pass, rule, y.clone(), input, weight)


def _with_rule(
    relevance_pass: RelevancePass, rule: BackwardRule, output: Tensor, *operands: Tensor | None
) -> Tensor:
    given = (o for o in operands if o is not None)
    return RelevanceNode.apply(relevance_pass, rule, output, *given)  # type: ignore[no-any-return]


def _scale(g: Tensor, rstd: Tensor, *weight: Tensor) -> tuple[Tensor | None, ...]:
    scale = rstd * weight[0] if weight else rstd
    return g * scale.to(g.dtype), *(None for _ in weight)


def _group_rule(num_groups: int, eps: float) -> BackwardRule:
    def rule(g: Tensor, x: Tensor, *weight: Tensor) -> tuple[Tensor | None, ...]:
        groups = x.detach().reshape(x.shape[0], num_groups, -1)
        rstd = torch.native_layer_norm(groups, groups.shape[2:], None, None, eps)[2].squeeze(-1)
        rstd = rstd.repeat_interleave(x.shape[1] // num_groups, 1)
        return _scale(g, per_channel(rstd, x), *(per_channel(w, x) for w in weight))

    return rule


@dataclass(frozen=True)
class _Handler:
    """Calls one of the functions above as the engine does."""

    compute: Callable[..., Tensor]

    def __call__(
        self, relevance_pass: RelevancePass, func: Callable[..., Any], args: Any, kwargs: Any
    ) -> Tensor:
        return self.compute(relevance_pass, *args, **kwargs)


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    **dict.fromkeys(BATCH_NORM_CALLS, BatchNormRule()),
    F.layer_norm: _Handler(layer_norm),
    torch.layer_norm: _Handler(layer_norm),
    F.group_norm: _Handler(group_norm),
    torch.group_norm: _Handler(group_norm),
    F.instance_norm: _Handler(instance_norm),
    F.rms_norm: _Handler(rms_norm),
    torch.rms_norm: _Handler(rms_norm),
}
"""What takes the place of each normalisation."""
