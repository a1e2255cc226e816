"""Run a model in evaluation mode, and leave it in the mode that it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Have a model in evaluation mode inside the block; afterwards each module is in its own mode.

    Batch norms leave their statistics alone, dropout does nothing.

    Examples
    --------
    >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    >>> with eval_mode(model):
    ...     [module.training for module in model]
    [False, False]
    >>> [module.training for module in model]
    [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train()  # clears what some networks keep of their weights while they are evaluated
        for module, training in modes:
            module.training = training
