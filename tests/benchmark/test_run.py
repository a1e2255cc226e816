"""A run of the benchmark: what it measures, and what it writes. No test looks at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from faster_isnet.benchmark import SUITES, BenchmarkSettings, run_benchmark
from faster_isnet.benchmark.cases import groups
from faster_isnet.benchmark.contenders import FLEX, GRADIENT_X_INPUT, PLAIN
from faster_isnet.benchmark.memory import peak_memory
from faster_isnet.benchmark.rows import Row
from faster_isnet.benchmark.tables import report
from faster_isnet.benchmark.targets import TARGETS, judged
from faster_isnet.benchmark.timing import Quartiles
from faster_isnet.methods.isnet.network import VARIANTS

TINY = replace(BenchmarkSettings().quick(), architectures=("convnet",), sizes=(32, 48))


@pytest.mark.slow
def test_a_run_writes_every_suite_and_can_be_read(tmp_path: Path) -> None:
    content = run_benchmark(TINY, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == json.loads(json.dumps(content))
    rows = content["measurements"]
    assert {row["suite"] for row in rows} == set(SUITES)
    for row in rows:
        assert row["error"] or row["seconds"] or row["peak_bytes"]
    steps = {row["contender"]: row for row in rows if row["suite"] == "step"}
    assert (
        {PLAIN, "selective", "stochastic", "dual", "original"}
        <= steps.keys()
        <= {
            PLAIN,
            *VARIANTS,
        }
    )
    assert steps["selective"]["ratios"][PLAIN]["median"] > 0
    assert content["machine"]["threads"] == torch.get_num_threads()
    tables = (tmp_path / "benchmark.md").read_text()
    for name in ("step", "explanation", "classes", "sizes_by_batch", "sizes_by_size"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "Training steps" in tables
    assert "Peak memory" in tables


def test_who_fails_is_named_with_the_reason() -> None:
    row = Row("explanation", "resnet18", 10, 16, 64, "zennit", error="RuntimeError: no | way")
    assert "| zennit | fails | RuntimeError: no / way |" in report({}, [row])


def test_targets_are_judged_by_the_rows_they_are_about() -> None:
    row = Row("step", "resnet18", 10, 16, 64, "selective", ratios={PLAIN: Quartiles(2, 2.1, 2.4)})
    other = replace(row, batch=8)
    ((target, judged_row),) = judged([row, other])
    assert judged_row is row
    assert target.is_met(2.15)
    assert not target.is_met(2.16)
    assert "| resnet18 | selective | plain | ≤ 2.15 | 2.10 (2.00 to 2.40) | met |" in report(
        {}, [row, other]
    )


def test_every_target_is_measured_by_a_whole_run() -> None:
    settings = BenchmarkSettings()
    measured = [
        Row(case.suite, case.architecture, case.classes, case.batch, case.size, contender.name)
        for suite in SUITES
        for group in groups(suite, settings)
        for case in group
        for contender in case.contenders
    ]
    assert {target for target, _ in judged(measured)} == set(TARGETS)


def test_explanations_compare_with_gradient_x_input_and_with_ours() -> None:
    for group in groups("explanation", BenchmarkSettings()):
        for case in group:
            names = [contender.name for contender in case.contenders]
            assert case.references == (GRADIENT_X_INPUT, FLEX)
            assert set(case.references) < set(names)


def test_memory_is_what_is_held_at_one_time() -> None:
    def work() -> None:
        a = torch.ones(1_000_000)
        b = a + 1
        del a
        torch.ones(500_000).add_(b[0])

    assert peak_memory(work) == pytest.approx(8_000_000, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only": ["steps"]}, "unknown suite 'steps'; did you mean 'step'"),
        ({"architectures": ["resnet19"]}, "unknown architecture 'resnet19'; did you mean"),
        ({"rounds": 0}, "rounds must be"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"only": []}, "only must name at least one"),
    ],
)
def test_settings_are_checked_before_anything_is_measured(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchmarkSettings(**change)
