"""Show options in one layout for all commands, with the texts of docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from argparse import Action
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from typing import Any, get_type_hints

import docstring_parser
import yaml
from jsonargparse import DefaultHelpFormatter

from faster_isnet.commands.spelling import Kind, option_of

_MARKUP = (
    (re.compile(r":\w+:`~([^`]+)`"), lambda found: found[1].rpartition(".")[2]),
    (re.compile(r":\w+:`([^`]+)`"), lambda found: found[1]),
    (re.compile(r"``([^`]+)``"), lambda found: found[1]),
)
_NO_DEFAULT = re.compile(r" \(default: null\)|, default: null(?=\))")
_DEFAULT = re.compile(r"(?<=default: ).*(?=\)\Z)", re.DOTALL)
_APPENDING = re.compile(r", --\S+\+ .*")
_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")


def plain(text: str) -> str:
    """Return a docstring's text without its markup.

    Examples
    --------
    >>> plain("``None`` for all; see :class:`~faster_isnet.Explainer`.")
    'None for all; see Explainer.'
    """
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text


class HelpFormatter(DefaultHelpFormatter):
    """Formats an option as ``--name VALUE  text (type: …, default: …)``.

    Defaults are shown as YAML has them. One of ``null`` is not: the text tells what happens without
    a value. The usage names positional arguments alone, the options follow below it.
    """

    def _expand_help(self, action: Action) -> str:
        text = _CLASS.sub(r"\1", _NO_DEFAULT.sub("", plain(super()._expand_help(action))))
        return _DEFAULT.sub(_default_as_yaml, text)

    def _format_usage(
        self, usage: str | None, actions: Iterable[Action], groups: Any, prefix: str | None
    ) -> str:
        positional = [each for each in actions if not each.option_strings]
        text: str = super()._format_usage(usage, positional, [], prefix)
        if prefix == "":  # the beginning of the usages of a command's commands
            return text
        name = self._prog.replace(" [options]", "")
        return text.replace(self._prog, f"{name} [options]", 1)

    def _format_action_invocation(self, action: Action) -> str:
        return _APPENDING.sub("", super()._format_action_invocation(action))

    def _format_args(self, action: Action, default_metavar: str) -> str:
        kind = option_of(annotation_of(action)).kind
        if action.option_strings and action.nargs is None:
            if kind is Kind.FLAG:
                return "[true|false]"
            if kind is Kind.LIST:
                item = action.dest.rpartition(".")[2].upper()
                return f"{item} [{item} ...]"
        return str(super()._format_args(action, default_metavar))

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options, named by the first line of a docstring."""
        super().start_section(heading and plain(heading).rstrip("."))


def _default_as_yaml(found: re.Match[str]) -> str:
    try:
        value = ast.literal_eval(found[0])
    except (SyntaxError, ValueError):  # text without quotes
        return found[0]
    value = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def annotation_of(action: Action) -> Any:
    """Return the type of an option's value, ``None`` if it has no value or is a file of options."""
    return None if action.nargs == 0 else getattr(action, "_typehint", action.type)


def describe_options(
    actions: dict[str, Action], component: Callable[..., Any], prefix: str = ""
) -> None:
    """Give options the texts of a docstring, also where it describes several parameters at once.

    jsonargparse knows only parameters that stand alone, not ``input_low, input_high``.

    Parameters
    ----------
    actions
        The parser's options by their keys.
    component
        The class or function that the options are the parameters of.
    prefix
        What the keys begin with, with its dot.
    """
    for name, text in texts(component).items():
        action = actions.get(prefix + name)
        if action is not None and annotation_of(action) is not None:
            action.help = text
    of = inspect.getattr_static(component, "__init__") if isinstance(component, type) else component
    try:
        hints = get_type_hints(of)
    except NameError:  # of a library that imports its types for type checkers alone
        hints = {}
    for name, hint in hints.items():
        if is_dataclass(hint) and any(key.startswith(f"{prefix}{name}.") for key in actions):
            describe_options(actions, hint, f"{prefix}{name}.")  # type: ignore[arg-type]


def texts(component: Callable[..., Any]) -> dict[str, str]:
    """Return what the docstring of a class or function has on each of its parameters."""
    found: dict[str, str] = {}
    for parameter in docstring_parser.parse(component.__doc__ or "").params:
        for name in parameter.arg_name.split(", "):
            found.setdefault(name, parameter.description or "")  # attributes come later
    return found


def title(component: Callable[..., Any]) -> str:
    """Return the first sentence of a docstring."""
    return docstring_parser.parse(component.__doc__ or "").short_description or ""
