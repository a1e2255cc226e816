"""What stands between a model and torch while the model is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch._C._autograd import _get_sequence_nr
from torch.overrides import TorchFunctionMode

from faster_isnet.relevance.composites import Handler
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.input_rule import InputRule

# They look at a tensor and not at its values: no relevance passes through them.
_PROPERTIES: Sequence[Any] = (Tensor.shape, Tensor.ndim, Tensor.dtype, Tensor.device)
LOOKS = frozenset([Tensor.dim, Tensor.size, Tensor.numel, *(p.__get__ for p in _PROPERTIES)])


class _Rules(TorchFunctionMode):
    """Gives functions their rules."""

    def __init__(
        self,
        handlers: Mapping[Callable[..., Any], Handler],
        relevance_pass: RelevancePass,
        input_rule: InputRule | None = None,
    ) -> None:
        super().__init__()
        self._handlers, self._relevance_pass = handlers, relevance_pass
        self._input_rule = input_rule
        joining = (f for f, handler in handlers.items() if getattr(handler, "joins_ways", False))
        self._lets_ways_wait = frozenset(joining)
        self._nodes: int | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or what takes its place."""
        kwargs = kwargs or {}
        if func in LOOKS:
            return func(*args, **kwargs)
        relevance_pass = self._relevance_pass
        ways = relevance_pass.ways
        if ways.waiting:
            self._notice_unseen()
        claimed = None
        if self._input_rule is not None:
            claimed = self._input_rule.claim(func, args, kwargs)
        if claimed is not None:
            with _Rules(self._handlers, relevance_pass):
                result = claimed()
        else:
            if ways.waiting and func not in self._lets_ways_wait:
                relevance_pass.settle((args, kwargs))
            handler = self._handlers.get(func)
            if handler is None:
                result = func(*args, **kwargs)
            else:
                result = handler(relevance_pass, func, args, kwargs)
        if ways.waiting:
            self._nodes = _get_sequence_nr()
        return result

    def _notice_unseen(self) -> None:
        """Notice that the model has called what no mode sees: a ``torch.autograd.Function``.

        The graph has got nodes since the last call, then.
        """
        if self._nodes != _get_sequence_nr():
            self._relevance_pass.ways.were_read_unseen()


class Interception(_Rules):
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
        functions that it calls have the rules that they have elsewhere.

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

    def __exit__(self, *exception: Any) -> None:
        """Leave what the model has returned ready for a relevance pass."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._notice_unseen()
        self._relevance_pass.finish()
