"""Training by several processes, each with its share of every batch (DistributedDataParallel)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddp_run import BY_HAND, CASES, PROCESSES, SHARDED, Case, fit, gradients

ACCELERATORS = [
    "cpu",
    pytest.param(
        "gpu",
        marks=pytest.mark.skipif(
            torch.cuda.device_count() < PROCESSES, reason="needs a CUDA device for each process"
        ),
    ),
]

Found = Callable[[str], list[dict[str, Any]]]
"""What each process has found in a case."""


@pytest.fixture(scope="module", params=ACCELERATORS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    out = tmp_path_factory.mktemp("ddp")
    script = Path(__file__).with_name("ddp_run.py")
    command = [sys.executable, str(script), str(out), request.param]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr

    def load(name: str) -> list[dict[str, Any]]:
        paths = [out / f"{name} {rank}.pt" for rank in range(PROCESSES)]
        return [torch.load(path, weights_only=False) for path in paths]

    return load


def joined(case: Case) -> dict[str, Tensor]:
    """Return the gradients of one process that has the whole batch."""
    lit, (images, labels, masks) = case.lit(), case.data().tensors
    if case.heatmap_weight == 0:
        lit.criterion.classify(lit(images), labels).backward()
    else:
        lit.criterion(lit.net.explain(images), labels, masks).total.backward()
    return gradients(lit.net)


def in_shares(case: Case) -> dict[str, Tensor]:
    """Return the same, of batches as they are shared out: each process draws like the others."""
    lit = case.lit()
    for rank in range(PROCESSES):
        torch.manual_seed(2)
        images, labels, masks = (t[rank::PROCESSES] for t in case.data().tensors)
        parts = lit.criterion(lit.net.explain(images), labels, masks)
        (parts.total / PROCESSES).backward()
    return gradients(lit.net)


def check_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check that gradients are the same to 1e-5 of the largest."""
    assert set(found) == set(expected)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        difference = (found[name] - gradient).abs().max() / largest
        assert difference < 1e-5, f"{name} differs by {difference:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if not CASES[name].auto])
def test_the_gradients_are_those_of_the_joined_batch(found: Found, name: str) -> None:
    case = CASES[name]
    expected = (in_shares if case.variant == "stochastic" else joined)(case)
    assert len(expected) == len(list(case.lit().net.parameters()))
    for process in found(name):
        check_equal(process["gradients"], expected)


@pytest.mark.slow
def test_synchronised_batch_norms_keep_the_statistics_of_all(found: Found) -> None:
    case = CASES["dual, synchronised"]
    lit = case.lit()
    lit.net(case.data().tensors[0])
    for process in found("dual, synchronised"):
        for name, buffer in lit.net.named_buffers():
            torch.testing.assert_close(process["buffers"][name], buffer)


@pytest.mark.slow
def test_all_processes_calibrate_together(found: Found) -> None:
    _, alone = fit(CASES["calibration"], accelerator="cpu")
    first, *others = (process["sizes"] for process in found("calibration"))
    assert all(other == first for other in others)
    torch.testing.assert_close(first.mean, alone["sizes"].mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(first.std, alone["sizes"].std, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_logged_values_are_means_over_the_samples_of_all(found: Found) -> None:
    _, alone = fit(CASES["selective"], accelerator="cpu")
    first, *_ = (process["logged"] for process in found("selective"))
    for process in found("selective"):
        assert set(process["logged"]) == set(alone["logged"])
        for name, value in alone["logged"].items():
            # Noise and other images' backgrounds are drawn by the batch, which is a share here.
            drawn = any(kind in name for kind in ("noise", "other_image", "worst", "error"))
            torch.testing.assert_close(process["logged"][name], first[name] if drawn else value)


@pytest.mark.slow
def test_a_process_without_masks_logs_what_the_other_finds(found: Found) -> None:
    first, second = (process["logged"] for process in found("masks on one process"))
    assert {"val/accuracy_zeros", "val/accuracy_other_image", "val/background_error"} <= set(first)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("shard", SHARDED.values())
@pytest.mark.parametrize("name", BY_HAND)
def test_a_step_without_lightning_has_the_same_gradients(
    found: Found, name: str, shard: str
) -> None:
    expected = joined(CASES[name])
    for process in found(f"{name}, {shard}"):
        check_equal(process["gradients"], expected)


@pytest.mark.slow
def test_each_process_resumes_with_its_own_random_numbers(found: Found) -> None:
    for whole, resumed in zip(found("whole"), found("resumed"), strict=True):
        for name, value in whole.items():
            assert torch.equal(resumed[name], value), name
