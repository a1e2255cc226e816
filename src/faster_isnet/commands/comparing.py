"""Run ``faster-isnet compare``: put evaluations of classifiers side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faster_isnet.commands.arguments import CommandParser, command_parser
from faster_isnet.commands.testing import FOLDER, REPORT
from faster_isnet.common.files import write_atomically
from faster_isnet.evaluation import Differences, differences
from faster_isnet.evaluation.audit import AUDIT, Audit
from faster_isnet.evaluation.json_format import differences_to_json
from faster_isnet.evaluation.saved_evaluation import METRICS, SavedEvaluation
from faster_isnet.reporting import (
    audit_text,
    check_comparable,
    text_table,
    write_audit_page,
    write_evaluation_page,
)

COMPARISON = "differences.json"


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    if any((path / AUDIT).is_file() for path in options.runs):
        _compare_audits([Audit.load(path) for path in options.runs], options.out)
        return
    evaluations = [_load(path) for path in options.runs]
    check_comparable(evaluations)
    resampling = {name: options[name] for name in ("resamples", "level", "seed")}
    first, *others = evaluations
    found = {
        data: {other.name: _difference(first, other, data, resampling) for other in compared}
        for data in first.sets
        if (compared := [other for other in others if data in other.sets])
    }
    content = {
        data: {name: differences_to_json(each) for name, each in by_name.items()}
        for data, by_name in found.items()
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(options.out / COMPARISON, text.encode())
    write_evaluation_page(options.out / REPORT, evaluations, found)
    print(text_table(evaluations))
    print(f"\nThe report: {(options.out / REPORT).resolve()}")


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "compare",
        "Put tested classifiers side by side, and say how each differs from the first on the same "
        "images; or put audits side by side.",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        type=Path,
        help="folders of faster-isnet fit, tested; or of their tests; or of faster-isnet audit",
    )
    add("--out", type=Path, default=Path("comparison"), help="folder of the report")
    add(
        "--resamples",
        "--samples",  # its name in 0.1
        type=int,
        default=1000,
        help="number of resamples of groups of images for an interval",
    )
    parser.add_parameters(differences, only=("level", "seed"), group=False)
    return parser


def _compare_audits(audits: Sequence[Audit], out: Path) -> None:
    """Write one page of several audits, and print what each answers."""
    page = write_audit_page(out / REPORT, audits)
    for audit in audits:
        print(f"{audit_text.headline(audit)}. {audit_text.judgement(audit)}")
    print(f"\nThe report: {page.resolve()}")


def _load(path: Path) -> SavedEvaluation:
    return SavedEvaluation.load(path if (path / METRICS).is_file() else path / FOLDER)


def _difference(
    first: SavedEvaluation, other: SavedEvaluation, data: str, resampling: dict[str, Any]
) -> Differences:
    try:
        return differences(
            first.predictions(data),
            other.predictions(data),
            first.sets[data].thresholds,
            other.sets[data].thresholds,
            **resampling,
        )
    except ValueError as error:
        raise ValueError(f"{first.name!r} and {other.name!r} on {data!r}: {error}") from error
