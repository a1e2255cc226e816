"""Define upper and lower bounds of cost ratios, and match them with measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from faster_isnet.benchmark.measurements import Measurement
from faster_isnet.benchmark.settings import CLASSES, VIT_S_16, target_batch
from faster_isnet.benchmark.suites import BY_CLASSES, EXPLANATION, MEMORY, STEP
from faster_isnet.benchmark.workloads import BASELINE, FLEX, GRADIENT_X_INPUT

SIZE = 64


@dataclass(frozen=True)
class CostTarget:
    """A bound of a cost ratio on two CPU cores: at most ``limit``, or at least if ``at_least``.

    The other attributes select the measurement, see
    :class:`~faster_isnet.benchmark.measurements.Measurement`; ``batch`` 0 stands for
    :func:`~faster_isnet.benchmark.settings.target_batch`.
    """

    suite: str
    architecture: str
    workload: str
    reference: str
    limit: float
    at_least: bool = False
    batch: int = 0
    classes: int = CLASSES

    def applies_to(self, result: Measurement) -> bool:
        """Return whether the target is a bound for this measurement."""
        batch = self.batch or target_batch(self.architecture)
        wanted = (self.suite, self.architecture, self.workload, self.classes, batch, SIZE)
        return wanted == (
            *(result.suite, result.architecture, result.workload),
            *(result.classes, result.batch, result.size),
        )

    def is_met(self, ratio: float) -> bool:
        """Return whether a ratio is within the bound."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        """Return the bound as shown in the table."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:.2f}"


_STEPS = {"resnet18": 2.15, "resnet50": 2.2, "densenet121": 2.2, "vgg16_bn": 2.15, VIT_S_16: 2.6}
_OTHER_PACKAGES = {"zennit": 2.0, "captum": 1.6, "autolrp": 1.7}
_EXPLAINED = ("resnet18", "densenet121", "vgg16_bn")

COST_TARGETS: Sequence[CostTarget] = (
    *(CostTarget(STEP, name, "selective", BASELINE, limit) for name, limit in _STEPS.items()),
    CostTarget(STEP, "densenet121", "dual", BASELINE, 5.0, batch=4),
    CostTarget(STEP, "densenet121", "original", BASELINE, 12.0, batch=4),
    *(CostTarget(EXPLANATION, name, FLEX, GRADIENT_X_INPUT, 1.10) for name in _EXPLAINED),
    CostTarget(EXPLANATION, VIT_S_16, FLEX, GRADIENT_X_INPUT, 1.30),
    *(
        CostTarget(EXPLANATION, name, package, FLEX, limit, at_least=True)
        for name in _EXPLAINED
        for package, limit in _OTHER_PACKAGES.items()
    ),
    CostTarget(BY_CLASSES, "resnet18", "selective", "2 classes", 1.05, classes=1000),
    *(CostTarget(MEMORY, name, "selective", BASELINE, 2.3) for name in _STEPS),
)
"""All targets."""


def matching_targets(results: Iterable[Measurement]) -> list[tuple[CostTarget, Measurement]]:
    """Return pairs of a target and a measurement that it applies to."""
    results = list(results)
    return [(target, one) for target in COST_TARGETS for one in results if target.applies_to(one)]
