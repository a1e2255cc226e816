"""Define the suites: which workloads are measured on which networks and batches.

``step``: training steps of each variant, relative to the baseline step. ``explanation``:
explanations, including those of other packages, relative to Gradient × Input. ``classes``: steps
by the number of classes, 2 to 1,000. ``sizes``: steps by batch and by image size. ``memory``: peak
memory of the steps and of the explanations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from faster_isnet.benchmark.settings import CLASSES, SUITES, BenchmarkSettings
from faster_isnet.benchmark.workloads import (
    BASELINE,
    FLEX,
    GRADIENT_X_INPUT,
    Setup,
    Workload,
    baseline_step,
    explanations,
    isnet_step,
    new_setup,
)

STEP, EXPLANATION, BY_CLASSES, BY_SIZE, MEMORY = SUITES
MOST_HEATMAPS = 16
"""Most classes for which the original variant, with a heatmap for each class, is measured."""


@dataclass(frozen=True)
class Case:
    """Workloads on the same network and the same batch.

    Attributes
    ----------
    suite
        Name of the suite.
    architecture, classes, batch, size
        The network and the batch.
    workloads
        What is measured.
    references
        Names of the workloads that the others are compared with.
    """

    suite: str
    architecture: str
    classes: int
    batch: int
    size: int
    workloads: tuple[Workload, ...]
    references: tuple[str, ...]

    def new_setup(self, settings: BenchmarkSettings) -> Setup:
        """Build the network and a batch."""
        return new_setup(
            *(self.architecture, self.classes, self.batch, self.size),
            training=GRADIENT_X_INPUT not in self.references,
            device=settings.device,
            seed=settings.seed,
        )

    def __str__(self) -> str:
        """Return a description for the log."""
        return (
            f"{self.suite}: {self.architecture}, {self.classes} classes, batch {self.batch}, "
            f"{self.size}×{self.size}"
        )


CaseGroup = tuple[Case, ...]
"""Cases that are measured in the same rounds, so that their times are comparable."""


def case_groups(suite: str, settings: BenchmarkSettings) -> list[CaseGroup]:
    """Return the cases of a suite, in the order in which they are measured."""
    return _GROUPS[suite](settings)


def _steps(suite: str, settings: BenchmarkSettings, variants: Sequence[str]) -> Case:
    architecture = settings.architectures[0]
    steps = (isnet_step(variant, settings.deep_supervision) for variant in variants)
    batch = settings.batch_for(architecture)
    workloads = (baseline_step(), *steps)
    return Case(suite, architecture, CLASSES, batch, settings.size, workloads, (BASELINE,))


def _step_groups(settings: BenchmarkSettings) -> list[CaseGroup]:
    one_heatmap = _steps(STEP, settings, ("selective", "stochastic"))
    several = replace(
        _steps(STEP, settings, ("dual", "original")), batch=settings.several_heatmaps_batch
    )
    found: list[CaseGroup] = []
    for name in settings.architectures:
        found.append((replace(one_heatmap, architecture=name, batch=settings.batch_for(name)),))
        found.append((replace(several, architecture=name),))
    return found


def _explanation_groups(settings: BenchmarkSettings) -> list[CaseGroup]:
    return [
        (
            Case(
                *(EXPLANATION, name, CLASSES, settings.batch_for(name), settings.size),
                workloads=explanations(name),
                references=(GRADIENT_X_INPUT, FLEX),
            ),
        )
        for name in settings.architectures
    ]


def _classes_groups(settings: BenchmarkSettings) -> list[CaseGroup]:
    without_original, with_original = (
        _steps(BY_CLASSES, settings, variants)
        for variants in (
            ("selective", "stochastic", "dual"),
            ("selective", "stochastic", "dual", "original"),
        )
    )
    return [
        tuple(
            replace(with_original if count <= MOST_HEATMAPS else without_original, classes=count)
            for count in settings.class_counts
        )
    ]


def _sizes_groups(settings: BenchmarkSettings) -> list[CaseGroup]:
    case = _steps(BY_SIZE, settings, ("selective", "dual"))
    small = settings.several_heatmaps_batch
    by_batch = [replace(case, batch=batch) for batch in settings.batches]
    by_size = [replace(case, batch=small, size=size) for size in settings.sizes]
    return [(one,) for one in dict.fromkeys([*by_batch, *by_size])]  # without repetitions


def _memory_groups(settings: BenchmarkSettings) -> list[CaseGroup]:
    cases = [*_step_groups(settings), *_explanation_groups(settings)]
    return [tuple(replace(case, suite=MEMORY) for case in group) for group in cases]


_GROUPS: dict[str, Callable[[BenchmarkSettings], list[CaseGroup]]] = {
    STEP: _step_groups,
    EXPLANATION: _explanation_groups,
    BY_CLASSES: _classes_groups,
    BY_SIZE: _sizes_groups,
    MEMORY: _memory_groups,
}
