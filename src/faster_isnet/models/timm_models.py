"""Build networks of timm, an optional dependency."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch import nn

from faster_isnet.common.checks import check_choice

PREFIX = "timm:"


def check_timm_name(name: str) -> str:
    """Check a name with the prefix ``timm:``, and return it without the prefix.

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


def is_timm_name(name: str) -> bool:
    """Return whether timm is installed and has a network of this name, without the prefix."""
    if find_spec("timm") is None:
        return False
    return name.partition(".")[0] in _timm(name).list_models()


def new_timm_model(name: str, classes: int, pretrained: bool, channels: int = 3) -> nn.Module:
    """Build a network of timm; with pretrained weights it has the classes of the weights.

    Of a single channel timm itself sums pretrained weights.
    """
    timm = _timm(name)
    known = check_timm_name(name)
    if pretrained and not timm.is_model_pretrained(known):
        raise ValueError(f"timm has no pretrained weights for {known!r}; use pretrained=False")
    options: dict[str, Any] = {"pretrained": True} if pretrained else {"num_classes": classes}
    if channels == 3:
        return timm.create_model(known, **options)  # type: ignore[no-any-return]
    model: Any = timm.create_model(known, in_chans=channels, **options)
    model.pretrained_cfg["input_size"] = (channels, *model.pretrained_cfg["input_size"][1:])
    return model  # type: ignore[no-any-return]


def _timm(name: str) -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"backbone {name!r} needs timm: pip install 'faster-isnet[timm]'"
        ) from error
