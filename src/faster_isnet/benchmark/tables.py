"""What was measured, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from faster_isnet.benchmark.cases import BY_CLASSES, BY_SIZE, EXPLANATION, MEMORY, STEP
from faster_isnet.benchmark.rows import Row
from faster_isnet.benchmark.targets import judged

_TITLES = {
    STEP: "Training steps",
    EXPLANATION: "Explanations of one class",
    BY_CLASSES: "Training steps by the number of classes",
    BY_SIZE: "Training steps by batch and image size",
    MEMORY: "Peak memory, weights and gradients included",
}


def report(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the machine, a table for each suite, and how the targets fared.

    Examples
    --------
    >>> row = Row("memory", "resnet18", 10, 16, 64, "plain", peak_bytes=2_000_000)
    >>> print(report({"torch": "2.14"}, [row]))
    # Benchmark
    <BLANKLINE>
    torch: 2.14
    <BLANKLINE>
    ## Peak memory, weights and gradients included
    <BLANKLINE>
    | network | classes | batch | size | what | median | ratio (quartiles) |
    | --- | --- | --- | --- | --- | --- | --- |
    | resnet18 | 10 | 16 | 64 | plain | 2 MB |  |
    <BLANKLINE>
    """
    lines = ["# Benchmark", "", ", ".join(f"{name}: {value}" for name, value in machine.items())]
    columns = ("network", "classes", "batch", "size", "what", "median", "ratio (quartiles)")
    for suite, title in _TITLES.items():
        of_suite = [row for row in rows if row.suite == suite]
        if of_suite:
            lines += ["", f"## {title}", "", *_table(columns, map(_cells, of_suite))]
    if cells := list(_target_cells(rows)):
        judgement = ("network", "what", "beside", "target", "measured", "")
        lines += ["", "## Targets, for two cores", "", *_table(judgement, cells)]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    case = (row.architecture, str(row.classes), str(row.batch), str(row.size), row.contender)
    if row.error:
        return (*case, "fails", row.error)
    ratios = [
        f"{ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f}) of {reference}"
        for reference, ratio in row.ratios.items()
    ]
    return (*case, _amount(row), "; ".join([*ratios, *filter(None, [row.remark])]))


def _amount(row: Row) -> str:
    if row.seconds is not None:
        return f"{row.seconds.median * 1e3:.1f} ms"
    return f"{(row.peak_bytes or 0) / 1e6:.0f} MB"


def _target_cells(rows: Sequence[Row]) -> Iterable[tuple[str, ...]]:
    for target, row in judged(rows):
        ratio = row.ratios.get(target.reference)
        measured = row.error or "nothing to compare with"
        verdict = ""
        if ratio is not None:
            measured = f"{ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f})"
            verdict = "met" if target.is_met(ratio.median) else "missed"
        yield row.architecture, row.contender, target.reference, str(target), measured, verdict


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in lines]
