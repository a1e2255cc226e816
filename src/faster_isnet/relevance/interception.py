"""What stands between a model and torch while the model is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

from faster_isnet.relevance.composites import Handler
from faster_isnet.relevance.functions import RelevancePass


class Interception(TorchFunctionMode):
    """Gives the functions that a model calls their rules, in this thread only.

    Interception, not surgery: the model keeps its modules, has no hooks of the engine, and is
    the model it was once the block ends.

    Parameters
    ----------
    handlers
        What takes the place of which function.
    relevance_pass
        The flag that the functions of this forward pass share.

    Examples
    --------
    >>> import torch
    >>> from faster_isnet.relevance.composites import flex
    >>> relevance_pass, x = RelevancePass(), torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> with Interception(flex(epsilon=1.0).table, relevance_pass):
    ...     y = torch.relu(x)
    >>> with relevance_pass.running():
    ...     (g,) = torch.autograd.grad(y.sum(), x)
    >>> g  # a / (a + ε), where the gradient has 1
    tensor([0.0000, 0.6667])
    """

    def __init__(
        self,
        handlers: Mapping[Callable[..., Any], Handler],
        relevance_pass: RelevancePass,
    ) -> None:
        super().__init__()
        self._handlers, self._relevance_pass = handlers, relevance_pass

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or what takes its place."""
        handler = self._handlers.get(func)
        if handler is None:
            return func(*args, **(kwargs or {}))
        return handler(self._relevance_pass, func, args, kwargs or {})
