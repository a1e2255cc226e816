"""Translate options that version 0.1 wrote into run folders and checkpoints.

There the ISNet was the only method, and all of its options were the classifier's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faster_isnet.training.schedules import CONSTANT, MILESTONES

_METHOD = (
    "variant",
    "deep_supervision",
    "epsilon",
    "ignore_classes",
    "calibration",
    "heatmap_weight_schedule",
    "calibration_epochs",
    "supervised_part",
    "supervise_every",
)
_LOSS = ("heatmap_weight", "gwrp_decay", "cut_low", "cut_high", "class_weights")

NEW_NAMES = {
    **{f"model.{name}": f"method.{name}" for name in _METHOD},
    **{f"model.{name}": f"method.loss.{name}" for name in _LOSS},
    "model.gamma": "model.milestone_factor",
}
"""What an option of version 0.1 is called now."""

_AS_THEN = {"deep_supervision": False, "swapped_backgrounds": 0.0}
"""What the ISNet did, where today's default is another."""


def split_model_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the classifier's options of today, and those of the ISNet with its ``loss``.

    Where there are some of an ISNet, so that version 0.1 wrote them, what it did by default is
    among them.

    Examples
    --------
    >>> model, method = split_model_options({"backbone": "convnet", "heatmap_weight": 0.5})
    >>> model
    {'backbone': 'convnet', 'schedule': 'constant'}
    >>> method
    {'deep_supervision': False, 'swapped_backgrounds': 0.0, 'loss': {'heatmap_weight': 0.5}}
    """
    model: dict[str, Any] = {}
    method: dict[str, Any] = {}
    for name, value in options.items():
        _, *path = NEW_NAMES.get(f"model.{name}", f"model.{name}").split(".")
        if name in _LOSS:
            method.setdefault("loss", {})[name] = value
        elif name in _METHOD:
            method[name] = value
        else:
            model[path[-1]] = value
    if not method:
        return model, method
    model.setdefault("schedule", MILESTONES if model.get("milestones") else CONSTANT)
    return model, {**_AS_THEN, **method}
