"""What is explained (method §3)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer
from faster_isnet.explaining.targets import (
    QUANTITIES,
    all_classes,
    all_logits,
    build_quantity,
    highest_log_odds,
    highest_logit,
    lowest_eta,
    random_logit,
)

DRAWS = 20000


def gradient(quantity: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(quantity.sum(), logits)[0]


@pytest.mark.parametrize("delta", [1.0, 1e-2, 1e-4, 0.0])
def test_eta_is_its_formula(delta: float) -> None:
    logits = 3 * torch.randn(20, 5, dtype=torch.float64)
    logits.requires_grad_()
    p = logits.softmax(1).gather(1, logits.argmin(1, keepdim=True))
    expected = (p + delta).log() - (1 - p + delta).log()
    torch.testing.assert_close(lowest_eta(logits, delta), expected)
    assert torch.autograd.gradcheck(lambda y: lowest_eta(y, delta), logits)


def test_eta_has_the_papers_delta() -> None:
    logits = torch.tensor([[3.0, -3.0]])
    assert torch.equal(lowest_eta(logits), lowest_eta(logits, 1e-2))
    assert torch.equal(build_quantity("lowest-eta")(logits), lowest_eta(logits, 1e-2))


@pytest.mark.parametrize("delta", [1e-2, 0.0])
def test_eta_is_of_the_lowest_class(delta: float) -> None:
    logits = torch.randn(50, 4, requires_grad=True)
    g = gradient(lowest_eta(logits, delta), logits)
    others = torch.ones_like(g).scatter(1, logits.argmin(1, keepdim=True), 0).bool()
    assert (g[~others] > 0).all()
    assert (g[others] < 0).all()
    torch.testing.assert_close(lowest_eta(logits + 7, delta), lowest_eta(logits, delta))
    torch.testing.assert_close(g.sum(1), torch.zeros(50))  # a shift changes nothing


@pytest.mark.parametrize("delta", [1e-2, 0.0])
@pytest.mark.parametrize("size", [1e2, 1e4])
@pytest.mark.parametrize("logits", [[1, 0, -1], [0, 0, 0], [1, 1, -1], [1, -1, -1], [-1, -1, -1]])
def test_eta_of_saturated_logits_is_finite(logits: list[int], size: float, delta: float) -> None:
    y = (size * torch.tensor([logits], dtype=torch.float32)).requires_grad_()
    eta = lowest_eta(y, delta)
    assert eta.isfinite().all()
    assert gradient(eta, y).isfinite().all()


@pytest.mark.parametrize("margin", [10.0, 51.0, 88.0, 95.0, 510.0, 1e4, 1e7, 1e20])
@pytest.mark.parametrize("delta", [1e-2, 1e-4, 0.0])
def test_etas_gradient_has_a_finite_gradient_at_any_margin(margin: float, delta: float) -> None:
    """As the loss of a heatmap needs it: the network that is sure of itself trains on."""
    logits = torch.tensor([[margin, 0.3, 0.0], [0.0, margin, margin]])
    exact = logits.double().requires_grad_()
    logits.requires_grad_()
    seconds = []
    for y in (logits, exact):
        (g,) = torch.autograd.grad(lowest_eta(y, delta).sum(), y, create_graph=True)
        seconds.append(torch.autograd.grad((g * torch.tensor([1.0, -2.0, 3.0])).sum(), y)[0])
    assert seconds[0].isfinite().all()
    torch.testing.assert_close(seconds[0].double(), seconds[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_eta_of_saturated_logits_is_its_limit(size: float) -> None:
    y = torch.tensor([[size, 0.0, -size]], requires_grad=True)
    without_delta = lowest_eta(y, 0.0)
    torch.testing.assert_close(without_delta, torch.tensor([[-2 * size]]))
    torch.testing.assert_close(gradient(without_delta, y), torch.tensor([[-1.0, 0.0, 1.0]]))
    bounded = torch.tensor([[0.01 / 1.01]]).log()  # p = 0
    torch.testing.assert_close(lowest_eta(y, 1e-2), bounded)


@pytest.mark.parametrize("delta", [-0.1, float("nan")])
def test_delta_is_checked(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        lowest_eta(torch.randn(2, 3), delta)


def test_log_odds_do_not_change_when_all_logits_shift() -> None:
    logits = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    p = logits.softmax(1).amax(1, keepdim=True)
    torch.testing.assert_close(highest_log_odds(logits), (p / (1 - p)).log())
    torch.testing.assert_close(highest_log_odds(logits + 3), highest_log_odds(logits))
    assert torch.autograd.gradcheck(highest_log_odds, logits)
    saturated = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    assert highest_log_odds(saturated).tolist() == [[1e4]]
    assert gradient(highest_log_odds(saturated), saturated).tolist() == [[1, -1, 0]]


def test_highest_and_all() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0], [0.0, -1.0, -2.0]], requires_grad=True)
    assert highest_logit(logits).tolist() == [[4], [0]]
    assert gradient(highest_logit(logits), logits).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert all_logits(logits).tolist() == [[7], [-3]]
    assert torch.equal(all_classes(logits), logits)


@pytest.mark.parametrize("highest", [0, 2, 3])
def test_the_random_logit_is_the_highest_half_of_the_time(highest: int) -> None:
    logits = torch.arange(4.0)
    logits[highest] = 9
    drawn = random_logit(logits.expand(DRAWS, 4)).flatten()
    counts = torch.stack([(drawn == value).sum() for value in logits])
    assert counts.sum() == DRAWS  # nothing but logits
    expected = torch.full((4,), DRAWS / 6)
    expected[highest] = DRAWS / 2
    chi_square = ((counts - expected).square() / expected).sum()
    assert chi_square < 16.3  # 3 degrees of freedom: one seed in a thousand


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_random_logit_is_sampled_for_each_sample(classes: int) -> None:
    logits = torch.arange(200.0 * classes).reshape(200, classes).requires_grad_()
    drawn = random_logit(logits)
    assert drawn.shape == (200, 1)
    one_hot = gradient(drawn, logits)
    assert (one_hot.sum(1) == 1).all()
    assert ((one_hot == 0) | (one_hot == 1)).all()
    torch.testing.assert_close((logits * one_hot).sum(1, keepdim=True), drawn)
    assert one_hot.any(0).all()  # every class comes up: not one draw for the whole batch


@pytest.mark.parametrize("classes", [2, 5])  # with two, only the coin is drawn
def test_the_random_logit_follows_the_seed(classes: int) -> None:
    logits = torch.randn(100, classes)
    torch.manual_seed(1)
    first, second = random_logit(logits), random_logit(logits)
    torch.manual_seed(1)
    assert torch.equal(random_logit(logits), first)
    assert not torch.equal(first, second)


def test_names_are_those_of_the_functions() -> None:
    for name, quantity in QUANTITIES.items():
        assert build_quantity(name) is quantity
        assert quantity.__name__ == name.replace("-", "_")


@pytest.mark.parametrize("name", sorted(QUANTITIES))
def test_every_quantity_has_its_scalars_for_each_sample(name: str) -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    q = build_quantity(name)(logits)
    assert q.shape == (3, 4 if name == "all-classes" else 1)
    assert not gradient(q[1], logits)[[0, 2]].any()  # samples do not mix


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_targets_of_classes(dtype: torch.dtype) -> None:
    logits = torch.arange(6.0).reshape(2, 3).requires_grad_()
    assert build_quantity(torch.tensor([2, 0], dtype=dtype))(logits).tolist() == [[2], [3]]
    assert build_quantity(torch.tensor(1, dtype=dtype))(logits).tolist() == [[1], [4]]
    assert build_quantity(1)(logits).tolist() == [[1], [4]]
    assert build_quantity(0)(logits).tolist() == [[0], [3]]
    assert gradient(build_quantity(1)(logits), logits).tolist() == [[0, 1, 0], [0, 1, 0]]


def test_other_targets() -> None:
    def twice(logits: Tensor) -> Tensor:
        return 2 * logits

    assert build_quantity(None) is highest_logit
    assert build_quantity(twice) is twice


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("lowest-etta", ValueError, "unknown target 'lowest-etta'; did you mean 'lowest-eta'"),
        ("Random-Logit", ValueError, "did you mean 'random-logit'"),
        (
            "zzz",
            ValueError,
            "unknown target 'zzz'; Known: 'all-classes', 'all-log-probabilities', 'all-logits'",
        ),
        (True, TypeError, "a class index, an integer tensor .* got bool: True"),
        (1.5, TypeError, "a class index, an integer tensor .* got float: 1.5"),
        ([0.5, 1], TypeError, "class indices .* got dtype torch.float64"),
        (torch.tensor([0.0, 1.0]), TypeError, "class indices .* got dtype torch.float32"),
        (torch.tensor([True, False]), TypeError, "class indices .* got dtype torch.bool"),
        (torch.tensor([0j, 1]), TypeError, "class indices .* got dtype torch.complex64"),
        (3, ValueError, "target 3 is out of range: the model has 3 classes, 0 to 2"),
        (-1, ValueError, "target -1 is out of range"),
        (torch.tensor([0, 3]), ValueError, "target 3 is out of range"),
        (torch.tensor([0, 1, 2]), ValueError, r"one class a sample, shape \[2\], got \[3\]"),
        (torch.tensor([[0], [1]]), ValueError, r"shape \[2\], got \[2, 1\]"),
    ],
)
def test_bad_targets_are_named(target: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build_quantity(target)(torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "quantity",
    [
        pytest.param(lambda y: y[:, 0], id="[B]"),
        pytest.param(lambda y: y.sum(), id="[]"),
        pytest.param(lambda y: y.T, id="[K, B]"),
        pytest.param(lambda y: [y], id="list"),
    ],
)
def test_what_a_function_returns_is_checked(quantity: object) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises((TypeError, ValueError), match=r"target .*\[B, K\]"):
        Explainer(model)(torch.rand(5, 1, 2, 2), quantity)
