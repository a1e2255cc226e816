"""Describe the software and hardware that results depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch


def machine() -> dict[str, str | int]:
    """Return the versions of packages, the processor and the number of threads."""
    packages = ("faster-isnet", "torch", "torchvision", "lightning")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
