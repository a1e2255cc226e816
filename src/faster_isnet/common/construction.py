"""Construct typed objects from what YAML and JSON hold: texts, numbers, lists, options by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from faster_isnet.common.names import hint

T = TypeVar("T")


def construct(kind: type[T], content: Any, path: str = "", what: str = "it") -> T:
    """Construct a dataclass, and those within it, from options by name.

    Parameters
    ----------
    kind
        The dataclass. Its fields are of dataclasses, ``dict``, ``list``, ``bool``, ``float``,
        ``int``, ``str`` and unions of these; ``Any`` is taken as it is.
    content
        What YAML or JSON hold: options by name. Dashes in names stand for underscores.
    path
        Where in the file the content is, for messages.
    what
        What the file is of, for messages.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a value is wrong; the message has its path.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Size:
    ...     height: int
    >>> construct(Size, {"height": "8"})
    Traceback (most recent call last):
    ...
    ValueError: height must be a whole number, got '8'
    """
    where = f" in {path}" if path else ""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path or what} must hold options by name, got {content!r}")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    types = get_type_hints(kind)
    arguments = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise ValueError(f"unknown key {key!r}{where}{hint(name, known)}")
        default = known[name].default_factory
        if is_dataclass(types[name]) and default is not MISSING and isinstance(value, Mapping):
            value = {**vars(default()), **value}  # what is not given is the default
        arguments[name] = _value(types[name], value, f"{path}.{name}" if path else name)
    for name, each in known.items():
        required = each.default is MISSING and each.default_factory is MISSING
        if required and name not in arguments:
            raise ValueError(f"{name!r} is missing{where}; give it")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from error


def _value(kind: Any, value: Any, path: str) -> Any:
    """Return a value of a type, constructed or checked."""
    if kind is Any:
        return value
    if get_origin(kind) in (Union, UnionType):
        return _value(_member(kind, value), value, path)
    if is_dataclass(kind):
        return construct(kind, value, path)  # type: ignore[arg-type]
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is dict and isinstance(value, dict):
        return {
            str(name): _value(arguments[1], each, f"{path}.{name}") for name, each in value.items()
        }
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], each, path) for each in value]
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise ValueError(f"{path} must be {_NAMES[origin]}, got {value!r}")
    return value


_NAMES = {
    bool: "true or false",
    dict: "options by name",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "a text",
    NoneType: "null",
}


def _member(union: Any, value: Any) -> Any:
    """Return the member of a union that a value is of, else the first."""
    members = get_args(union)
    for member in members:
        kind = get_origin(member) or member
        if isinstance(value, dict if is_dataclass(kind) else kind):
            return member
    return members[0]
