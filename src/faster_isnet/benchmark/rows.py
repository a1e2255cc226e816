"""What was measured of one contender in one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from faster_isnet.benchmark.timing import Quartiles


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes
    ----------
    suite, architecture, classes, batch, size, contender
        What was measured.
    rounds
        How often.
    seconds
        Of one run; ``None`` if memory was measured.
    peak_bytes
        Of tensors; ``None`` if time was measured.
    ratios
        By the name of what it was compared with: the ratio of what was measured in the same round.
    error
        Why there are no figures, if there are none.
    remark
        What else is to be known of it.
    """

    suite: str
    architecture: str
    classes: int
    batch: int
    size: int
    contender: str
    rounds: int = 0
    seconds: Quartiles | None = None
    peak_bytes: int | None = None
    ratios: Mapping[str, Quartiles] = field(default_factory=dict)
    error: str = ""
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the row for a JSON file."""
        return asdict(self)
