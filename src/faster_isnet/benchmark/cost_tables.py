"""Format measurements as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from faster_isnet.benchmark.cost_targets import matching_targets
from faster_isnet.benchmark.measurements import Measurement
from faster_isnet.benchmark.suites import BY_CLASSES, BY_SIZE, EXPLANATION, MEMORY, STEP
from faster_isnet.benchmark.timing import Quartiles

_SUITE_TITLES = {
    STEP: "Training steps",
    EXPLANATION: "Explanations of one class",
    BY_CLASSES: "Training steps by the number of classes",
    BY_SIZE: "Training steps by batch and image size",
    MEMORY: "Peak memory, weights and gradients included",
}


def report(machine: Mapping[str, Any], results: Sequence[Measurement]) -> str:
    """Return the environment, a table for each suite, and a table of the targets in Markdown.

    Examples
    --------
    >>> result = Measurement("memory", "resnet18", 10, 16, 64, "baseline", peak_bytes=2_000_000)
    >>> print(report({"torch": "2.14"}, [result]))
    # Benchmark
    <BLANKLINE>
    torch: 2.14
    <BLANKLINE>
    ## Peak memory, weights and gradients included
    <BLANKLINE>
    | network | classes | batch | size | what | median | ratio (quartiles) |
    | --- | --- | --- | --- | --- | --- | --- |
    | resnet18 | 10 | 16 | 64 | baseline | 2 MB |  |
    <BLANKLINE>
    """
    lines = ["# Benchmark", "", ", ".join(f"{name}: {value}" for name, value in machine.items())]
    columns = ("network", "classes", "batch", "size", "what", "median", "ratio (quartiles)")
    for suite, title in _SUITE_TITLES.items():
        of_suite = [result for result in results if result.suite == suite]
        if of_suite:
            lines += ["", f"## {title}", "", *_markdown_table(columns, map(_cells, of_suite))]
    if cells := list(_target_cells(results)):
        target_columns = ("network", "what", "beside", "target", "measured", "")
        lines += ["", "## Targets, for two cores", "", *_markdown_table(target_columns, cells)]
    return "\n".join(lines) + "\n"


def _cells(result: Measurement) -> tuple[str, ...]:
    case = map(str, (result.architecture, result.classes, result.batch, result.size))
    if result.error:
        return (*case, result.workload, "fails", result.error)
    ratios = [f"{_formatted(ratio)} of {reference}" for reference, ratio in result.ratios.items()]
    remarks = [result.remark] if result.remark else []
    return (*case, result.workload, _amount(result), "; ".join([*ratios, *remarks]))


def _formatted(ratio: Quartiles) -> str:
    return f"{ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f})"


def _amount(result: Measurement) -> str:
    if result.seconds is not None:
        return f"{result.seconds.median * 1e3:.1f} ms"
    return f"{(result.peak_bytes or 0) / 1e6:.0f} MB"


def _target_cells(results: Sequence[Measurement]) -> Iterable[tuple[str, ...]]:
    for target, result in matching_targets(results):
        ratio = result.ratios.get(target.reference)
        measured = result.error or "nothing to compare with"
        outcome = ""
        if ratio is not None:
            measured = _formatted(ratio)
            outcome = "met" if target.is_met(ratio.median) else "missed"
        names = (result.architecture, result.workload, target.reference)
        yield (*names, str(target), measured, outcome)


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in lines]
