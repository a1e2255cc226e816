"""The only module that uses private names of torch.

Each is looked up when it is needed, never at import: ``import faster_isnet`` works without any of
them. A function here either has a fallback that gives the same result, or raises an error that
names what is missing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from typing import Any

import torch
import torch.utils.checkpoint as torch_checkpoint
from torch import Tensor, nn
from torch.autograd import grad_mode

_version = attrgetter("_version")


def versions(tensors: Iterable[Tensor]) -> list[int]:
    """Return how often each tensor has been written to; tensors of inference mode count as -1.

    Raises
    ------
    RuntimeError
        If torch has no ``Tensor._version``: nothing else tells of changes in place.
    """
    tensors = tuple(tensors)
    try:
        return list(map(_version, tensors))
    except AttributeError as error:
        raise _missing("Tensor._version", "to explain a model") from error
    except RuntimeError:  # tensors of inference mode do not count
        return [-1 if tensor.is_inference() else _version(tensor) for tensor in tensors]


def version(tensor: Tensor) -> int:
    """Return how often a tensor has been written to; see :func:`versions`."""
    try:
        return _version(tensor)  # type: ignore[no-any-return]
    except (AttributeError, RuntimeError):
        return versions((tensor,))[0]


def is_view(tensor: Tensor) -> bool:
    """Return whether a tensor is a view of another one; True if torch does not tell.

    Whoever asks copies a view, so the answer True costs time only.
    """
    ask = getattr(tensor, "_is_view", None)
    return True if ask is None else bool(ask())


def can_keep_version() -> bool:
    """Return whether :func:`keep_version` works."""
    return hasattr(grad_mode, "_unsafe_preserve_version_counter")


def keep_version(tensor: Tensor) -> AbstractContextManager[Any]:
    """Keep a tensor's version although its history changes inside the block.

    Raises
    ------
    RuntimeError
        If torch has no ``_unsafe_preserve_version_counter``; see :func:`can_keep_version`.
    """
    if not can_keep_version():
        raise _missing("_unsafe_preserve_version_counter", "to change a tensor's history later")
    return grad_mode._unsafe_preserve_version_counter(tensor)


@contextmanager
def outside_of_vmap() -> Iterator[None]:
    """Leave the vmap that a backward of several gradients is; vmap refuses random numbers.

    Raises
    ------
    RuntimeError
        If torch has no names for it and vmap refuses what is run inside the block.
    """
    enter = getattr(torch._C, "_vmapmode_increment_nesting", None)
    leave = getattr(torch._C, "_vmapmode_decrement_nesting", None)
    if enter is None or leave is None:
        try:
            yield
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            name = "torch._C._vmapmode_increment_nesting and _vmapmode_decrement_nesting"
            purpose = "to run a checkpointed segment that draws random numbers for several heatmaps"
            raise _missing(name, purpose) from error
        return
    levels = enter()  # the number of levels, this one included
    for _ in range(levels):
        leave()
    try:
        yield
    finally:
        for _ in range(levels - 1):
            enter()


_CHECKPOINT_GENERATORS = (
    "_checkpoint_without_reentrant_generator_impl",  # PyTorch 2.14
    "_checkpoint_without_reentrant_generator",
)


def checkpoint_generator() -> str | None:
    """Return the name of the generator that runs a checkpoint with ``use_reentrant=False``.

    None if torch has none that is known; see :func:`checkpoint_generator_missing`.
    """
    for name in _CHECKPOINT_GENERATORS:
        if inspect.isgeneratorfunction(vars(torch_checkpoint).get(name)):
            return name
    return None


def checkpoint_generator_missing() -> RuntimeError:
    """Return the error for a segment whose second run cannot be intercepted."""
    return _missing(
        f"torch.utils.checkpoint.{_CHECKPOINT_GENERATORS[0]}",
        "to explain a model that uses activation checkpointing",
    )


def with_own_iteration(loader: Any) -> Any:
    """Return a loader of the same data that can be iterated over while ``loader`` is.

    A ``DataLoader`` with persistent workers has one iteration, which all share. Other loaders are
    returned as they are.
    """
    if getattr(loader, "persistent_workers", False) and hasattr(loader, "_iterator"):
        loader = copy.copy(loader)
        loader._iterator = None
    return loader


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``module.compile()`` was called; False if torch does not tell."""
    return getattr(module, "_compiled_call_impl", None) is not None


def _missing(name: str, purpose: str) -> RuntimeError:
    return RuntimeError(
        f"torch {torch.__version__} has no {name}, which is needed {purpose}; "
        "install a version of torch that faster-isnet was tested with"
    )
