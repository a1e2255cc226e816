"""The tensors among a function's arguments, which may lie in lists, tuples and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor


def leaves(arguments: Iterable[Any]) -> Iterator[Any]:
    """Yield all arguments that are no lists, tuples or dictionaries, and what is in those.

    Examples
    --------
    >>> list(leaves([1, (2, [3]), {"a": 4}]))
    [1, 2, 3, 4]
    """
    for argument in arguments:
        if isinstance(argument, (list, tuple)):
            yield from leaves(argument)
        elif isinstance(argument, dict):
            yield from leaves(argument.values())
        else:
            yield argument


def tensors_in(*arguments: Any) -> list[Tensor]:
    """Return the tensors among arguments."""
    return [leaf for leaf in leaves(arguments) if isinstance(leaf, Tensor)]


def with_leaves(arguments: Any, replace: Callable[[Any], Any]) -> Any:
    """Return arguments with ``replace(leaf)`` in the place of every leaf.

    Examples
    --------
    >>> with_leaves(([1, 2], {"a": 3}), lambda leaf: 2 * leaf)
    ([2, 4], {'a': 6})
    """
    if isinstance(arguments, dict):
        return {name: with_leaves(value, replace) for name, value in arguments.items()}
    if isinstance(arguments, (list, tuple)):
        replaced = [with_leaves(value, replace) for value in arguments]
        if hasattr(arguments, "_fields"):  # a named tuple
            return type(arguments)(*replaced)
        return type(arguments)(replaced)
    return replace(arguments)
