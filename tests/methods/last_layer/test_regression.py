"""Logistic regression on balanced subsets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from faster_isnet.methods.last_layer.regression import (
    GroupedFeatures,
    LinearFit,
    fit_balanced,
    fit_logistic,
)


def made(sizes: tuple[int, ...], width: int = 5, classes: int = 2, seed: int = 0):
    """Groups of these sizes; a class shifts the first feature, a group the second."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % classes
    features = rng.normal(size=(len(groups), width))
    features[:, 0] += 1.5 * labels
    features[:, 1] += groups
    return GroupedFeatures(features, labels, groups)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [0.03, 0.3, 3.0])
def test_it_is_the_minimum(classes: int, strength: float) -> None:
    """By the conditions of a minimum, which there is one of, as the problem is convex."""
    data = made((20, 25, 30, 15, 20, 30), classes=classes)
    fit = fit_logistic(data, classes, strength)
    p = softmax(data.features @ fit.weight.T + fit.bias, axis=1)
    error = strength * (p - np.eye(classes)[data.labels])
    gradient = error.T @ data.features
    np.testing.assert_allclose(error.sum(0), 0, atol=1e-2)
    used = fit.weight != 0
    np.testing.assert_allclose(gradient[used], -np.sign(fit.weight[used]), atol=1e-2)
    assert (abs(gradient[~used]) <= 1 + 1e-2).all()
    assert used.any()
    assert not used.all()


def test_a_bias_may_be_left_out() -> None:
    data = made((20, 60))
    assert not fit_logistic(data, 2, 1.0, intercept=False).bias.any()
    assert fit_logistic(data, 2, 1.0).bias.any()


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 100))
def test_subsets_have_as_many_of_each_group_and_halves_all(sizes: list[int], seed: int) -> None:
    data, rng = made(tuple(sizes)), np.random.default_rng(seed)
    subset = data.balanced(rng)
    assert np.bincount(subset.groups, minlength=len(sizes)).tolist() == [min(sizes)] * len(sizes)
    first, second = data.halves(rng)
    counts = [np.bincount(half.groups, minlength=len(sizes)) for half in (first, second)]
    assert counts[0].tolist() == [(size + 1) // 2 for size in sizes]
    assert counts[1].tolist() == [size // 2 for size in sizes]
    rows = np.concatenate([first.features, second.features])
    assert {tuple(row) for row in rows} == {tuple(row) for row in data.features}
    for part in (subset, first):
        found = {tuple(row): label for row, label in zip(data.features, data.labels, strict=True)}
        assert [found[tuple(row)] for row in part.features] == part.labels.tolist()


def test_different_subsets_are_drawn() -> None:
    data, rng = made((30, 3)), np.random.default_rng(0)
    assert not np.array_equal(data.balanced(rng).features, data.balanced(rng).features)


def fitted(data: GroupedFeatures, strengths: tuple[float, ...] = (1.0, 0.1)) -> LinearFit:
    return fit_balanced(data, 2, strengths, 4, np.random.default_rng(0))


def test_logits_do_not_depend_on_the_units_of_features() -> None:
    data = made((40, 40, 10, 10))
    scale, shift = np.array([100.0, 0.01, 3.0, 1.0, 7.0]), np.array([5.0, 0.0, -900.0, 1.0, 0.0])
    other = GroupedFeatures(data.features * scale + shift, data.labels, data.groups)
    one, two = fitted(data), fitted(other)
    np.testing.assert_allclose(
        data.features @ one.weight.T + one.bias,
        other.features @ two.weight.T + two.bias,
        atol=1e-6,
    )


def test_a_feature_that_never_changes_has_no_weight() -> None:
    data = made((20, 20, 20, 20))
    data.features[:, 3] = 2.5
    fit = fitted(data)
    assert np.isfinite(fit.weight).all()
    assert not fit.weight[:, 3].any()


def test_balanced_groups_take_the_weight_from_what_tells_the_group() -> None:
    """The second feature tells the class in 95 % of the images, and nothing in a subset."""
    rng = np.random.default_rng(0)
    shown = np.repeat([0, 1, 0, 1], [190, 190, 10, 10])
    labels = np.repeat([0, 1, 1, 0], [190, 190, 10, 10])
    features = rng.normal(size=(400, 2))
    features[:, 0] += 2 * labels
    features[:, 1] += 4 * shown
    data = GroupedFeatures(features, labels, 2 * labels + shown)
    balanced, standard = fitted(data), fit_logistic(data, 2, 1.0)

    def ratio(fit: LinearFit) -> float:
        difference = abs(fit.weight[1] - fit.weight[0])
        return float(difference[1] / difference[0])

    assert ratio(standard) > 0.7
    assert ratio(balanced) < 0.2
    assert data.worst_accuracy(balanced) > data.worst_accuracy(standard) + 0.1


def test_the_strength_is_that_of_the_best_worst_group() -> None:
    data = made((40, 40, 40, 40))
    assert fitted(data, (1e-6, 1.0)).strength == 1.0  # with the first all weights are 0
    assert fitted(data, (1.0, 1e-6)).strength == 1.0
    assert fitted(data, (0.5, 0.5001)).strength == 0.5  # the first of equal ones


def test_groups_of_one_image_are_fitted() -> None:
    fit = fitted(made((1, 1, 1, 1)))
    assert np.isfinite(fit.weight).all()
    assert fit.strength == 1.0
