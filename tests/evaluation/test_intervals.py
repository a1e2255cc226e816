"""Resampling groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faster_isnet.evaluation.intervals import (
    Score,
    mean_score,
    original_and_resamples,
    percentiles,
    resample,
    with_exact_ends,
)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20), st.integers(0, 100))
def test_groups_are_drawn_whole_and_as_many_as_there_are(groups: list[str], seed: int) -> None:
    drawn = resample(len(groups), groups, resamples=20, seed=seed)
    assert drawn.shape == (20, len(groups))
    by_group = {name: drawn[:, [g == name for g in groups]] for name in set(groups)}
    assert all((counts == counts[:, :1]).all() for counts in by_group.values())
    assert (sum(counts[:, 0] for counts in by_group.values()) == len(by_group)).all()
    assert np.array_equal(drawn, resample(len(groups), groups, resamples=20, seed=seed))


def test_single_images_are_drawn_as_a_bootstrap_does() -> None:
    """Their mean's spread is the standard error."""
    values = np.random.default_rng(0).normal(size=200)
    means = resample(200, resamples=4000) @ values / 200
    assert means.mean() == pytest.approx(values.mean(), abs=5e-3)
    assert means.std() == pytest.approx(values.std() / 200**0.5, rel=0.05)


def test_percentiles() -> None:
    values = np.linspace(0, 1, 101)
    assert percentiles(values) == pytest.approx((0.025, 0.975))
    assert percentiles(values, 0.5) == pytest.approx((0.25, 0.75))
    few = np.where(values < 0.03, np.nan, values)
    assert percentiles(few) == pytest.approx((0.03 + 0.025 * 0.97, 1 - 0.025 * 0.97), abs=1e-3)
    assert percentiles(np.where(values < 0.1, np.nan, values)) is None


@pytest.mark.parametrize("level", [0, 1.2, float("nan")])
def test_levels_are_checked(level: float) -> None:
    with pytest.raises(ValueError, match="level must be"):
        percentiles([0.5], level)


@given(st.integers(1, 400), st.sampled_from([0.8, 0.95]), st.booleans())
def test_a_share_of_all_or_none_has_the_exact_interval(
    cases: int, level: float, all_: bool
) -> None:
    """The end is the share that would give as many of as many with probability (1 - level) / 2."""
    value = float(all_)
    found = with_exact_ends(Score(value, value, value), [cases], level)
    end = found.low if all_ else 1 - found.high  # type: ignore[operator]
    assert end**cases == pytest.approx((1 - level) / 2)  # type: ignore[operator]
    assert (found.high if all_ else found.low) == value


def test_other_intervals_stay() -> None:
    for found in (Score(1.0, 0.9, 1.0), Score(0.5, 0.5, 0.5), Score(None, reason="none")):
        assert with_exact_ends(found, [12], 0.95) == found
    assert with_exact_ends(Score(1.0, 1.0, 1.0), [0], 0.95).low == 1  # of nothing


def test_a_mean_of_shares_has_the_mean_of_their_ends() -> None:
    few, many = (with_exact_ends(Score(1.0, 1.0, 1.0), [n], 0.95).low for n in (2, 50))
    both = with_exact_ends(Score(1.0, 1.0, 1.0), [2, 50, 0], 0.95).low
    assert both == pytest.approx((few + many) / 2)  # type: ignore[operator]


def test_cases_are_groups() -> None:
    """Five groups of four images that are all right are five cases, not twenty."""
    groups = [f"patient {number // 4}" for number in range(20)]
    weights = original_and_resamples(20, groups, 200)
    assert mean_score(np.ones(20), weights, 0.95, is_share=True).low == pytest.approx(
        0.025 ** (1 / 5)
    )
    half = weights * (np.arange(20) < 8)  # of two of them
    assert mean_score(np.zeros(20), half, 0.95, is_share=True).high == pytest.approx(
        1 - 0.025 ** (1 / 2)
    )
    assert mean_score(np.full(20, 0.5), weights, 0.95, is_share=True).low == 0.5
    assert mean_score(np.ones(20), weights, 0.95).low == 1  # such as a size in pixels


def test_images_without_a_value_are_left_out_of_its_mean() -> None:
    weights = original_and_resamples(4, None, 50, 0)
    values = np.array([0.0, 1.0, np.nan, 1.0])
    found = mean_score(values, weights, 0.95)
    assert found == mean_score(values[[0, 1, 3]], weights[:, [0, 1, 3]], 0.95)
    assert found.value == pytest.approx(2 / 3)
    assert mean_score(np.full(4, np.nan), weights, 0.95).reason == "there are no such images"
