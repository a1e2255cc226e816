"""Read the settings of a study from YAML.

Options of ``faster-isnet fit`` are taken as they are, and checked where a run's configuration is
parsed; jsonargparse, which reads the options of other commands, would construct the classes that
they name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from faster_isnet.common.names import hint
from faster_isnet.study.settings import StudySettings

T = TypeVar("T")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Read ``1e-3`` as a number, as YAML 1.2 has it, and the options of other commands."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def settings_of(text: str) -> StudySettings:
    """Return the settings that a YAML text has.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a value is wrong; the message has its path.

    Examples
    --------
    >>> settings_of("methods: {plain: {method: standard}}").methods["plain"].method
    'standard'
    >>> settings_of("methods: {plain: {methd: standard}}")
    Traceback (most recent call last):
    ...
    ValueError: unknown key 'methd' in methods.plain; did you mean 'method'?
    """
    content = yaml.load(text, _Loader)  # a SafeLoader
    return _build(StudySettings, {} if content is None else content, "")


def _build(kind: type[T], content: Any, path: str) -> T:
    """Construct a dataclass from options by name."""
    where = f" in {path}" if path else ""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path or 'a study'} must hold options by name, got {content!r}")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    types = get_type_hints(kind)
    arguments = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise ValueError(f"unknown key {key!r}{where}{hint(name, known)}")
        default = known[name].default_factory
        if is_dataclass(types[name]) and default is not MISSING and isinstance(value, Mapping):
            value = {**vars(default()), **value}  # what is not given is the study's default
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
        return _build(kind, value, path)  # type: ignore[arg-type]
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
