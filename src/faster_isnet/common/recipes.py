"""Describe objects by the arguments that they were constructed with, and construct them again.

A recipe is made of plain values, so a checkpoint can hold it and ``torch.load`` reads it with
``weights_only=True``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from torch import Tensor
from typing_extensions import Self

T = TypeVar("T")

CLASS, ARGUMENTS = "class_path", "init_args"
_PACKAGE = __name__.partition(".")[0]


class Recorded:
    """A class whose objects keep the arguments that they were constructed with."""

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments; ``__init__`` gets them as well."""
        self = super().__new__(cls)
        self.__dict__["_given"] = args, kwargs  # a torch module takes no attributes yet
        return self

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments by name; a class may leave some out that no file should keep."""
        args, kwargs = self._given
        signature = inspect.signature(type(self).__init__)
        bound = signature.bind(self, *args, **kwargs).arguments
        bound.pop(next(iter(signature.parameters)))
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                bound.update(bound.pop(name, {}))
        return bound


def record(made: T, function: Callable[..., T], **arguments: Any) -> T:
    """Keep with an object which function of this package made it, and return it.

    Parameters
    ----------
    made
        What ``function(**arguments)`` would return again.
    function
        A function that :func:`build` may call.
    arguments
        Plain values.
    """
    path = f"{function.__module__}.{function.__qualname__}"
    made.__dict__["_recipe"] = {CLASS: path, ARGUMENTS: arguments}
    function.__dict__["makes_recorded"] = True
    return made


def recipe(value: Any) -> Any:
    """Return a value as plain values: recorded objects by their class and arguments.

    Raises
    ------
    TypeError
        If it holds anything else, such as a function.

    Examples
    --------
    >>> class Pen(Recorded):
    ...     def __init__(self, colour="red", *, width=1): ...
    >>> recipe([Pen("blue"), 3])[0]["init_args"]
    {'colour': 'blue'}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [recipe(each) for each in value]
    if isinstance(value, Mapping):
        return {recipe(key): recipe(each) for key, each in value.items()}
    if isinstance(value, Recorded):
        kind = type(value)
        arguments = {name: recipe(each) for name, each in value.recipe_arguments().items()}
        return {CLASS: f"{kind.__module__}.{kind.__qualname__}", ARGUMENTS: arguments}
    made = getattr(value, "__dict__", {}).get("_recipe")
    if made is not None:
        return made
    raise TypeError(f"{value!r} cannot be written down: it is of {type(value).__name__}")


def build(described: Any) -> Any:
    """Construct the object that a recipe describes.

    Nothing is imported for it from outside of this package: other classes must have been imported
    already, since a file must not decide which code runs.

    Parameters
    ----------
    described
        What :func:`recipe` returned.

    Raises
    ------
    ValueError
        If its class is unknown.
    """
    if isinstance(described, list):
        return [build(each) for each in described]
    if not isinstance(described, dict):
        return described
    if CLASS not in described:
        return {key: build(each) for key, each in described.items()}
    arguments = {name: build(each) for name, each in described.get(ARGUMENTS, {}).items()}
    return _known(described[CLASS])(**arguments)


def _known(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] == _PACKAGE:
        import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and issubclass(found, Recorded):
        return found
    if inspect.isfunction(found) and "makes_recorded" in found.__dict__:
        return found
    raise ValueError(
        f"{path!r} is not known here; import the module that defines it first, if you trust it"
    )
