"""Activation checkpointing in a model that is explained.

``torch.utils.checkpoint`` keeps no more of a segment of the model than its inputs, and runs the
segment again in the backward. The interception has ended by then; here it begins again, for as
long as the segment runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch.utils.checkpoint as torch_checkpoint
from torch import Tensor
from torch.overrides import TorchFunctionMode

from faster_isnet.common.torch_private import (
    checkpoint_generator,
    checkpoint_generator_missing,
    outside_of_vmap,
)
from faster_isnet.relevance.call_arguments import tensors_in


@contextmanager
def intercepting(
    mode: TorchFunctionMode,
    has_metadata: Callable[[Tensor], bool] = lambda tensor: False,
    reset: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Run a model under ``mode`` inside the block, and what it checkpoints again under it.

    A checkpoint with ``use_reentrant=True`` becomes one with ``False``: the other kind refuses
    ``torch.autograd.grad``, and has no double backward.

    Parameters
    ----------
    mode
        The engine's.
    has_metadata
        Whether a rule has metadata of a tensor. A segment that reads such a tensor is not
        checkpointed: what runs again reads another one, which has none.
    reset
        Called where a segment begins or ends, and at the end: what ran outside of a segment must
        not change what the segment does, since it will not run again with it, nor the other way
        round.

    Examples
    --------
    >>> import torch
    >>> from faster_isnet.relevance import Interception, RelevancePass, flex
    >>> relevance_pass, x = RelevancePass(), torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> with intercepting(Interception(flex(epsilon=1.0).table, relevance_pass)):
    ...     y = torch_checkpoint.checkpoint(torch.relu, x, use_reentrant=False)
    >>> with relevance_pass.running():
    ...     (g,) = torch.autograd.grad(y.sum(), x)
    >>> g  # a / (a + ε), where the gradient has 1
    tensor([0.0000, 0.6667])
    """
    with ExitStack() as stack:
        stack.enter_context(_REPLACEMENT)
        engine = _Engine(mode, has_metadata, reset)
        stack.callback(_current_engine.reset, _current_engine.set(engine))
        stack.callback(reset)
        stack.enter_context(mode)
        yield


@dataclass(frozen=True)
class _Engine:
    """What the model of this thread runs under."""

    mode: TorchFunctionMode
    has_metadata: Callable[[Tensor], bool]
    reset: Callable[[], None]

    def reads_metadata(self, arguments: Any) -> bool:
        return any(map(self.has_metadata, tensors_in(arguments)))

    def again(self, segment: Callable[..., Any]) -> Callable[..., None]:
        """Return ``segment`` as it shall run in a backward, in whatever thread that is."""

        def run(*args: Any, **kwargs: Any) -> None:
            # What runs again is the same for all heatmaps of a batched backward.
            with outside_of_vmap(), intercepting(self.mode, self.has_metadata, self.reset):
                _output = segment(*args, **kwargs)  # held, as it was when the segment ran first
                self.reset()

        return run


_current_engine: ContextVar[_Engine | None] = ContextVar("engine", default=None)


def _non_reentrant(
    segment: Callable[..., Any], *args: Any, **kwargs: Any
) -> Generator[None, None, None]:
    """Do what is to be done before and after a segment with ``use_reentrant=False``."""
    engine = _current_engine.get()
    if engine is not None:
        if engine.reads_metadata((args, kwargs)):
            yield  # nothing before, nothing after: it is not checkpointed
            return
        # Torch calls what it is given here when it runs the segment again, and then only.
        segment = engine.again(segment)
        engine.reset()
    for _ in _REPLACEMENT.torchs[str(_NON_REENTRANT)](segment, *args, **kwargs):
        yield
        if engine is not None:
            engine.reset()  # what this keeps for the backward is the segment's still


class _Reentrant(torch_checkpoint.CheckpointFunction):
    """Torch's function for ``use_reentrant=True``, which in a model that is explained is not."""

    @classmethod
    def apply(cls, segment: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        if _current_engine.get() is None:
            return _REPLACEMENT.torchs[_REENTRANT].apply(segment, preserve_rng_state, *args)
        return torch_checkpoint.checkpoint(
            segment, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state
        )


def _refuse(*args: Any, **kwargs: Any) -> Any:
    """Checkpoint nothing: what runs again could not be intercepted."""
    if _current_engine.get() is not None:
        raise checkpoint_generator_missing()
    return _REPLACEMENT.torchs[_CHECKPOINT](*args, **kwargs)


class _Replacement:
    """Replaces functions of torch while any thread is in the block.

    Threads that explain nothing are sent on to torch's own.
    """

    def __init__(self, replacements: dict[str, Any]) -> None:
        self._replacements = replacements
        self._lock, self._blocks = threading.Lock(), 0
        self.torchs = {name: getattr(torch_checkpoint, name) for name in replacements}

    def __enter__(self) -> None:
        with self._lock:
            if not self._blocks:
                self._set(self._replacements)
            self._blocks += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                self._set(self.torchs)

    def _set(self, functions: dict[str, Any]) -> None:
        for name, function in functions.items():
            setattr(torch_checkpoint, name, function)


# What torch.utils.checkpoint.checkpoint calls. Models hold references to that function itself, so
# it is replaced only where there is nothing better.
_REENTRANT, _CHECKPOINT = "CheckpointFunction", "checkpoint"
_NON_REENTRANT = checkpoint_generator()
_REPLACEMENT = _Replacement(
    {_REENTRANT: _Reentrant}
    | ({_NON_REENTRANT: _non_reentrant} if _NON_REENTRANT else {_CHECKPOINT: _refuse})
)
