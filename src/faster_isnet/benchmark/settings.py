"""Define and check the settings of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torchvision

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.models import CONVNET

SUITES = ("step", "explanation", "classes", "sizes", "memory")
"""The suites, see :mod:`faster_isnet.benchmark.suites`."""

CLOCKS = ("wall", "processor")
"""What can be timed: what passes, or the processor time of this process, of all its threads."""

VIT_S_16 = "vit_s_16"
"""ViT-S/16, which torchvision has the class of, and no name for."""

CLASSES = 10
"""Number of classes where it is not varied."""

_BATCHES = {"resnet18": 16}
_BATCH = 8


@dataclass(frozen=True)
class BenchmarkSettings:
    """Choose what to measure, and how often.

    Parameters
    ----------
    only
        Which of :data:`SUITES`: ``"step"``, ``"explanation"``, ``"classes"``, ``"sizes"``,
        ``"memory"``.
    architectures
        torchvision's classifiers (here ``"densenet121"`` is torchvision's too, without the papers'
        transition ReLUs), ``"vit_s_16"`` or ``"convnet"``. The sweeps take the first.
    rounds
        How often each workload is timed, ≥ 1.
    deep_supervision
        Whether the training steps supervise the published hidden layers too.
    device
        ``"cpu"``, ``"cuda"``, ….
    clock
        ``"wall"``, or ``"processor"`` where other programs use the same cores, with one thread
        (``OMP_NUM_THREADS=1``); not for an accelerator.
    seed
        Seed of weights, images and order of measurements, in [0, 2³² − 1].
    batch
        Images in a batch; ``None`` for that of the targets, 16 for ResNet-18 and 8 for
        others.
    several_heatmaps_batch
        Batch size of the variants with several heatmaps per sample.
    size
        Height and width of the images, in pixels.
    class_counts, batches, sizes
        Values of the sweeps. Growth with the classes is relative to the first.
    """

    only: Sequence[str] = SUITES
    architectures: Sequence[str] = ("resnet18", "resnet50", "densenet121", "vgg16_bn", VIT_S_16)
    rounds: int = 20
    deep_supervision: bool = False
    device: str = "cpu"
    clock: str = "wall"
    seed: int = 0
    batch: int | None = None
    several_heatmaps_batch: int = 4
    size: int = 64
    class_counts: Sequence[int] = (2, 10, 100, 1000)
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32)
    sizes: Sequence[int] = (32, 64, 128, 224)

    def __post_init__(self) -> None:
        """Check all settings, before anything is measured."""
        for suite in self.only:
            check_choice("suite", suite, SUITES)
        for architecture in self.architectures:
            check_choice("architecture", architecture, architectures())
        for name in ("only", "architectures", "class_counts", "batches", "sizes"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one")
        check_choice("clock", self.clock, CLOCKS)
        check_range("rounds", self.rounds, 1)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_device(self.device)

    def quick(self) -> BenchmarkSettings:
        """Return settings of a smoke test, which takes less than a minute."""
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
        """Return the batch size for an architecture."""
        return self.batch or target_batch(architecture)


def target_batch(architecture: str) -> int:
    """Return the batch size that the targets are defined for."""
    return _BATCHES.get(architecture, _BATCH)


def architectures() -> list[str]:
    """List the architectures that can be measured."""
    return [CONVNET, VIT_S_16, *torchvision.models.list_models(module=torchvision.models)]


def check_device(name: str) -> torch.device:
    """Parse a device name and check that the device exists.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; for example 'cpu' or 'cuda:0'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: PyTorch finds no CUDA here; use 'cpu'")
    return device
