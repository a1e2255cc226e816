"""DeLong's intervals and test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from faster_isnet.evaluation.delong import auc_difference, auc_interval, aucs

# Hanley and McNeil, Radiology 143, 1982, table 1: how surely 109 CT images were rated abnormal.
RATINGS = {False: [33, 6, 6, 11, 2], True: [3, 2, 2, 11, 33]}
ABNORMAL = np.repeat([False, True], [58, 51])
RATING = np.concatenate([np.repeat(np.arange(1, 6), counts) for counts in RATINGS.values()])


def by_pairs(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The formulas as DeLong et al. write them, over all pairs."""
    wins = [
        np.sign(s[positive][:, None] - s[~positive][None]) / 2 + 0.5
        for s in scores.astype(np.float64)
    ]
    m, n = wins[0].shape
    v10, v01 = (np.stack([w.mean(axis) for w in wins]) for axis in (1, 0))
    theta = np.array([w.mean() for w in wins])
    s10 = (v10 - theta[:, None]) @ (v10 - theta[:, None]).T / (m - 1)
    s01 = (v01 - theta[:, None]) @ (v01 - theta[:, None]).T / (n - 1)
    return theta, s10 / m + s01 / n


def test_a_published_example() -> None:
    """Area, standard error and interval as Stata's manual prints them ([R] roctab, DeLong)."""
    (area,), ((variance,),) = aucs(ABNORMAL, [RATING])
    assert area == pytest.approx(0.8932, abs=5e-5)
    assert np.sqrt(variance) == pytest.approx(0.0307, abs=5e-5)
    half = 1.959964 * np.sqrt(variance)
    assert_allclose([area - half, area + half], [0.83295, 0.95339], atol=5e-6)


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 30), st.integers(1, 12))
def test_ranks_say_what_all_pairs_do(seed: int, m: int, n: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.repeat([True, False], [m, n]))
    scores = rng.integers(0, values, (3, m + n))  # with ties
    areas, covariance = aucs(positive, scores)
    expected = by_pairs(positive, scores)
    assert_allclose(areas, expected[0], atol=1e-12)
    assert_allclose(covariance, expected[1], atol=1e-12)
    assert_allclose(areas, [roc_auc_score(positive, s) for s in scores], atol=1e-12)


def test_what_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    scores = rng.normal(size=60) + positive
    found = auc_interval(positive, scores)
    order = rng.permutation(60)
    assert_allclose(auc_interval(positive[order], scores[order]), found)
    assert_allclose(auc_interval(positive, np.exp(scores)), found)
    turned = auc_interval(~positive, scores)
    assert_allclose(turned, [1 - found[0], 1 - found[2], 1 - found[1]])


def test_intervals_narrow_with_the_images_and_widen_with_the_level() -> None:
    few, many = (
        auc_interval(ABNORMAL, RATING),
        auc_interval(*(np.tile(x, 9) for x in (ABNORMAL, RATING))),
    )
    assert few[1] < many[1] < few[0] < many[2] < few[2]
    wide = auc_interval(ABNORMAL, RATING, 0.99)
    assert wide[1] < few[1]
    assert few[2] < wide[2] < 1


def test_areas_of_one_and_zero_have_an_interval() -> None:
    positive = np.repeat([True, False], [20, 50])
    area, low, high = auc_interval(positive, positive)
    assert (area, high) == (1, 1)
    assert low == pytest.approx(0.025 ** (1 / 20))
    assert_allclose(auc_interval(positive, ~positive), [0, 0, 1 - low])


def test_a_difference() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(200) < 0.5
    common = rng.normal(size=200)
    good, bad = positive * 2 + common, positive * 0.5 + common
    found = auc_difference(positive, good, bad)
    assert found.value == pytest.approx(
        roc_auc_score(positive, good) - roc_auc_score(positive, bad)
    )
    assert found.low > 0
    assert found.p < 1e-4
    back = auc_difference(positive, bad, good)
    assert_allclose([-back.value, -back.high, -back.low, back.p], found)
    assert auc_difference(positive, good, good * 3) == (0, 0, 0, 1)


@given(st.integers(0, 10_000))
def test_the_p_is_that_of_the_interval_that_ends_at_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = np.repeat([True, False], 20)
    first, second = rng.normal(size=(2, 40)) + 0.5 * positive
    found = auc_difference(positive, first, second)
    if 1e-6 < found.p < 1:
        just = auc_difference(positive, first, second, level=1 - found.p)
        assert min(abs(just.low), abs(just.high)) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_intervals_cover_as_they_promise() -> None:
    """2,000 draws from a binormal model whose area is known."""
    rng, hits, tests = np.random.default_rng(2), 0, 0
    truth = 0.9213503964748575  # Φ(2 / √2)
    positive = np.repeat([True, False], [40, 60])
    for _ in range(2000):
        scores = rng.normal(size=100) + 2 * positive
        _, low, high = auc_interval(positive, scores)
        hits += low <= truth <= high
        tests += auc_difference(positive, rng.normal(size=100) + 2 * positive, scores).p < 0.05
    assert abs(hits / 2000 - 0.95) < 0.015
    assert abs(tests / 2000 - 0.05) < 0.015


@pytest.mark.parametrize(
    ("positive", "scores", "message"),
    [
        ([1, 0, 0], [[0.5, 0.1, 0.2]], "two images with the class and two without, got 1 and 2"),
        ([1, 1, 0, 0], [[0.5, np.nan, 0.2, 0.1]], "NaN or infinite"),
        ([1, 1, 0, 0], [0.5, 0.1, 0.2, 0.1], r"got \[4\] and \[4\]"),
    ],
)
def test_bad_input(positive: list[int], scores: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aucs(positive, scores)
