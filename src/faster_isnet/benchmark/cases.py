"""Which contenders meet on which networks and batches.

``step``: training steps of each variant against the plain one. ``explanation``: explanations
against Gradient × Input, other packages' among them. ``classes``: steps by the number of classes,
2 to 1,000. ``sizes``: steps by batch and by image size. ``memory``: peak memory of the steps and of
the explanations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from faster_isnet.benchmark.contenders import (
    FLEX,
    GRADIENT_X_INPUT,
    PLAIN,
    Contender,
    explanations,
    isnet_step,
    plain_step,
)
from faster_isnet.benchmark.settings import CLASSES, SUITES, BenchmarkSettings
from faster_isnet.benchmark.setups import Setup, new_setup

STEP, EXPLANATION, BY_CLASSES, BY_SIZE, MEMORY = SUITES
MOST_HEATMAPS = 16
"""Classes up to which the original variant, one heatmap for each, takes part in a sweep."""


@dataclass(frozen=True)
class Case:
    """Contenders that work on the same network and the same batch.

    Attributes
    ----------
    suite
        What they are measured for.
    architecture, classes, batch, size
        The network and the batch.
    contenders
        Who takes part.
    references
        The names of those that the others are compared with.
    """

    suite: str
    architecture: str
    classes: int
    batch: int
    size: int
    contenders: tuple[Contender, ...]
    references: tuple[str, ...]

    def new_setup(self, settings: BenchmarkSettings) -> Setup:
        """Return a new network and a batch."""
        return new_setup(
            *(self.architecture, self.classes, self.batch, self.size),
            training=GRADIENT_X_INPUT not in self.references,
            device=settings.device,
            seed=settings.seed,
        )

    def __str__(self) -> str:
        """Name the case in the progress of a run."""
        return (
            f"{self.suite}: {self.architecture}, {self.classes} classes, batch {self.batch}, "
            f"{self.size}×{self.size}"
        )


Group = tuple[Case, ...]
"""Cases that are measured in the same rounds."""


def groups(suite: str, settings: BenchmarkSettings) -> list[Group]:
    """Return what is measured in a suite, in order."""
    return _GROUPS[suite](settings)


def _steps(suite: str, settings: BenchmarkSettings, variants: Sequence[str]) -> Case:
    architecture = settings.architectures[0]
    steps = (isnet_step(variant, settings.deep_supervision) for variant in variants)
    batch = settings.batch_for(architecture)
    contenders = (plain_step(), *steps)
    return Case(suite, architecture, CLASSES, batch, settings.size, contenders, (PLAIN,))


def _step_groups(settings: BenchmarkSettings) -> list[Group]:
    one_heatmap = _steps(STEP, settings, ("selective", "stochastic"))
    several = replace(
        _steps(STEP, settings, ("dual", "original")), batch=settings.several_heatmaps_batch
    )
    found: list[Group] = []
    for name in settings.architectures:
        found.append((replace(one_heatmap, architecture=name, batch=settings.batch_for(name)),))
        found.append((replace(several, architecture=name),))
    return found


def _explanation_groups(settings: BenchmarkSettings) -> list[Group]:
    return [
        (
            Case(
                *(EXPLANATION, name, CLASSES, settings.batch_for(name), settings.size),
                contenders=explanations(),
                references=(GRADIENT_X_INPUT, FLEX),
            ),
        )
        for name in settings.architectures
    ]


def _classes_groups(settings: BenchmarkSettings) -> list[Group]:
    one_heatmap, all_of_them = (
        _steps(BY_CLASSES, settings, variants)
        for variants in (
            ("selective", "stochastic", "dual"),
            ("selective", "stochastic", "dual", "original"),
        )
    )
    return [
        tuple(
            replace(all_of_them if count <= MOST_HEATMAPS else one_heatmap, classes=count)
            for count in settings.class_counts
        )
    ]


def _sizes_groups(settings: BenchmarkSettings) -> list[Group]:
    case = _steps(BY_SIZE, settings, ("selective", "dual"))
    small = settings.several_heatmaps_batch
    by_batch = [replace(case, batch=batch) for batch in settings.batches]
    by_size = [replace(case, batch=small, size=size) for size in settings.sizes]
    return [(one,) for one in dict.fromkeys([*by_batch, *by_size])]  # none of them twice


def _memory_groups(settings: BenchmarkSettings) -> list[Group]:
    cases = [*_step_groups(settings), *_explanation_groups(settings)]
    return [tuple(replace(case, suite=MEMORY) for case in group) for group in cases]


_GROUPS: dict[str, Callable[[BenchmarkSettings], list[Group]]] = {
    STEP: _step_groups,
    EXPLANATION: _explanation_groups,
    BY_CLASSES: _classes_groups,
    BY_SIZE: _sizes_groups,
    MEMORY: _memory_groups,
}
