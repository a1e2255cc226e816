"""What a run of the benchmark is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torchvision

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.models import CONVNET

SUITES = ("step", "explanation", "classes", "sizes", "memory")
"""What can be measured: see :mod:`faster_isnet.benchmark.cases`."""

CLASSES = 10
"""Where their number is not what is varied."""

_BATCHES = {"resnet18": 16}
_BATCH = 8


@dataclass(frozen=True)
class BenchmarkSettings:
    """What to measure, and how often.

    Parameters
    ----------
    only
        Which of :data:`SUITES`: ``"step"``, ``"explanation"``, ``"classes"``, ``"sizes"``,
        ``"memory"``.
    architectures
        torchvision's classifiers (here ``"densenet121"`` is torchvision's too, without the papers'
        transition ReLUs), or ``"convnet"``. The sweeps take the first.
    rounds
        How often each is timed.
    deep_supervision
        Whether the training steps supervise the published hidden layers too.
    device
        Where: ``"cpu"``, ``"cuda"``, ….
    seed
        Of weights, images and order.
    batch
        Images in a batch; ``None`` for that of the published targets, 16 for ResNet-18 and 8 for
        others.
    several_heatmaps_batch
        The same for the variants that have several heatmaps a sample.
    size
        Height and width of the images, in pixels.
    class_counts, batches, sizes
        What the sweeps go over. The classes' growth is counted from the first.
    """

    only: Sequence[str] = SUITES
    architectures: Sequence[str] = ("resnet18", "resnet50", "densenet121", "vgg16_bn")
    rounds: int = 20
    deep_supervision: bool = False
    device: str = "cpu"
    seed: int = 0
    batch: int | None = None
    several_heatmaps_batch: int = 4
    size: int = 64
    class_counts: Sequence[int] = (2, 10, 100, 1000)
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32)
    sizes: Sequence[int] = (32, 64, 128, 224)

    def __post_init__(self) -> None:
        """Check everything before anything is measured."""
        for suite in self.only:
            check_choice("suite", suite, SUITES)
        for architecture in self.architectures:
            check_choice("architecture", architecture, architectures())
        for name in ("only", "architectures", "class_counts", "batches", "sizes"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one")
        check_range("rounds", self.rounds, 1)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_device(self.device)

    def quick(self) -> BenchmarkSettings:
        """Return settings of a run that takes less than a minute and shows that all of it works."""
        return replace(
            self,
            architectures=("resnet18",),
            rounds=3,
            batch=2,
            several_heatmaps_batch=2,
            class_counts=(2, 10),
            batches=(1, 2),
            sizes=(32, 64),
        )

    def batch_for(self, architecture: str) -> int:
        """Return how many images a batch has."""
        return self.batch or target_batch(architecture)


def target_batch(architecture: str) -> int:
    """Return how many images a batch has in the published targets."""
    return _BATCHES.get(architecture, _BATCH)


def architectures() -> list[str]:
    """Return the names of the architectures that can be measured."""
    return [CONVNET, *torchvision.models.list_models(module=torchvision.models)]


def check_device(name: str) -> torch.device:
    """Return the device of this name.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; for example 'cpu' or 'cuda:0'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: PyTorch finds no CUDA here; use 'cpu'")
    return device
