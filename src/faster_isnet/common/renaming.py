"""Accept arguments of functions by the names that they had before 0.2, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function accept old names of its keyword arguments.

    Parameters
    ----------
    renamed
        The new name of each old one.

    Examples
    --------
    >>> @renamed_arguments(samples="resamples")
    ... def double(resamples):
    ...     return 2 * resamples
    >>> double(samples=4)  # and a DeprecationWarning
    8
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old]
                if new in kwargs:
                    raise TypeError(f"{function.__name__}: {old} is called {new} now; give one")
                warnings.warn(
                    f"{function.__name__}: {old} is called {new} now; the old name will go",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
