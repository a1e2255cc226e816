"""What the library promises of its cost, and whether a run shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from faster_isnet.benchmark.cases import BY_CLASSES, EXPLANATION, MEMORY, STEP
from faster_isnet.benchmark.contenders import FLEX, GRADIENT_X_INPUT, PLAIN
from faster_isnet.benchmark.rows import Row
from faster_isnet.benchmark.settings import CLASSES, target_batch

SIZE = 64


@dataclass(frozen=True)
class Target:
    """A bound of a ratio, for two cores: at most ``limit``, or at least.

    The other attributes are those of :class:`~faster_isnet.benchmark.rows.Row` that it is about.
    """

    suite: str
    architecture: str
    contender: str
    reference: str
    limit: float
    at_least: bool = False
    batch: int = 0
    classes: int = CLASSES

    def is_about(self, row: Row) -> bool:
        """Return whether the row measures this."""
        batch = self.batch or target_batch(self.architecture)
        wanted = (self.suite, self.architecture, self.contender, self.classes, batch, SIZE)
        return wanted == (
            *(row.suite, row.architecture, row.contender),
            *(row.classes, row.batch, row.size),
        )

    def is_met(self, ratio: float) -> bool:
        """Return whether a ratio keeps the bound."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        """Return the bound as the table shows it."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:.2f}"


_STEPS = {"resnet18": 2.15, "resnet50": 2.2, "densenet121": 2.2, "vgg16_bn": 2.15}
_PEERS = {"zennit": 2.0, "captum": 1.6, "autolrp": 1.7}
_EXPLAINED = ("resnet18", "densenet121", "vgg16_bn")

TARGETS: Sequence[Target] = (
    *(Target(STEP, name, "selective", PLAIN, limit) for name, limit in _STEPS.items()),
    Target(STEP, "densenet121", "dual", PLAIN, 5.0, batch=4),
    Target(STEP, "densenet121", "original", PLAIN, 12.0, batch=4),
    *(Target(EXPLANATION, name, FLEX, GRADIENT_X_INPUT, 1.10) for name in _EXPLAINED),
    *(
        Target(EXPLANATION, name, peer, FLEX, limit, at_least=True)
        for name in _EXPLAINED
        for peer, limit in _PEERS.items()
    ),
    Target(BY_CLASSES, "resnet18", "selective", "2 classes", 1.05, classes=1000),
    *(Target(MEMORY, name, "selective", PLAIN, 2.3) for name in _STEPS),
)
"""All of them."""


def judged(rows: Iterable[Row]) -> list[tuple[Target, Row]]:
    """Return the targets that rows are about, each with its row."""
    rows = list(rows)
    return [(target, row) for target in TARGETS for row in rows if target.is_about(row)]
