"""Composites: which function of a model gets which rule.

A composite is data, a table from torch functions to what takes their place while a model is
explained; every function that is not in it passes relevance by its ordinary gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.checks import check_choice
from faster_isnet.relevance import normalisations
from faster_isnet.relevance.activations import (
    ACTIVATIONS,
    CLAMPS,
    GATES,
    RELUS,
    ActivationRule,
    ClampRule,
    GateRule,
    ReLURule,
    TorchFunction,
)
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.linear_maps import LINEAR_CALLS, convolution

Handler = Callable[[RelevancePass, TorchFunction, tuple[Any, ...], dict[str, Any]], Any]
"""``handler(relevance_pass, function, args, kwargs)`` computes what the function would."""


@dataclass(frozen=True)
class Composite:
    """A named set of rules.

    Parameters
    ----------
    name
        What to call it in messages and settings.
    handlers
        For each torch function that needs a rule, what computes it in its place.
    """

    name: str
    handlers: Mapping[TorchFunction, Handler]


def flex(epsilon: float) -> Composite:
    """LRP-Flex: LRP-ε with the stabiliser at the activations only (method §1).

    Everything linear passes G by its gradient, so no knowledge of the architecture is needed.
    Normalisations have constant statistics; gates get no relevance (Bassi et al., IEEE Access 12,
    2024, section on LRP-Flex).

    Parameters
    ----------
    epsilon
        The stabiliser ε ≥ 0, in units of the activations. With 0 and ReLU it is Gradient × Input.
    """
    rules: dict[TorchFunction, Handler] = {}
    rules |= dict.fromkeys(ACTIVATIONS, ActivationRule(epsilon))
    rules |= dict.fromkeys(GATES, GateRule())
    rules |= dict.fromkeys(RELUS, ReLURule(epsilon))
    rules |= dict.fromkeys(CLAMPS, ClampRule(epsilon))
    rules |= dict.fromkeys((f for f in LINEAR_CALLS if f is not F.linear), convolution)
    return Composite("flex", rules | _NORMALISATIONS)


def build_composite(composite: str | Composite, epsilon: float) -> Composite:
    """Return a composite from its name, or the one that is given.

    Raises
    ------
    ValueError
        If there is no composite of that name.
    TypeError
        If it is neither a name nor a :class:`Composite`.
    """
    if isinstance(composite, Composite):
        return composite
    return COMPOSITES[check_choice("composite", composite, COMPOSITES)](epsilon)


COMPOSITES: dict[str, Callable[[float], Composite]] = {"flex": flex}


@dataclass(frozen=True)
class _Normalisation:
    """Calls a function of :mod:`~faster_isnet.relevance.normalisations` as a handler."""

    compute: Callable[..., Tensor]

    def __call__(
        self, relevance_pass: RelevancePass, func: TorchFunction, args: Any, kwargs: Any
    ) -> Tensor:
        return self.compute(relevance_pass, *args, **kwargs)


def _torch_batch_norm(
    relevance_pass: RelevancePass,
    input: Tensor,  # noqa: A002 - torch's names
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """``torch.batch_norm``, which orders its arguments otherwise than ``F.batch_norm``."""
    return normalisations.batch_norm(
        relevance_pass, input, running_mean, running_var, weight, bias, training, momentum, eps
    )


_NORMALISATIONS: dict[TorchFunction, Handler] = {
    F.batch_norm: _Normalisation(normalisations.batch_norm),
    torch.batch_norm: _Normalisation(_torch_batch_norm),
    F.layer_norm: _Normalisation(normalisations.layer_norm),
    torch.layer_norm: _Normalisation(normalisations.layer_norm),
    F.group_norm: _Normalisation(normalisations.group_norm),
    torch.group_norm: _Normalisation(normalisations.group_norm),
    F.instance_norm: _Normalisation(normalisations.instance_norm),
    F.rms_norm: _Normalisation(normalisations.rms_norm),
    torch.rms_norm: _Normalisation(normalisations.rms_norm),
}
