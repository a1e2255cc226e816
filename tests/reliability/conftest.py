"""Count what became of bad inputs: ``pytest tests/reliability --table FILE``."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

REFUSED, RIGHT = "refused", "right result"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write the counts of outcomes by kind, as Markdown")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    path = config.getoption("table", None)
    if path is not None:
        reports = [r for of in terminalreporter.stats.values() for r in of]
        path.write_text(table([r for r in reports if isinstance(r, pytest.TestReport)]))


def table(reports: list[pytest.TestReport]) -> str:
    """Return one line for each test module whose tests record an outcome."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for report in reports:
        kind = Path(report.nodeid.split("::")[0]).stem.removeprefix("test_").replace("_", " ")
        outcome = dict(report.user_properties).get("outcome")
        if report.failed:
            kinds[kind]["failed"] += 1
        elif report.when == "call" and outcome is not None:
            kinds[kind][str(outcome)] += 1
    lines = ["| kind | inputs | clear error | right result | neither |", "| --- |" + " --- |" * 4]
    for kind, counts in sorted(kinds.items()):
        row = (sum(counts.values()), counts[REFUSED], counts[RIGHT], counts["failed"])
        lines.append(f"| {kind} | {' | '.join(map(str, row))} |")
    return "\n".join(lines) + "\n"
