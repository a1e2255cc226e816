"""timm's networks, where timm is installed: it is an extra."""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import nn

from faster_isnet.common.checks import check_choice

PREFIX = "timm:"


def check_timm_name(name: str) -> str:
    """Return the name that timm has for ``name``, which has the prefix ``timm:``.

    Raises
    ------
    ImportError
        If timm is not installed.
    ValueError
        If timm has no such network, or no such weights (the part after the dot) for it.
    """
    timm = _timm(name)
    known = name.removeprefix(PREFIX)
    architecture, _, tag = known.partition(".")
    check_choice("timm backbone", architecture, timm.list_models())
    if tag:
        tags = timm.list_models(f"{architecture}.*", pretrained=True)
        check_choice("timm backbone", known, [architecture, *tags])
    return known


def new_timm_model(name: str, classes: int, pretrained: bool) -> nn.Module:
    """Return a network of timm's; with pretrained weights it has the classes they came with."""
    timm = _timm(name)
    known = check_timm_name(name)
    if not pretrained:
        return timm.create_model(known, num_classes=classes)  # type: ignore[no-any-return]
    if not timm.is_model_pretrained(known):
        raise ValueError(f"timm has no pretrained weights for {known!r}; use pretrained=False")
    return timm.create_model(known, pretrained=True)  # type: ignore[no-any-return]


def _timm(name: str) -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"backbone {name!r} needs timm: pip install 'faster-isnet[timm]'"
        ) from error
