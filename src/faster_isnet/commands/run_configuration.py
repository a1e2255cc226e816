"""Read the arguments and the configuration of a run, in today's names and those of version 0.1."""

from __future__ import annotations

import logging
import re
from argparse import SUPPRESS, Action
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from faster_isnet.commands.arguments import CommandParser
from faster_isnet.commands.configuration_files import check_configuration, configuration_files
from faster_isnet.commands.foreign_classes import PARTS
from faster_isnet.commands.run_folder import LAST
from faster_isnet.common.recipes import ARGUMENTS, CLASS
from faster_isnet.methods import method_names
from faster_isnet.training.options_of_0_1 import NEW_NAMES, split_model_options

log = logging.getLogger(__name__)

SHORT = {
    "--skip-unreadable": "--data.skip_unreadable=true",
    "--allow-duplicates": "--data.allow_duplicates=true",
}
"""What messages advise, as the parser has it."""
ISNET = "faster_isnet.methods.isnet.method.ISNetMethod"
_METHOD_OPTIONS = ("--method", "--method.class_path", "--method.help")


HELP_ALL = "--help_all"
_OFTEN_NEEDED = {
    "trainer": (
        "accelerator",
        "accumulate_grad_batches",
        "callbacks",
        "devices",
        "enable_progress_bar",
        "fast_dev_run",
        "max_epochs",
        "precision",
        "strategy",
    ),
    "checkpoint": ("mode", "monitor", "save_top_k"),
}
_LINKED = ("model.class_names", "model.image_shape", "model.task", "model.method")  # to the data
_KNOWN_SUBCLASSES = re.compile(r",\s+known\s+subclasses:\s[^)]*")


class RunParser(CommandParser, LightningArgumentParser):
    """Parse one dialect, methods by name, and the options of version 0.1."""

    def format_help(self, *args: Any, **options: Any) -> str:
        """Return the help without what is seldom needed of Lightning's options."""
        hidden = {each: each.help for each in self._actions if _is_seldom_needed(each)}
        try:
            for each in hidden:
                each.help = SUPPRESS
            text: str = super().format_help(*args, **options)
        finally:
            for each, its_help in hidden.items():
                each.help = its_help
        text = _KNOWN_SUBCLASSES.sub("", text)
        return f"{text}\n{HELP_ALL} lists those of Lightning that are seldom needed, too.\n"

    def format_whole_help(self) -> str:
        """Return the help of all options."""
        text: str = super().format_help()
        return text

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a configuration, the text of a YAML file."""
        config = yaml.safe_load(content)
        if isinstance(config, dict):
            content = yaml.safe_dump(current_config(config), sort_keys=False)
        return super().parse_string(content, *args, **kwargs)


class HelpAll(Action):
    """Prints the help of all options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"nargs": 0, "dest": SUPPRESS, "default": SUPPRESS})

    def __call__(self, parser: Any, *_: Any) -> None:
        """Print it, and exit."""
        print(parser.format_whole_help())
        parser.exit()


def _is_seldom_needed(action: Action) -> bool:
    """Tell whether the short help leaves an option out."""
    if action.dest in _LINKED:
        return True
    part, _, name = action.dest.partition(".")
    return part in _OFTEN_NEEDED and name.removesuffix(".help") not in ("", *_OFTEN_NEEDED[part])


def current_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with methods by their class paths, and today's names of options."""
    config = dict(config)
    for part in PARTS:
        value = config.get(part)
        if value is not None and not isinstance(value, dict | str):
            raise ValueError(f"{part} in the configuration must hold options by name, got {value}")
    if config.get("ckpt_path") == LAST:  # of runs before 0.2 that were continued
        log.warning(
            "ckpt_path: last in the configuration is ignored, as it says how a run was continued; "
            "to use the last epoch, give --ckpt_path last"
        )
        del config["ckpt_path"]
    if isinstance(options := config.get("model"), dict):
        config["model"], of_isnet = split_model_options(options)
        if of_isnet:
            config.setdefault("method", {"class_path": ISNET, "init_args": of_isnet})
    method = config.get("method")
    if isinstance(method, str):
        config["method"] = _method_path(method)
    elif isinstance(method, dict):
        if not method.keys() & {"class_path", "init_args"}:
            method = {"init_args": method}
        path = _method_path(method.get("class_path", ISNET))
        config["method"] = {**method, "class_path": path}
    return config


def current_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments with methods by their class paths, and today's names of options.

    Examples
    --------
    >>> current_arguments(["fit", "--model.variant", "dual"])
    ['fit', '--method.variant', 'dual']
    """
    before = ("", *arguments)
    return [_current(*pair) for pair in zip(before, arguments, strict=False)]


def names_a_data_class(arguments: Sequence[str]) -> bool:
    """Tell whether arguments, or configuration files among them, name a class of data.

    Parameters
    ----------
    arguments
        Of the command, without its name.

    Examples
    --------
    >>> names_a_data_class(["--data.class_path", "BiasedDigitsData"])
    True
    >>> names_a_data_class(["--data.source", "images"])
    False
    """
    if any(argument.partition("=")[0] == f"--data.{CLASS}" for argument in arguments):
        return True
    for path in configuration_files(arguments):
        if path.is_file():
            check_configuration(path)
            data = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("data")
            if isinstance(data, dict) and CLASS in data:
                return True
    return False


def data_options(options: Namespace) -> Namespace:
    """Return the options of a run's data, of a class by name or not."""
    data: Namespace = options.data
    return data[ARGUMENTS] if CLASS in data else data


def _current(before: str, argument: str) -> str:
    """Return an argument, which follows the one ``before``, as it is spelt today."""
    if before in _METHOD_OPTIONS:
        return _method_path(argument)
    name, equals, value = argument.partition("=")
    if equals and name in _METHOD_OPTIONS:
        return f"{name}={_method_path(value)}"
    new = NEW_NAMES.get(name.removeprefix("--").replace("-", "_"))
    if new is not None and name.startswith("--"):
        log.warning("%s is called --%s now", name, new)
        return f"--{new}{equals}{value}"
    return SHORT.get(argument, argument)


def _method_path(name: str) -> str:
    name = name.removeprefix("class_path=")
    kind = method_names().get(name)
    return name if kind is None else f"{kind.__module__}.{kind.__qualname__}"
