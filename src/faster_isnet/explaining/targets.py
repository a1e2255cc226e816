"""Compute the quantities to explain: scalars of the logits, one per heatmap (method §3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.relevance import contrast

Quantity = Callable[[Tensor], Tensor]
"""Maps logits ``[B, C]`` to the explained scalars ``[B, K]``, differentiably."""

Target = None | int | Tensor | str | Quantity | Sequence[int] | tuple[Tensor] | np.ndarray
"""Specifications of a quantity, see :func:`build_quantity`."""


def highest_logit(logits: Tensor) -> Tensor:
    """Return the logit of the predicted class, ``[B, 1]``."""
    return logits.amax(dim=1, keepdim=True)


def log_odds(logits: Tensor, index: Tensor) -> Tensor:
    """Return log p_c/(1 − p_c), ``[B, 1]``, of the class c of each sample.

    Parameters
    ----------
    logits
        ``[B, C]``, C ≥ 2.
    index
        c of each sample, ``[B, 1]``.

    Examples
    --------
    >>> log_odds(torch.tensor([[3.0, 1.0]]), torch.tensor([[0]]))
    tensor([[2.]])
    """
    above = -contrast(logits, index)  # y_c' − y_c
    highest = above.detach().amax(1, keepdim=True)  # without it a large sum rounds the gradient
    return -((above - highest).logsumexp(1, keepdim=True) + highest)


def highest_log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of the predicted class against all others, ``[B, 1]``.

    log p/(1 − p) = y_c − log Σ_{c' ≠ c} exp y_c'. Unlike a logit, it is invariant
    to a shift of all logits, which cross-entropy does not determine.
    """
    return log_odds(logits, logits.argmax(dim=1, keepdim=True))


def all_classes(logits: Tensor) -> Tensor:
    """Return every logit as a separate quantity, ``[B, C]``: the original ISNet's C heatmaps."""
    return logits


def all_logits(logits: Tensor) -> Tensor:
    """Return the sum of the logits, ``[B, 1]``: one heatmap for all, as in the dual ISNet."""
    return logits.sum(dim=1, keepdim=True)


def all_log_probabilities(logits: Tensor) -> Tensor:
    """Return Σ_c log p_c, ``[B, 1]``, p = softmax(logits): the quantity of softmax Grad × Input."""
    return logits.log_softmax(dim=1).sum(dim=1, keepdim=True)


def random_logit(logits: Tensor) -> Tensor:
    """Sample the stochastic ISNet's logit, ``[B, 1]``, with torch's global generator.

    For each sample, it is the highest logit with probability 1/2, else one of the others, sampled
    uniformly.
    """
    batch, classes = logits.shape
    device = logits.device
    other = torch.randint(1, classes, (batch,), device=device)
    step = torch.where(torch.rand(batch, device=device) < 0.5, 0, other)
    drawn = (logits.argmax(dim=1) + step) % classes
    return logits.gather(1, drawn[:, None])


def lowest_eta(logits: Tensor, delta: float = 1e-2) -> Tensor:
    """Return η of the lowest class, ``[B, 1]``: what the selective ISNet explains.

    η_c = log(p_c + δ) − log(1 − p_c + δ), p = softmax(logits), for c = argmin logits (Bassi et
    al., IEEE Access 12, 2024). η increases only if all other logits decrease, so one heatmap
    depends on all classes.

    Parameters
    ----------
    logits
        ``[B, C]``, C ≥ 2.
    delta
        δ ≥ 0: bounds η and its gradient as a probability approaches 0.

    Raises
    ------
    ValueError
        If ``delta`` is negative or not finite.

    Examples
    --------
    >>> lowest_eta(torch.tensor([[2.0, 2.0]]))  # p = 1/2
    tensor([[0.]])
    """
    check_range("delta", delta, 0)
    odds = log_odds(logits, logits.argmin(dim=1, keepdim=True))
    if delta == 0:
        return odds
    # log(p + δ) = log δ + log(1 + p/δ). Not torch.logaddexp, whose second derivative is NaN from a
    # difference of 89 on in float32.
    log_delta = math.log(delta)
    log_p, log_rest = F.logsigmoid(odds), F.logsigmoid(-odds)
    return F.logsigmoid(log_delta - log_rest) - F.logsigmoid(log_delta - log_p)


