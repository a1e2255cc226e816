"""Bring options and YAML keys into the one spelling that the parsers know: underscores.

The functions here take the parser's options as a table and know nothing of a parser, so that those
of LightningCLI and of the other commands share them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import yaml

from faster_isnet.common.names import hint

TRUTHS = ("true", "false", "yes", "no")
"""What may follow an option that is on or off; anything else is the next argument."""


class Kind(Enum):
    """What an option takes."""

    FLAG = "true or false, or nothing for true"
    LIST = "one or more values"
    MAPPING = "values by names of the user's own, which are never respelled"
    VALUE = "one value"
    OBJECT = "a class and its arguments"
    OTHER = "nothing, or a file of options"


class Option(NamedTuple):
    """What is known of an option: its kind, and whether the items of its list are texts."""

    kind: Kind
    texts: bool = False


def option_of(annotation: Any) -> Option:
    """Return the kind of an option from the annotation of its parameter.

    Examples
    --------
    >>> option_of(list[str] | None)
    Option(kind=<Kind.LIST: 'one or more values'>, texts=True)
    """
    if annotation is None:
        return Option(Kind.OTHER)
    is_union = get_origin(annotation) in (Union, UnionType)
    members = [each for each in get_args(annotation) if each is not NoneType]
    members = members if is_union else [annotation]
    origins = [get_origin(each) or each for each in members]
    if members == [bool]:
        return Option(Kind.FLAG)
    if any(_is_a(origin, Mapping) for origin in origins):
        return Option(Kind.MAPPING)
    if len(members) == 1 and _is_a(origins[0], Sequence) and not _is_a(origins[0], str):
        return Option(Kind.LIST, texts=_has_texts(members[0]))
    scalars = (bool, int, float, str, Path)
    return Option(Kind.VALUE if all(origin in scalars for origin in origins) else Kind.OBJECT)


def spell_arguments(
    arguments: Sequence[str], options: Mapping[str, Option], commands: Collection[str] = ()
) -> list[str]:
    """Return arguments as a parser takes them.

    ``--batch-size`` becomes ``--batch_size``, ``--quick`` becomes ``--quick=true``,
    ``--no-quick`` becomes ``--quick=false``, and ``--formats png npy`` becomes one list. What
    follows ``--`` or a subcommand stays as it is.

    Parameters
    ----------
    arguments
        Those of the command line.
    options
        The parser's options by their names, without ``--``.
    commands
        The parser's subcommands.

    Raises
    ------
    ValueError
        If there is no such option; the message names the nearest.

    Examples
    --------
    >>> spell_arguments(["--no-quick", "--out", "x"], {"quick": Option(Kind.FLAG), "out": Option(
    ...     Kind.VALUE)})
    ['--quick=false', '--out', 'x']
    """
    spelled: list[str] = []
    rest = list(arguments)
    while rest:
        if rest[0] == "--" or rest[0] in commands:
            return spelled + rest
        argument = rest.pop(0)
        if not argument.startswith("--"):
            spelled.append(argument)
            continue
        given, equals, value = argument[2:].partition("=")
        name, option, negated = _find(given, options)
        if negated and equals:
            raise ValueError(f"--{given} takes no value, got {value!r}; write --{name}={value}")
        if option.kind is Kind.FLAG and not equals:
            value = "false" if negated else _take_truth(rest)
        elif option.kind is Kind.LIST and not name.endswith("+"):
            value = _list([value] if equals else _take_values(rest), option.texts)
        elif not equals:
            spelled.append(f"--{name}")
            continue
        # An empty list is left for the parser to complain about.
        spelled.append(f"--{name}={value}" if value or equals else f"--{name}")
    return spelled


def spell_keys(content: str, keys: Mapping[str, Option], commands: Collection[str] = ()) -> str:
    """Return a YAML text with underscores in the keys that are options.

    Parameters
    ----------
    content
        The text; quotes and types of its values stay as they are. One that is no YAML mapping is
        returned unchanged, for the parser to complain about.
    keys
        The options by their keys, with dots where one is within another.
    commands
        The parser's subcommands, below which nothing is changed.

    Raises
    ------
    ValueError
        If a key is no option; the message names the nearest.

    Examples
    --------
    >>> spell_keys("batch-size: 8", {"batch_size": Option(Kind.VALUE)}).strip()
    'batch_size: 8'
    """
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return content
    if not isinstance(root, yaml.MappingNode):
        return content
    if not _respell_node(root, "", keys, commands):
        return content
    return str(yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True))


def _is_a(origin: Any, kind: type) -> bool:
    return isinstance(origin, type) and issubclass(origin, kind)


def _has_texts(annotation: Any) -> bool:
    return any(each in (str, Path) or _has_texts(each) for each in get_args(annotation))


def _underscores(name: str) -> str:
    return name.replace("-", "_")


def _find(given: str, options: Mapping[str, Option]) -> tuple[str, Option, bool]:
    """Return the name of an option, what it takes, and whether ``no`` is put before it."""
    known = {_underscores(name): name for name in options}
    bare, plus = given.removesuffix("+"), "+" if given.endswith("+") else ""
    plain = _underscores(bare)
    if plain in known:
        return known[plain] + plus, options[known[plain]], False
    group, dot, leaf = plain.rpartition(".")
    for negation, positive in ((plain, plain[3:]), (leaf, group + dot + leaf[3:])):
        name = known.get(positive, "") if negation.startswith("no_") else ""
        if name and options[name].kind is Kind.FLAG:
            return name, options[name], True
    for start, key in _starts(bare):
        name = known.get(_underscores(start), "")
        kind = options[name].kind if name else Kind.OTHER
        if kind in (Kind.MAPPING, Kind.OBJECT):
            key = key if kind is Kind.MAPPING else _underscores(key)
            return f"{name}.{key}{plus}", Option(Kind.VALUE), False
    raise ValueError(f"unknown option --{given}{hint(f'--{plain}', [f'--{n}' for n in options])}")


def _starts(name: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to divide a name at a dot, the longest start first."""
    parts = name.split(".")
    for number in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:number]), ".".join(parts[number:])


