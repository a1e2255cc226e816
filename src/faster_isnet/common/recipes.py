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

import numpy as np
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


def recipe(value: Any, left_out: list[str] | None = None, name: str = "") -> Any:
    """Return a value as plain values: recorded objects by their class and arguments.

    Parameters
    ----------
    value
        Plain values, tensors, arrays and recorded objects.
    left_out
        Takes the names, as ``"criterion.classification.function"``, of arguments of recorded
        objects that are left out because they cannot be kept, and have a default. ``None`` leaves
        none out.
    name
        What the value is called in them.

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
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple | range):
        return [recipe(each, left_out, name) for each in value]
    if isinstance(value, Mapping):
        return {recipe(key): recipe(each, left_out, name) for key, each in value.items()}
    if isinstance(value, Recorded):
        return {CLASS: class_path(type(value)), ARGUMENTS: _arguments(value, left_out, name)}
    made = getattr(value, "__dict__", {}).get("_recipe")
    if made is not None:
        return made
    raise TypeError(f"{value!r} cannot be written down: it is of {type(value).__name__}")


def class_path(kind: type) -> str:
    """Return the name that a recipe has for a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _arguments(value: Recorded, left_out: list[str] | None, name: str) -> dict[str, Any]:
    required = [
        parameter.name
        for parameter in inspect.signature(type(value).__init__).parameters.values()
        if parameter.default is parameter.empty
    ]
    kept = {}
    for each, argument in value.recipe_arguments().items():
        path = f"{name}.{each}" if name else each
        try:
            kept[each] = recipe(argument, left_out, path)
        except TypeError:
            if left_out is None or each in required:
                raise
            left_out.append(path)
    return kept


def build(described: Any) -> Any:
    """Construct the object that a recipe describes.

    Nothing is imported for it from outside of this package: other classes must have been imported
    already, since a file must not decide which code runs. Nothing is constructed before all classes
    are known.

    Parameters
    ----------
    described
        What :func:`recipe` returned.

    Raises
    ------
    ValueError
        If a class is unknown, or it is no recipe.
    """
    _check_classes(described)
    return _build(described)


def _check_classes(described: Any) -> None:
    if isinstance(described, list):
        for each in described:
            _check_classes(each)
    elif isinstance(described, dict):
        if CLASS in described:
            _known(described[CLASS])
            if not isinstance(described.get(ARGUMENTS, {}), dict):
                raise ValueError(f"the arguments of {described[CLASS]!r} have no names")
        for each in described.values():
            _check_classes(each)


def _build(described: Any) -> Any:
    if isinstance(described, list):
        return [_build(each) for each in described]
    if not isinstance(described, dict):
        return described
    if CLASS not in described:
        return {key: _build(each) for key, each in described.items()}
    arguments = {name: _build(each) for name, each in described.get(ARGUMENTS, {}).items()}
    return _known(described[CLASS])(**arguments)


def _known(path: object) -> Callable[..., Any]:
    module, _, name = str(path).rpartition(".")
    if module.partition(".")[0] == _PACKAGE:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(f"{path!r} is not known here: {error}") from error
    # Not getattr, for which some modules import others.
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if isinstance(found, type) and issubclass(found, Recorded):
        return found
    if inspect.isfunction(found) and "makes_recorded" in found.__dict__:
        return found
    raise ValueError(
        f"{path!r} is not known here; import the module that defines it first, if you trust it"
    )
