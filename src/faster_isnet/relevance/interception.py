"""The mode that stands between a model and torch while the model is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.graph_nodes import HANDLED, is_custom, is_engines
from faster_isnet.relevance.input_rule import InputRule
from faster_isnet.relevance.written_out import opened

# They read properties of a tensor and not its values: no relevance passes through them.
_PROPERTIES: Sequence[Any] = (Tensor.shape, Tensor.ndim, Tensor.dtype, Tensor.device)
PROPERTIES = frozenset([Tensor.dim, Tensor.size, Tensor.numel, *(p.__get__ for p in _PROPERTIES)])


Handler = Callable[..., Any]
"""``handler(relevance_pass, function, args, kwargs)`` computes what the function would."""


class ForwardPass:
    """What a composite does in one forward pass of a model.

    Parameters
    ----------
    handlers
        What takes the place of each function that the model calls.
    """

    def __init__(self, handlers: Mapping[Callable[..., Any], Handler]) -> None:
        self._table = handlers

    def handlers(self) -> Mapping[Callable[..., Any], Handler]:
        """Return what takes the place of each function that the model calls."""
        return self._table

    def quantity_handlers(self) -> Mapping[Callable[..., Any], Handler]:
        """Return what takes the place of functions of the logits, which are no layers."""
        return {}

    def has_metadata(self, tensor: Tensor) -> bool:
        """Return whether it knows something of a tensor that it would not know of a copy."""
        return False

    def start(self, logits: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return logits to read in a relevance pass, and what their relevance is if G is one."""
        return logits, logits


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
    input_rule
        The rule of what reads the image, if that has one of its own. It is asked first; the
        functions that its handlers call have the rules that they have elsewhere.

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
        input_rule: InputRule | None = None,
    ) -> None:
        super().__init__()
        self._handlers, self._relevance_pass = handlers, relevance_pass
        self._input_rule = input_rule

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or what takes its place."""
        kwargs = kwargs or {}
        if func in PROPERTIES:
            return func(*args, **kwargs)
        if (written_out := opened(func, args, kwargs)) is not None:
            with Interception(self._handlers, self._relevance_pass, self._input_rule):
                return written_out(*args, **kwargs)
        if self._input_rule is not None:
            handled = self._input_rule.handler(func, args, kwargs)
            if handled is not None:
                with Interception(self._handlers, self._relevance_pass):
                    return handled()
        handler = self._handlers.get(func)
        if not getattr(handler, "fuses", False):
            self._relevance_pass.flush((args, kwargs))
        if handler is None:
            return func(*args, **kwargs)
        result = handler(self._relevance_pass, func, args, kwargs)
        node: Any = result.grad_fn if isinstance(result, Tensor) else None
        if is_custom(node) and not is_engines(node):
            node.metadata[HANDLED] = True
        return result

    def __exit__(self, *exception: Any) -> None:
        """End the interception, and prepare what the model returned for a relevance pass.

        After an exception nothing is: torch ends a checkpointed segment that is run again with one,
        as soon as all that was saved is there, and takes no more nodes then.
        """
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._relevance_pass.reset(attach=exception[0] is None)
