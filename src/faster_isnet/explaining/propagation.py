"""Relevance passes: from the quantity that is explained back to the image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from faster_isnet.common.checks import check_quantity
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32, autocasts
from faster_isnet.explaining.targets import Target, all_logits, build_quantity


@dataclass(frozen=True)
class Start:
    """Where a relevance pass starts: the quantity ``[B, K]``, and the relevance that goes in."""

    quantity: Tensor
    relevance: Tensor


def start(logits_and_values: tuple[Tensor, Tensor], target: Target, batch: int) -> Start:
    """Return where a relevance pass starts, given logits and what their relevance is."""
    logits, values = logits_and_values
    scalars = build_quantity(target)
    if scalars is all_logits and logits.shape in ((batch,), (batch, 1)):
        raise ValueError(
            "the logits (−z/2, z/2) of a single logit z sum to 0, so there is nothing to explain; "
            "give the model an output for each class, or explain something else (the variants "
            "'selective', 'stochastic' and 'original' do)"
        )
    device = logits.device.type
    with torch.autocast(device, enabled=False) if autocasts(device) else nullcontext():
        quantity = scalars(class_logits(at_least_float32(logits)))
    check_quantity(quantity, batch, target)
    if values is logits or not quantity.requires_grad:
        return Start(quantity, quantity)
    # The rule has the relevance of the last layer start as something else than its logits.
    (g,) = propagate(quantity, [logits], differentiable=True, keep=True)
    assert g is not None
    return Start(quantity, (g * values.unsqueeze(1)).reshape(*quantity.shape, -1).sum(2))


def propagate(
    quantity: Tensor, tensors: Sequence[Tensor], differentiable: bool, keep: bool
) -> list[Tensor | None]:
    """Return G ``[B, K, ...]`` of each tensor, all K in one pass; ``keep`` says: not the last."""
    batch, k = quantity.shape
    keep = keep or differentiable
    if not quantity.requires_grad:
        return [None] * len(tensors)
    if k == 1:
        gs = torch.autograd.grad(
            quantity.sum(),
            tensors,
            retain_graph=keep,
            create_graph=differentiable,
            allow_unused=True,
        )
        return [g if g is None else g.unsqueeze(1) for g in gs]
    one_each = torch.eye(k, dtype=quantity.dtype, device=quantity.device)
    gs = torch.autograd.grad(
        quantity,
        tensors,
        one_each.unsqueeze(1).expand(k, batch, k),
        retain_graph=keep,
        create_graph=differentiable,
        allow_unused=True,
        is_grads_batched=True,
    )
    return [g if g is None else g.transpose(0, 1) for g in gs]


def arrived(gs: Sequence[Tensor | None], names: Sequence[str]) -> list[Tensor]:
    """Return the G of each tensor, if all have one."""
    missing = sorted({name for g, name in zip(gs, names, strict=True) if g is None})
    if missing:
        raise no_relevance(missing)
    return [g for g in gs if g is not None]


def no_relevance(names: Sequence[str]) -> RuntimeError:
    """Return the error for images or layers that no relevance reaches."""
    return RuntimeError(
        f"no relevance reaches {names}: nothing that the model returns depends on it "
        "differentiably. Return logits and not what a sigmoid or softmax makes of them, and do "
        "not detach or use torch.no_grad() between the two"
    )
