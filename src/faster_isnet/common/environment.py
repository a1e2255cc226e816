"""What results depend on beside the settings."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch


def machine() -> dict[str, str | int]:
    """Return the versions, the processor and the number of threads of this run."""
    packages = ("faster-isnet", "torch", "torchvision", "lightning")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
