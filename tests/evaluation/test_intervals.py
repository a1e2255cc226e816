"""Resampling groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faster_isnet.evaluation.intervals import percentiles, resample


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
