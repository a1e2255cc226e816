"""Translate options that version 0.1 wrote into run folders and checkpoints.

There the ISNet was the only method, and all of its options were the classifier's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def split_model_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the classifier's options of today, and those of the ISNet with its ``loss``.

    Examples
    --------
    >>> split_model_options({"backbone": "convnet", "variant": "dual", "heatmap_weight": 0.5})
    ({'backbone': 'convnet'}, {'variant': 'dual', 'loss': {'heatmap_weight': 0.5}})
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
    return model, method
