"""What is explained."""

from __future__ import annotations

import pytest
import torch

from faster_isnet.quantities import (
    all_logits,
    build_quantity,
    highest_log_odds,
    highest_logit,
    lowest_eta,
    random_logit,
)


@pytest.mark.parametrize("delta", [1e-2, 1e-4, 0.0])
def test_eta_is_its_formula(delta: float) -> None:
    logits = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    p = logits.softmax(1).gather(1, logits.argmin(1, keepdim=True))
    expected = (p + delta).log() - (1 - p + delta).log()
    torch.testing.assert_close(lowest_eta(logits, delta), expected)
    assert torch.autograd.gradcheck(lambda y: lowest_eta(y, delta), logits)


@pytest.mark.parametrize("delta", [1e-2, 0.0])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_eta_of_saturated_logits_is_finite(size: float, delta: float) -> None:
    logits = torch.tensor([[size, 0.0, -size], [0.0, 0.0, 0.0]], requires_grad=True)
    eta = lowest_eta(logits, delta)
    (gradient,) = torch.autograd.grad(eta.sum(), logits)
    assert eta.isfinite().all()
    assert gradient.isfinite().all()


def test_log_odds_do_not_change_when_all_logits_shift() -> None:
    logits = torch.randn(20, 5, dtype=torch.float64)
    p = logits.softmax(1).amax(1, keepdim=True)
    torch.testing.assert_close(highest_log_odds(logits), (p / (1 - p)).log())
    torch.testing.assert_close(highest_log_odds(logits + 3), highest_log_odds(logits))


def test_highest_and_all() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0]])
    assert highest_logit(logits).tolist() == [[4]]
    assert all_logits(logits).tolist() == [[7]]
    assert torch.equal(build_quantity("all-classes")(logits), logits)


def test_the_random_logit_is_the_highest_half_of_the_time() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0]).expand(20000, 4)
    drawn = random_logit(logits).long().flatten().bincount(minlength=4) / 20000
    torch.testing.assert_close(drawn, torch.tensor([1, 1, 1, 3]) / 6, atol=0.015, rtol=0)


def test_targets() -> None:
    logits = torch.arange(6.0).reshape(2, 3)
    assert build_quantity(1)(logits).tolist() == [[1], [4]]
    assert build_quantity(torch.tensor([2, 0]))(logits).tolist() == [[2], [3]]
    assert build_quantity(None) is highest_logit
    assert build_quantity(all_logits) is all_logits


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("lowest-etta", ValueError, "did you mean 'lowest-eta'"),
        (True, TypeError, "got bool: True"),
        (1.5, TypeError, "got float: 1.5"),
        (torch.tensor([0.0, 1.0]), TypeError, "got dtype torch.float32"),
        (3, ValueError, "target 3 is out of range: the model has 3 classes"),
        (-1, ValueError, "target -1 is out of range"),
        (torch.tensor([0, 1, 2]), ValueError, r"shape \[2\], got \[3\]"),
    ],
)
def test_bad_targets_are_named(target: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build_quantity(target)(torch.arange(6.0).reshape(2, 3))
