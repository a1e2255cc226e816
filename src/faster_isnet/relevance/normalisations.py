"""Relevance of the normalisations: linear maps whose scale is constant.

Batch norm's mean and deviation, which belong to many samples, are constants (method §1); of a
sample's own, the mean carries relevance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from faster_isnet.common.precision import at_least_float32
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
    """A call of ``F.batch_norm``, taken apart."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    input_position: ClassVar[int] = 0
    """Which of the tensors that the output's node reads is the input."""

    def normalise(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, and μ and 1/σ of every channel as constants."""
        if not self.training:
            y = F.batch_norm(
                *(self.input, self.running_mean, self.running_var, self.weight, self.bias),
                *(False, self.momentum, self.eps),
            )
            _let_order_be_read(y)
            assert self.running_mean is not None  # or F.batch_norm raises
            assert self.running_var is not None
            with torch.no_grad():
                return y, self.running_mean.detach(), (self.running_var + self.eps).rsqrt_()
        if self.input.numel() == self.input.shape[1]:
            raise ValueError(
                f"batch norm in training mode needs more than one value per channel, got input of "
                f"shape {tuple(self.input.shape)}; use larger batches or put the model in eval mode"
            )
        # The native function returns the statistics that F.batch_norm computes and keeps.
        y, mean, rstd = torch.native_batch_norm(
            *(self.input, self.weight, self.bias, self.running_mean, self.running_var),
            *(True, self.momentum, self.eps),
        )
        _let_order_be_read(y)
        return y, mean, rstd


def _let_order_be_read(y: Tensor) -> Tensor:
    """Return batch norm's output of a single image, to whose node gradients come in torch's order.

    On a CPU torch (2.6 to 2.14) takes a gradient with the channels last for one with the channels
    first if its one image has another stride than a batch's, as what attention returns has.
    """
    if len(y) == 1 and y.device.type == "cpu" and y.grad_fn is not None:
        y.grad_fn.register_prehook(
            lambda grads: tuple(g if g is None else g.contiguous() for g in grads)
        )
    return y


@dataclass(slots=True)
class SharedBatchNormCall:
    """A call of :func:`shared_batch_norm`, taken apart."""

    input: Tensor
    output: Tensor
    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None

    training: ClassVar[bool] = True
    input_position: ClassVar[int] = 1  # as :class:`OnDemand` takes them

    def normalise(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, and μ and 1/σ of all processes' samples as constants."""
        return self.output, self.mean.detach(), self.rstd.detach()


class OnDemand(Function):
    """What a node of the graph has computed, whose backward runs only where a gradient arrives.

    ``OnDemand.apply(reader, output, *inputs)`` returns ``output``, detached; ``reader`` is a node
    that reads the other's output, and keeps it alive. PyTorch runs the backward of a function in
    Python even without a gradient, with zeros; that of a synchronised batch norm would send them
    to all processes in every relevance pass.
    """

    @staticmethod
    def forward(ctx: Any, reader: Any, output: Tensor, *inputs: Tensor | None) -> Tensor:
        """Return ``output`` itself, with this node on top of its inputs."""
        ctx.reader = reader
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Ask the node, if there is something to ask."""
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        ((node, _),) = ctx.reader.next_functions
        return None, None, *node.apply(grad)[: len(ctx.needs_input_grad) - 2]


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
    """Read the arguments of ``torch.batch_norm``."""
    return BatchNormCall(input, running_mean, running_var, weight, bias, training, momentum, eps)


BATCH_NORM_CALLS: dict[
    Callable[..., Tensor], Callable[..., BatchNormCall | SharedBatchNormCall]
] = {
    F.batch_norm: BatchNormCall,
    torch.batch_norm: _torch_call,
    shared_batch_norm: SharedBatchNormCall,
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
            return _let_order_be_read(func(*args, **kwargs))
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
            return *before(scaled(g, operands[n:]), *operands[:n]), *(None for _ in operands[n:])

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
    """Layer norm; σ is the sample's own."""
    y = F.layer_norm(input, normalized_shape, weight, bias, eps)
    dims = tuple(range(-len(normalized_shape), 0))
    return _normalised(relevance_pass, y, input, weight, partial(_normalise, dims=dims, eps=eps))


def group_norm(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Group norm; σ is the group's own."""
    y = F.group_norm(input, num_groups, weight, bias, eps)
    weight = None if weight is None else per_channel(weight, input)
    return _normalised(relevance_pass, y, input, weight, _by_groups(num_groups, eps))


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
    """Instance norm; μ and σ are the instance's own, or the running ones and constants."""
    y = F.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )
    y = y.clone()  # F.instance_norm returns a view, which may not be marked as changed
    weight = None if weight is None else per_channel(weight, input)
    if use_input_stats:
        return _normalised(relevance_pass, y, input, weight, _by_groups(input.shape[1], eps))
    assert running_var is not None  # or F.instance_norm would have raised
    constant = per_channel((running_var + eps).rsqrt().detach(), input)
    return _normalised(relevance_pass, y, input, weight, lambda g, x: g * constant)


def rms_norm(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """RMS norm; the root mean square is the sample's own."""
    y = F.rms_norm(input, normalized_shape, weight, eps).clone()
    dims = tuple(range(-len(normalized_shape), 0))

    def share(g: Tensor, x: Tensor) -> Tensor:
        floor = torch.finfo(x.dtype).eps if eps is None else eps
        return g * (x.square().mean(dims, keepdim=True) + floor).rsqrt()

    return _normalised(relevance_pass, y, input, weight, share)


def normalize(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
    **_: Any,
) -> Tensor:
    """``F.normalize``: division by the norm, which is the sample's own."""
    y = F.normalize(input, p, dim, eps)

    def share(g: Tensor, x: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, p, dim, keepdim=True)
        return g / norm.clamp_min(eps)

    return _normalised(relevance_pass, y, input, None, share)


def _normalised(
    relevance_pass: RelevancePass,
    y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    share: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Give ``y`` a node for its relevance, ``share(G · weight, x)``.

    The mean is a linear function of the sample, so it carries relevance; σ is a constant in the
    relevance (Ali et al., ICML 2022; Achtibat et al., ICML 2024), and is differentiated like every
    other value of the sample in the relevance's gradient.
    """
    if not y.requires_grad:
        return y

    def rule(g: Tensor, x: Tensor, *weight: Tensor) -> tuple[Tensor | None, ...]:
        of_x = share(g * weight[0] if weight else g, at_least_float32(x))
        return of_x.to(g.dtype), *(None for _ in weight)

    operands = (x,) if weight is None else (x, weight)
    return RelevanceNode.apply(relevance_pass, rule, y, *operands)  # type: ignore[no-any-return]


def _normalise(g: Tensor, x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Return G of x, given that of (x − μ) / σ, with μ and σ over ``dims``."""
    centred = x - x.mean(dims, keepdim=True)  # torch.var takes several times as long
    g = g * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    return g - g.mean(dims, keepdim=True)


def _by_groups(num_groups: int, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return :func:`_normalise` for groups of channels."""

    def share(g: Tensor, x: Tensor) -> Tensor:
        shape = (x.shape[0], num_groups, -1)
        return _normalise(g.reshape(shape), x.reshape(shape), (-1,), eps).reshape(x.shape)

    return share


def _call(compute: Any, relevance_pass: RelevancePass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Call one of the functions above as the engine calls a handler."""
    return compute(relevance_pass, *args, **kwargs)  # type: ignore[no-any-return]


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    **dict.fromkeys(BATCH_NORM_CALLS, BatchNormRule()),
    F.layer_norm: partial(_call, layer_norm),
    torch.layer_norm: partial(_call, layer_norm),
    F.group_norm: partial(_call, group_norm),
    torch.group_norm: partial(_call, group_norm),
    F.instance_norm: partial(_call, instance_norm),
    F.normalize: partial(_call, normalize),
    F.rms_norm: partial(_call, rms_norm),
    torch.rms_norm: partial(_call, rms_norm),
}
"""What takes the place of each normalisation."""
