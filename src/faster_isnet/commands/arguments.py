"""Parse the arguments of every command in the same way."""

from __future__ import annotations

import inspect
import sys
from argparse import Action
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from faster_isnet.commands.configuration_files import check_configuration, configuration_files
from faster_isnet.commands.help import HelpFormatter, annotation_of, describe_options, title
from faster_isnet.commands.spelling import option_of, spell_arguments, spell_keys
from faster_isnet.data import list_images


class CommandParser(ArgumentParser):
    """Parse one dialect of options and of YAML, with one layout of help.

    The name of an option is its YAML key, with underscores; dashes are accepted for them on the
    command line and in YAML. Options that are on or off need no value (``--quick``,
    ``--quick=false``, ``--no_quick``), and lists need no brackets (``--formats png npy``). An
    unknown option or key names the nearest.

    It works as a mixin, too: ``class RunParser(CommandParser, LightningArgumentParser)`` is the
    ``parser_class`` of a LightningCLI.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any
    ) -> Namespace:
        """Parse arguments in either spelling; see ``jsonargparse``."""
        given = sys.argv[1:] if args is None else args
        known = {
            string.removeprefix("--"): option_of(annotation_of(action))
            for action in self._actions
            for string in action.option_strings
            if string.startswith("--")
        }
        for path in configuration_files(given):
            if path.is_file():  # the parser tells that there is none
                check_configuration(path)
        try:
            spelled = spell_arguments(given, known, self._commands())
        except ValueError as error:
            self.error(str(error), error)
        options: Namespace = super().parse_args(spelled, *more, **kwargs)
        return options

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """Parse YAML with keys in either spelling; see ``jsonargparse``."""
        if not yaml.safe_load(content):
            content = "{}"
        keys = {key: option_of(annotation_of(each)) for key, each in self._by_key().items()}
        try:
            content = spell_keys(content, keys, self._commands())
        except ValueError as error:
            self.error(str(error), error)
        options: Namespace = super().parse_string(content, *args, **kwargs)
        return options

    def add_class_arguments(self, class_type: type, *args: Any, **kwargs: Any) -> list[str]:
        """Add the parameters of a class as options, with the texts of its docstring."""
        added: list[str] = super().add_class_arguments(class_type, *args, **kwargs)
        key = args[0] if args else kwargs.get("nested_key")
        describe_options(self._by_key(), class_type, f"{key}." if key else "")
        return added

    def add_parameters(
        self,
        component: Callable[..., Any],
        *,
        only: Collection[str] | None = None,
        skip: Collection[str] = (),
        types: Mapping[str, Any] = MappingProxyType({}),
        group: bool = True,
    ) -> None:
        """Add parameters of a class or function as options, not nested.

        Parameters
        ----------
        component
            Whose signature has the types and defaults, and whose docstring the texts.
        only
            Which parameters; by default all.
        skip
            Those that are no options: what the command passes itself.
        types
            What can be written of those whose annotation has types that cannot be, by their names.
        group
            Whether to show them under the first line of the docstring.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        known = inspect.signature(component).parameters
        if unknown := {*(only or ()), *skip, *types} - set(known):
            raise ValueError(f"{component.__qualname__} has no parameters {sorted(unknown)}")
        chosen = [name for name in known if name not in skip and (only is None or name in only)]
        target = self.add_argument_group(title(component)) if group else self
        for name in chosen:  # one by one, for their order
            if name in types:
                target.add_argument(f"--{name}", type=types[name], default=known[name].default)
            else:
                others: set[str | int] = {each for each in known if each != name}
                if isinstance(component, type):
                    target.add_class_arguments(component, as_group=False, skip=others)
                else:
                    target.add_function_arguments(component, as_group=False, skip=others)
        describe_options({name: self._by_key()[name] for name in chosen}, component)

    def _by_key(self) -> dict[str, Action]:
        return {each.dest: each for each in self._actions if each.dest != "help"}

    def _commands(self) -> Collection[str]:
        choices = (each.choices for each in self._actions if not each.option_strings)
        return [name for each in choices if isinstance(each, Mapping) for name in each]


def command_parser(name: str | None, description: str) -> CommandParser:
    """Return a command's parser, which reads ``--config`` and has no further options yet.

    Parameters
    ----------
    name
        The command's; ``None`` for one of a command's commands, which is named by that.
    description
        What it does, in a sentence.
    """
    prog = {} if name is None else {"prog": f"faster-isnet {name}"}
    parser = CommandParser(description=description, **prog)
    parser.add_argument("-c", "--config", action="config", help="a YAML file of these options")
    return parser


def parameters(component: Callable[..., Any], options: Namespace) -> dict[str, Any]:
    """Return those options that are parameters of a class or function, by their names."""
    return {
        name: options[name] for name in inspect.signature(component).parameters if name in options
    }


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are, and the images in folders.

    Raises
    ------
    ValueError
        If a folder has no images.
    """
    return [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
