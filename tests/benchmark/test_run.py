"""Test what the benchmark measures and writes; no test depends on a measured time."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from faster_isnet.benchmark import SUITES, BenchmarkSettings, run_benchmark
from faster_isnet.benchmark.cost_tables import report
from faster_isnet.benchmark.cost_targets import COST_TARGETS, matching_targets
from faster_isnet.benchmark.measurements import Measurement, measure_group
from faster_isnet.benchmark.memory import peak_memory
from faster_isnet.benchmark.suites import Case, case_groups
from faster_isnet.benchmark.timing import Quartiles
from faster_isnet.benchmark.workloads import (
    BASELINE,
    FLEX,
    GRADIENT_X_INPUT,
    Workload,
    explanations,
    new_setup,
)
from faster_isnet.methods.isnet.network import VARIANTS

TINY = replace(BenchmarkSettings().quick(), architectures=("convnet",), sizes=(32, 48))


@pytest.mark.slow
def test_a_run_writes_every_suite(tmp_path: Path) -> None:
    content = run_benchmark(TINY, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == json.loads(json.dumps(content))
    rows = content["measurements"]
    assert {row["suite"] for row in rows} == set(SUITES)
    for row in rows:
        assert row["error"] or row["seconds"] or row["peak_bytes"]
    steps = {row["workload"]: row for row in rows if row["suite"] == "step"}
    assert (
        {BASELINE, "selective", "stochastic", "dual", "original"}
        <= steps.keys()
        <= {
            BASELINE,
            *VARIANTS,
        }
    )
    assert steps["selective"]["ratios"][BASELINE]["median"] > 0
    assert content["machine"]["threads"] == torch.get_num_threads()
    tables = (tmp_path / "benchmark.md").read_text()
    for name in ("step", "explanation", "classes", "sizes_by_batch", "sizes_by_size"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "Training steps" in tables
    assert "Peak memory" in tables


def test_the_report_shows_the_error_of_a_failed_workload() -> None:
    row = Measurement(
        "explanation", "resnet18", 10, 16, 64, "zennit", error="RuntimeError: no | way"
    )
    assert "| zennit | fails | RuntimeError: no / way |" in report({}, [row])


def test_targets_apply_to_matching_measurements() -> None:
    row = Measurement(
        "step", "resnet18", 10, 16, 64, "selective", ratios={BASELINE: Quartiles(2, 2.1, 2.4)}
    )
    other = replace(row, batch=8)
    ((target, matched),) = matching_targets([row, other])
    assert matched is row
    assert target.is_met(2.15)
    assert not target.is_met(2.16)
    assert "| resnet18 | selective | baseline | ≤ 2.15 | 2.10 (2.00 to 2.40) | met |" in report(
        {}, [row, other]
    )


def test_a_full_run_measures_every_target() -> None:
    settings = BenchmarkSettings()
    measured = [
        Measurement(
            case.suite, case.architecture, case.classes, case.batch, case.size, workload.name
        )
        for suite in SUITES
        for group in case_groups(suite, settings)
        for case in group
        for workload in case.workloads
    ]
    assert {target for target, _ in matching_targets(measured)} == set(COST_TARGETS)


def test_references_of_explanations_are_gradient_x_input_and_flex() -> None:
    for group in case_groups("explanation", BenchmarkSettings()):
        for case in group:
            names = [workload.name for workload in case.workloads]
            assert case.references == (GRADIENT_X_INPUT, FLEX)
            assert set(case.references) < set(names)


def test_transformers_are_compared_with_lxt_too() -> None:
    found = {name: {w.name for w in explanations(name)} for name in ("resnet18", "vit_s_16")}
    assert found["vit_s_16"] - found["resnet18"] == {"cp-lrp", "lxt", "lxt, efficient"}
    assert found["resnet18"] < found["vit_s_16"]


@pytest.mark.parametrize("name", [FLEX, "cp-lrp", "zennit"])
def test_a_new_transformer_has_relevance(name: str) -> None:
    """Torchvision's head begins with weights of 0."""
    setup = new_setup("vit_s_16", 3, 1, 32, training=False)
    (workload,) = (w for w in explanations("vit_s_16") if w.name == name)
    heatmap = workload.make(setup)()
    assert heatmap.isfinite().all()
    assert heatmap.any()


def test_processor_time_does_not_pass_while_nothing_is_computed() -> None:
    idle = Workload("idle", lambda setup: lambda: time.sleep(0.05) or torch.zeros(()))
    case = Case("step", "convnet", 2, 1, 32, (idle,), ())
    for clock in ("wall", "processor"):
        settings = BenchmarkSettings(rounds=2, clock=clock)
        (measured,) = measure_group((case,), settings)
        assert (measured.seconds.median < 0.04) == (clock == "processor")


def test_peak_memory_is_what_is_allocated_at_one_time() -> None:
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
        ({"clock": "cpu"}, "unknown clock 'cpu'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"only": []}, "only must name at least one"),
    ],
)
def test_invalid_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchmarkSettings(**change)
