"""Run ``faster-isnet compare``: put tested classifiers side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faster_isnet.commands.arguments import CommandParser, command_parser
from faster_isnet.commands.testing import FOLDER, REPORT
from faster_isnet.common.files import write_atomically
from faster_isnet.evaluation import differences
from faster_isnet.evaluation.evaluation_files import METRICS, TestedRun
from faster_isnet.reporting import check_runs, text_table, write_report

COMPARISON = "differences.json"


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    runs = [_load(path) for path in options.runs]
    check_runs(runs)
    resampling = {name: options[name] for name in ("samples", "level", "seed")}
    found = {
        data: {other.name: _difference(runs[0], other, data, resampling) for other in others}
        for data in runs[0].sets
        if (others := [other for other in runs[1:] if data in other.sets])
    }
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    write_atomically(options.out / COMPARISON, text.encode())
    write_report(options.out / REPORT, runs, found)
    print(text_table(runs))
    print(f"\nThe report: {(options.out / REPORT).resolve()}")


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "compare",
        "Put tested classifiers side by side, and say how each differs from the first on the same "
        "images.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders of faster-isnet fit, tested; or of their tests")
    add("--out", type=Path, default=Path("comparison"), help="folder of the report")
    parser.add_parameters(differences, only=("samples", "level", "seed"), group=False)
    return parser


def _load(path: Path) -> TestedRun:
    return TestedRun.load(path if (path / METRICS).is_file() else path / FOLDER)


def _difference(
    first: TestedRun, other: TestedRun, data: str, resampling: dict[str, Any]
) -> dict[str, Any]:
    try:
        return differences(
            first.predictions(data),
            other.predictions(data),
            first.sets[data]["thresholds"],
            other.sets[data]["thresholds"],
            **resampling,
        )
    except ValueError as error:
        raise ValueError(f"{first.name!r} and {other.name!r} on {data!r}: {error}") from error
