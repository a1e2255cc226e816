"""Intervals over runs hold what they say, over folds as well."""

import numpy as np
import pytest

from faster_isnet.study.statistics import mean_score


def test_folds_that_share_their_training_images_have_wider_intervals() -> None:
    values = [0.7, 0.8, 0.9, 0.8, 0.7]
    plain, folds = mean_score(values), mean_score(values, test_to_train=0.25)
    assert folds.value == plain.value
    wider = (folds.high - folds.value) / (plain.high - plain.value)
    assert wider == pytest.approx(np.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_values_as_correlated_as_folds_are_covered() -> None:
    """Of correlation 1 / folds, by which Nadeau and Bengio's correction is exact."""
    rng, folds, rows = np.random.default_rng(0), 5, 2000
    common = rng.normal(0, np.sqrt(1 / folds), (rows, 1))
    values = common + rng.normal(0, np.sqrt(1 - 1 / folds), (rows, folds))
    covered = {
        given: np.mean(
            [
                s.low <= 0 <= s.high
                for s in (mean_score(list(v), test_to_train=given) for v in values)
            ]
        )
        for given in (None, 1 / (folds - 1))
    }
    assert covered[1 / (folds - 1)] == pytest.approx(0.95, abs=0.02)
    assert covered[None] < 0.9
