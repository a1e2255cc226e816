"""Optimisers and learning rate schedules, by name, class or function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from faster_isnet.common.checks import check_choice

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
"""What an optimiser updates: parameters, or groups of them as ``torch.optim`` has them."""
OptimizerFactory = Callable[[Parameters], Optimizer]
"""Makes an optimiser of parameters: a class of ``torch.optim``, or a function."""
SchedulerFactory = Callable[[Optimizer], LRScheduler]
"""Makes a schedule of an optimiser: a class of ``torch.optim.lr_scheduler``, or a function."""

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["constant", "cosine", "one-cycle", "milestones"]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
LEARNING_RATES = {"sgd": 1e-2, "adam": 2e-3, "adamw": 2e-3}
"""The learning rate of an optimiser by name, unless another is given."""
CONSTANT, COSINE, ONE_CYCLE, MILESTONES = "constant", "cosine", "one-cycle", "milestones"
SCHEDULES = get_args(ScheduleName)
"""The schedules by name, see :func:`build_schedule`."""

EPOCH, STEP = "epoch", "step"
"""When a schedule is stepped."""

_WARM_UP_START = 1e-2  # of the learning rate
_ONE_CYCLE_RISE = 0.3  # of all steps: PyTorch's default
_MOMENTUM_CYCLE = 0.05  # to both sides: PyTorch's default for a momentum of 0.9


def build_schedule(
    optimizer: Optimizer,
    name: str,
    steps: int,
    steps_per_epoch: int,
    *,
    warmup_steps: int | None = None,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
) -> tuple[LRScheduler, str]:
    """Return a schedule by name, and when to step it: after each ``"epoch"`` or ``"step"``.

    A training that is resumed and made longer goes on along the schedule of the longer one.

    Parameters
    ----------
    optimizer
        With the largest learning rate.
    name
        ``"constant"``; ``"cosine"``, which falls to 0 along half a cosine (Loshchilov and Hutter,
        2017); ``"one-cycle"``, which rises and falls again (Smith and Topin, 2018; the momentum,
        or Adam's first beta, moves against it, 0.05 to both sides of what it is);
        ``"milestones"``, multiplied by ``factor`` after each of these epochs.
    steps
        All optimiser steps of the training.
    steps_per_epoch
        Optimiser steps of an epoch.
    warmup_steps
        For how many steps the learning rate rises linearly from 1 % first. For the one-cycle
        schedule that is the rise, by default 30 % of all steps; for the others 0 by default.
    milestones, factor
        Of ``"milestones"``.

    Raises
    ------
    ValueError
        If the name is unknown, or the warm-up is longer than the training.
    """
    check_choice("schedule", name, SCHEDULES)
    warmup = warmup_steps or 0
    if warmup >= steps:
        raise ValueError(
            f"the warm-up takes {warmup} steps, but the whole training has {steps}; shorten it or "
            "train longer"
        )
    if name == ONE_CYCLE:
        return _one_cycle(optimizer, steps, warmup_steps), STEP
    main: LRScheduler
    if name == MILESTONES and not warmup:
        return MultiStepLR(optimizer, list(milestones), factor), EPOCH
    if name == MILESTONES:
        main = MultiStepLR(optimizer, [m * steps_per_epoch - warmup for m in milestones], factor)
    elif name == COSINE:
        main = LambdaLR(optimizer, partial(_cosine, steps=steps - warmup))
    else:
        main = LambdaLR(optimizer, _constant)
    if not warmup:
        return main, STEP
    rising = LinearLR(optimizer, _WARM_UP_START, total_iters=warmup)
    return SequentialLR(optimizer, [rising, main], [warmup]), STEP


def build_optimizer(
    optimizer: str | OptimizerFactory, parameters: Parameters, options: dict[str, Any]
) -> Optimizer:
    """Return an optimiser of parameters.

    Parameters
    ----------
    optimizer
        A name of :data:`OPTIMIZERS`, or what makes one of parameters and options.
    parameters
        What it updates.
    options
        Such as ``lr``.

    Raises
    ------
    TypeError
        If what it makes is no optimiser, or it takes no such options.
    """
    make = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    made = make(parameters, **options)
    if not isinstance(made, Optimizer):
        raise TypeError(f"optimizer must make a torch.optim.Optimizer, got {type(made).__name__}")
    return made


def make_schedule(make: SchedulerFactory, optimizer: Optimizer) -> LRScheduler:
    """Return the schedule that a class or function makes of an optimiser.

    Raises
    ------
    TypeError
        If it makes something else.
    """
    made = make(optimizer)
    if not isinstance(made, LRScheduler | ReduceLROnPlateau):
        raise TypeError(
            "schedule must make a torch.optim.lr_scheduler.LRScheduler of an optimiser, got "
            f"{type(made).__name__}"
        )
    return made


def _one_cycle(optimizer: Optimizer, steps: int, warmup_steps: int | None) -> LRScheduler:
    highest = [group["lr"] for group in optimizer.param_groups]
    rise = _ONE_CYCLE_RISE
    if warmup_steps is not None and steps > 2:  # PyTorch needs a step of rise, and one of fall
        rise = (min(max(warmup_steps, 1), steps - 2) + 1) / steps
    momenta = [_momentum(group) for group in optimizer.param_groups]
    return _OneCycle(
        optimizer,
        highest,
        total_steps=steps,
        pct_start=rise,
        cycle_momentum=all(momenta),
        base_momentum=[max(momentum - _MOMENTUM_CYCLE, 0) for momentum in momenta],
        max_momentum=[min(momentum + _MOMENTUM_CYCLE, 0.99) for momentum in momenta],
    )


def _momentum(group: dict[str, Any]) -> float:
    """Return the momentum of a group of parameters, Adam's first beta; 0 if it has none."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0))


class _OneCycle(OneCycleLR):
    """PyTorch's, which keeps the length that it was made with when it loads a state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, but not the length of the cycle."""
        length = ("total_steps", "_schedule_phases")
        super().load_state_dict({k: v for k, v in state_dict.items() if k not in length})


def _cosine(step: int, steps: int) -> float:
    return (1 + math.cos(math.pi * min(step / steps, 1))) / 2


def _constant(step: int) -> float:
    return 1.0
