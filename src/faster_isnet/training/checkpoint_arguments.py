"""Keep the arguments of a Lightning module in its checkpoints, and construct it from them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any, TypeVar

from faster_isnet.common.recipes import ARGUMENTS, CLASS, Recorded, build, class_path, recipe

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Recorded)

_LEFT_OUT = "not_in_recipe"


def describe(made: Recorded) -> dict[str, Any]:
    """Return what a checkpoint keeps of an object: its class, its arguments, what was left out."""
    kept, left_out = {}, []
    for name, value in made.recipe_arguments().items():
        nested: list[str] = []
        try:
            kept[name] = recipe(value, nested, name)
        except TypeError:
            nested = [name]
        left_out += nested
    return {
        "recipe": {CLASS: class_path(type(made)), ARGUMENTS: kept},
        _LEFT_OUT: left_out,
    }


def kept_arguments(content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a checkpoint keeps, without those that are given.

    Those that it could not keep are named in a warning.
    """
    described = content.get("recipe") or {}
    left_out = [name for name in content.get(_LEFT_OUT, ()) if name.split(".")[0] not in given]
    if left_out:
        log.warning("the checkpoint does not keep %s; give them if they matter", left_out)
    arguments = described.get(ARGUMENTS, {})
    wanted = {name: each for name, each in arguments.items() if name not in given}
    made: dict[str, Any] = build(wanted)
    return made


def construct(kind: type[T], content: Mapping[str, Any], arguments: Mapping[str, Any]) -> T:
    """Return an object of a class and arguments that were read from a checkpoint.

    Raises
    ------
    TypeError
        If an argument is missing.
    ValueError
        If the checkpoint was written by another class.
    """
    missing = [
        parameter.name
        for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
        and parameter.name not in arguments
    ]
    written_by = (content.get("recipe") or {}).get(CLASS, class_path(kind))
    if written_by == class_path(kind):
        if missing:
            wanted = ", ".join(f"{name}=..." for name in missing)
            raise TypeError(
                f"the checkpoint does not keep {', '.join(missing)}, which is a module, a function "
                f"or a class of your own; give what it was: load_from_checkpoint(path, {wanted})"
            )
        return kind(**arguments)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"the checkpoint was written by {written_by} and does not fit {class_path(kind)} "
            f"({error}); load it with its own class"
        ) from error
