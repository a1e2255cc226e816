"""Keep configuration files from having others' classes imported by commands that only evaluate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

OPTION = "--trust_config"
_KNOWN = (
    f"{__name__.partition('.')[0]}.",
    "lightning.pytorch.callbacks.",
    "torch.nn.",
    "torch.optim.",
)
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_LARGEST = 2**24  # bytes; no configuration is as large, but checkpoints are
# Options that are names of files, classes, layers or values, which nothing is imported for.
_TEXTS = {
    *("backbone", "class_names", "ckpt_path", "coco", "coco_categories", "coco_category"),
    *("calibration", "deep_supervision", "default_root_dir", "dirpath", "division", "fields"),
    *("filename", "masks", "monitor", "out", "root", "schedule_monitor", "source"),
    *("test_sources", "val_sources", "weights"),
}
PARTS = {"checkpoint", "data", "model", "trainer"}
"""Parts of a configuration that may be files of their own, but no classes."""


def check_own_classes(arguments: Sequence[str], command: str) -> None:
    """Check that the configuration files among a command's arguments name no class of others.

    What is written on the command line itself is the user's own word. A file may be anybody's, and
    importing a class runs its module's code; so it may name classes of this library alone, and the
    optimisers, losses and callbacks of those that it is built on.

    Parameters
    ----------
    arguments
        Of the command, of which the values that are YAML or JSON files are looked at.
    command
        Its name.

    Raises
    ------
    ValueError
        If a file names another class or function.
    """
    if any(_trusts(argument) for argument in arguments):
        return
    for argument in arguments:
        value = argument.partition("=")[2] if argument.startswith("-") else argument
        for file, option, path in _named_in(value, Path()):
            raise ValueError(
                f"{str(file)!r} names {path!r} ({option}), which is no part of this library; "
                f"{command} imports nothing that a file names, since that runs its code. If you "
                f"trust the file, give {OPTION}; else remove the line"
            )


def _trusts(argument: str) -> bool:
    name, _, value = argument.partition("=")
    return name.replace("_", "-") == OPTION.replace("_", "-") and value.lower() in ("", "true")


def _named_in(value: str, folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield file, option and import path for a file, and for the files that it refers to."""
    file = folder / value
    try:
        if not value or not file.is_file() or file.stat().st_size > _LARGEST:
            return
        content = yaml.safe_load(file.read_bytes())
    except (OSError, UnicodeError, ValueError, yaml.YAMLError):
        return  # what cannot be read as YAML imports nothing; the parser tells what is wrong
    if isinstance(content, dict | list):
        for option, text in _texts(content, ""):
            yield from _named_in(text, file.parent)
            imports = _IMPORT_PATH.fullmatch(text) and option not in PARTS
            if imports and not text.startswith(_KNOWN):
                yield file, option, text


def _texts(content: Any, option: str) -> Iterator[tuple[str, str]]:
    """Yield the texts in a configuration that may name classes, each with its option."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in _TEXTS:
                yield from _texts(value, f"{option}.{key}" if option else str(key))
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, option)
    elif isinstance(content, str):
        yield option, content