def _take_truth(rest: list[str]) -> str:
    return rest.pop(0) if rest and rest[0].lower() in TRUTHS else "true"


def _take_values(rest: list[str]) -> list[str]:
    values = []
    while rest and not rest[0].startswith("--"):
        values.append(rest.pop(0))
    return values


def _list(values: Sequence[str], texts: bool) -> str:
    """Return values as a YAML list; one that is a list already, or null, as it is."""
    if not values or (len(values) == 1 and (values[0][:1] == "[" or values[0] == "null")):
        return "".join(values)
    return "[" + ", ".join(json.dumps(value) if texts else value for value in values) + "]"


def _respell_node(
    node: yaml.MappingNode, prefix: str, keys: Mapping[str, Option], commands: Collection[str]
) -> bool:
    """Respell the keys of a mapping of options, and tell whether any has changed."""
    groups = {start for key in keys for start, _ in _starts(key)}
    known = {*keys, *groups}
    changed = False
    for key, value in node.value:
        if key.tag != "tag:yaml.org,2002:str":  # such as <<, which merges a mapping read elsewhere
            continue
        given = prefix + key.value
        if not prefix and (given in commands or given.startswith("$")):
            continue
        plain = _underscores(given.removesuffix("+"))
        if plain not in known and not _is_within(plain, keys):
            raise ValueError(f"unknown key {given!r}{hint(plain, keys)}")
        if plain != given.removesuffix("+") and (plain in known):
            key.value = plain.removeprefix(prefix) + ("+" if given.endswith("+") else "")
            changed = True
        if isinstance(value, yaml.MappingNode) and plain in groups and not _is_class(value):
            changed |= _respell_node(value, plain + ".", keys, commands)
        elif plain not in keys or keys[plain].kind is not Kind.MAPPING:
            changed |= _respell_objects(value)
    return changed


def _is_within(name: str, keys: Mapping[str, Option]) -> bool:
    """Return whether a key with dots leads into an object or a mapping."""
    inner = (Kind.MAPPING, Kind.OBJECT)
    return any(start in keys and keys[start].kind in inner for start, _ in _starts(name))


def _is_class(node: yaml.MappingNode) -> bool:
    return any(key.value == "class_path" for key, _ in node.value)


def _respell_objects(node: yaml.Node, are_arguments: bool = False) -> bool:
    """Respell the arguments of classes, which are parameters and so have no dashes."""
    if isinstance(node, yaml.SequenceNode):
        return sum(_respell_objects(each) for each in node.value) > 0  # all of them
    if not isinstance(node, yaml.MappingNode):
        return False
    changed = False
    for key, value in node.value:
        if are_arguments and "-" in key.value:
            key.value = _underscores(key.value)
            changed = True
        changed |= _respell_objects(value, key.value == "init_args")
    return changed