QUANTITIES: dict[str, Quantity] = {
    "all-classes": all_classes,
    "all-log-probabilities": all_log_probabilities,
    "all-logits": all_logits,
    "highest-log-odds": highest_log_odds,
    "highest-logit": highest_logit,
    "lowest-eta": lowest_eta,
    "random-logit": random_logit,
}


def build_quantity(target: Target) -> Quantity:
    """Build the quantity that a target specifies.

    Parameters
    ----------
    target
        ``None`` for the highest logit; one class for all samples; an integer tensor, NumPy array or
        sequence ``[B]`` with a class for each sample, or a tuple of one of these, as captum passes
        them; a name in :data:`QUANTITIES`; or a function from logits ``[B, C]`` to scalars
        ``[B, K]``.

    Raises
    ------
    TypeError
        If the target has another type, or is a tensor that is not of integers.
    ValueError
        If the name is unknown; when called, if a class is out of range or the tensor's shape is
        not ``[B]``.
    """
    if (
        isinstance(target, tuple)
        and len(target) == 1
        and isinstance(target[0], (Tensor, np.ndarray))
    ):
        target = target[0]
    if target is None:
        return highest_logit
    if isinstance(target, str):
        return QUANTITIES[check_choice("target", target, QUANTITIES)]
    classes = (Tensor, np.ndarray, np.integer, int, list, tuple)
    if isinstance(target, classes) and not isinstance(target, bool):
        return _label(_as_tensor(target))
    if callable(target):
        return target
    raise TypeError(
        f"target must be None, a class index, an integer tensor [B], one of {sorted(QUANTITIES)} "
        f"or a function of the logits; got {type(target).__name__}: {target!r}"
    )


def without_classes(quantity: Quantity, ignored: Sequence[int]) -> Quantity:
    """Exclude classes from a quantity: return a quantity of the logits of the other classes.

    Raises
    ------
    ValueError
        When called, if a class is out of range, or fewer than two remain.

    Examples
    --------
    >>> without_classes(all_logits, [1])(torch.tensor([[1.0, 10.0, 100.0]]))
    tensor([[101.]])
    """

    def of_the_others(logits: Tensor) -> Tensor:
        classes = logits.shape[1]
        if wrong := [c for c in ignored if not 0 <= c < classes]:
            raise ValueError(f"ignored classes must be in 0..{classes - 1}, got {wrong}")
        kept = [c for c in range(classes) if c not in ignored]
        if len(kept) < 2:
            raise ValueError(
                f"at least two of the {classes} classes must be left, got ignored classes "
                f"{sorted(ignored)}; name fewer"
            )
        return quantity(logits[:, kept])

    return of_the_others


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _as_tensor(target: Any) -> Tensor:
    try:
        return target if isinstance(target, Tensor) else torch.as_tensor(np.asarray(target))
    except (TypeError, ValueError) as error:
        raise TypeError(f"target must hold class indices, got {target!r}") from error


def _label(target: Tensor) -> Quantity:
    if target.dtype not in _INTEGERS:
        raise TypeError(f"target must hold class indices (torch.int64), got dtype {target.dtype}")

    def logit_of_label(logits: Tensor) -> Tensor:
        batch, classes = logits.shape
        labels = target.expand(batch) if target.dim() == 0 else target
        if labels.shape != (batch,):
            raise ValueError(
                f"target must have one class a sample, shape [{batch}], got {list(labels.shape)} "
                "(for captum's metrics, which repeat samples: a tensor or a list, whose entries "
                "they repeat, too)"
            )
        if target.device.type == "meta" != logits.device.type:
            raise ValueError(
                "target is on the device meta, which has no values; give class indices"
            )
        wrong = (target < 0) | (target >= classes)
        outside: Any = [] if target.device.type == "meta" else target[wrong]
        if len(outside):
            raise ValueError(
                f"target {int(outside[0])} is out of range: the model has {classes} classes, "
                f"0 to {classes - 1}"
            )
        return logits.gather(1, labels.to(logits.device).long()[:, None])

    return logit_of_label
