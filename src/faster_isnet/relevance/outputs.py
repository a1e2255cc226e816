"""What is known of a linear layer's output, and the backward rule of its relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from faster_isnet.common.checks import is_on_host
from faster_isnet.relevance.contributions import Concatenated, Contributions
from faster_isnet.relevance.deferred_rules import BackwardRule
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.rules import Rule, Shares, Sums


@dataclass(frozen=True)
class Output:
    """What is known of some channels of a linear layer's output.

    Attributes
    ----------
    rules
        The layer's, one for each relevance pass; None to pass G by the gradient.
    contributions
        What it is summed from: one for all channels, or one for each run of them.
    scale, shift
        Its batch norm's γ/σ, and all that is not a contribution (biases and what the batch norm
        makes of them), of shapes that broadcast; None for 1 and 0.
    fusable
        Whether a batch norm that reads the output is one with the layer.
    """

    rules: tuple[Rule, ...] | None
    contributions: tuple[Contributions, ...]
    scale: Tensor | None = None
    shift: Tensor | None = None
    fusable: bool = True

    @property
    def channels(self) -> int:
        """How many channels."""
        return sum(piece.channels for piece in self.contributions)

    @cached_property
    def operands(self) -> _Operands:
        """What the backward rule sends relevance to."""
        rules, pieces = self.rules, self.contributions
        assert rules is not None
        needs_positive = any(rule.needs_positive for rule in rules)
        needs_negative = any(rule.needs_negative for rule in rules)
        flips = False
        if self.scale is not None and (needs_positive or needs_negative):
            # Whether some γ is negative is looked up on the host only: no wait for an accelerator.
            flips = not is_on_host(self.scale) or self.scale.detach().min().item() < 0
        return _Operands(
            tuple(piece.all for piece in pieces),
            tuple(p.positive for p in pieces) if needs_positive or flips else (),
            tuple(p.negative for p in pieces) if needs_negative or flips else (),
            flips,
        )


class _Operands(NamedTuple):
    """Operands of a backward rule: for all, the positive, the negative contributions.

    ``flips`` says that a negative γ may turn positive contributions into negative ones.
    """

    all: tuple[Tensor, ...]
    positive: tuple[Tensor, ...]
    negative: tuple[Tensor, ...]
    flips: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.all, *self.positive, *self.negative)


def positive_sum(output: Output) -> Tensor | None:
    """Return Z⁺ of a layer's output, biases included, if its rules need it."""
    operands = output.operands
    positive, negative = _join(operands.positive), _join(operands.negative)
    return _scaled(positive, negative, output.scale, output.shift, operands.flips)[0]


def operands_of(outputs: Sequence[Output]) -> list[Tensor]:
    """Return the tensors that the relevance of a layer's output goes back to."""
    return [operand for output in outputs for operand in output.operands.tensors]


def normalised(output: Output, scale: Tensor, offset: Tensor) -> Output:
    """Return what a batch norm, scale · output + offset, makes of an output that it is one with."""
    shift = offset if output.shift is None else torch.addcmul(offset, output.shift, scale)
    return replace(output, scale=scale, shift=shift, fusable=False)


def gathered(relevance_pass: RelevancePass, output: Output) -> Output:
    """Return an output with its contributions as one, for its readers to share their sums."""
    if len(output.contributions) == 1:
        return output
    together = Concatenated(relevance_pass, output.contributions)
    return replace(output, contributions=(together,))


def runs(outputs: Sequence[Output], like: Tensor) -> list[Output]:
    """Return outputs that lie side by side with those of the same rules as one."""
    groups = (list(group) for _, group in groupby(outputs, attrgetter("rules")))
    return [group[0] if len(group) == 1 else _joined(group, like) for group in groups]


def _joined(outputs: Sequence[Output], like: Tensor) -> Output:
    shift = None
    if any(output.shift is not None for output in outputs):
        ones = (1,) * (like.dim() - 2)
        nothing = (like.new_zeros((output.channels, *ones)) for output in outputs)
        shifts = [z if o.shift is None else o.shift for o, z in zip(outputs, nothing, strict=True)]
        shift = torch.cat(shifts)
    contributions = tuple(piece for output in outputs for piece in output.contributions)
    return Output(outputs[0].rules, contributions, shift=shift)


def backward_rule(
    relevance_pass: RelevancePass, outputs: Sequence[Output], rectified: bool = False
) -> BackwardRule:
    """Return the backward rule of a layer's output, for its values and its operands.

    ``rectified`` says that it is the relevance of the output's positive part, which ReLU left.
    """
    rules = [_backward_rule(relevance_pass, output, rectified) for output in outputs]
    if len(rules) == 1:
        return rules[0]
    sizes = [output.channels for output in outputs]
    counts = [len(output.operands.tensors) for output in outputs]

    def side_by_side(g: Tensor, value: Tensor, *operands: Tensor) -> tuple[Tensor | None, ...]:
        """Treat each run of channels by its own rule."""
        shares, rest = list[Tensor | None](), iter(operands)
        pieces = torch.split(g, sizes, 1), torch.split(value, sizes, 1)
        for rule, count, g_, v in zip(rules, counts, *pieces, strict=True):
            shares += rule(g_, v, *islice(rest, count))[1:]
        return None, *shares

    return side_by_side


def _backward_rule(relevance_pass: RelevancePass, output: Output, rectified: bool) -> BackwardRule:
    """Return the backward rule of channels that have the same rules.

    The closure must not hold what the output's own history leads to, or memory would leak.
    """
    rules, scale, shift = output.rules, output.scale, output.shift
    assert rules is not None
    operands = output.operands  # the closure holds numbers only
    flips, n, p = operands.flips, len(operands.all), len(operands.positive)
    sizes = [piece.channels for piece in output.contributions]

    def backward(g: Tensor, value: Tensor, *tensors: Tensor) -> tuple[Tensor | None, ...]:
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

    return backward


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
        exchanged = torch.where(up, negative, positive)
        positive, negative = torch.where(up, positive, negative), exchanged
    above = None if shift is None else shift.detach().clamp(min=0)
    below = None if shift is None else shift.detach().clamp(max=0)
    return _affine(positive, scale, above), _affine(negative, scale, below)


def _affine(x: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
    if x is None or shift is None:
        return x if x is None or scale is None else x * scale
    return x + shift if scale is None else torch.addcmul(shift, x, scale)


def _unscaled(shares: Shares, scale: Tensor | None, flips: bool) -> Shares:
    """Return the shares of the contributions before the batch norm."""
    total, positive, negative = shares
    if scale is None:
        return shares
    if flips and (positive is not None or negative is not None):
        up = scale >= 0
        p: Any = 0 if positive is None else positive
        n: Any = 0 if negative is None else negative
        positive, negative = torch.where(up, p, n), torch.where(up, n, p)
    return Shares(*(None if s is None else s * scale for s in (total, positive, negative)))


def _join(pieces: Sequence[Tensor]) -> Tensor | None:
    if not pieces:
        return None
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), 1)


def _split(share: Tensor | None, sizes: list[int], n: int) -> Sequence[Tensor | None]:
    if share is None or not n:
        return (None,) * n
    return (share,) if n == 1 else torch.split(share, sizes, 1)
