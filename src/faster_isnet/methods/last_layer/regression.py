"""Fit a linear layer by logistic regression on subsets in which all groups are equally frequent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_MOST_STEPS = 1000  # of L-BFGS-B; some tens suffice


@dataclass(frozen=True)
class LinearFit:
    """Hold a linear layer from features to logits.

    Attributes
    ----------
    weight
        ``[K, D]``.
    bias
        ``[K]``.
    strength
        C that it was fitted with.
    """

    weight: Floats
    bias: Floats
    strength: float


@dataclass(frozen=True)
class GroupedFeatures:
    """Hold the features of images, with their classes and groups.

    Attributes
    ----------
    features
        ``[N, D]``.
    labels
        ``[N]``, from 0.
    groups
        ``[N]``, a number for each group.
    """

    features: Floats
    labels: Integers
    groups: Integers

    def take(self, indices: Integers) -> GroupedFeatures:
        """Return some of them."""
        return GroupedFeatures(self.features[indices], self.labels[indices], self.groups[indices])

    def balanced(self, rng: np.random.Generator) -> GroupedFeatures:
        """Draw as many of each group as the smallest has."""
        members = [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]
        smallest = min(map(len, members))
        return self.take(np.concatenate([rng.permutation(each)[:smallest] for each in members]))

    def halves(self, rng: np.random.Generator) -> tuple[GroupedFeatures, GroupedFeatures]:
        """Divide each group at random; where the number is odd, the first half has one more."""
        parts: tuple[list[Integers], list[Integers]] = ([], [])
        for group in np.unique(self.groups):
            shuffled = rng.permutation(np.flatnonzero(self.groups == group))
            for part, half in zip(parts, np.array_split(shuffled, 2), strict=True):
                part.append(half)
        first, second = map(np.concatenate, parts)
        return self.take(first), self.take(second)

    def worst_accuracy(self, fit: LinearFit) -> float:
        """Return the lowest accuracy of a group; 1 without images."""
        right = (self.features @ fit.weight.T + fit.bias).argmax(1) == self.labels
        return min((right[self.groups == g].mean() for g in np.unique(self.groups)), default=1.0)


def fit_balanced(
    data: GroupedFeatures,
    classes: int,
    strengths: Sequence[float],
    subsets: int,
    rng: np.random.Generator,
    *,
    intercept: bool = True,
) -> LinearFit:
    """Fit a linear layer by logistic regression with an L1 penalty, averaged over subsets.

    Features are standardised for it, which is undone in what is returned. Of ``strengths``, the
    one is taken that has the best accuracy in its worst group, the first of equal ones, where half
    of each group is fitted and the other half is predicted.

    Parameters
    ----------
    data
        All images.
    classes
        K; each class has images.
    strengths
        Values of C, see :func:`fit_logistic`.
    subsets
        How many balanced subsets are drawn.
    rng
        Of what is drawn.
    intercept
        Whether there is a bias; without, it is 0.
    """
    mean = data.features.mean(0) if intercept else np.zeros(data.features.shape[1])
    deviation = data.features.std(0)
    scale = np.where(deviation > 0, deviation, 1.0)
    standard = GroupedFeatures((data.features - mean) / scale, data.labels, data.groups)
    fitted, others = standard.halves(rng)
    balanced = fitted.balanced(rng)
    trials = [fit_logistic(balanced, classes, each, intercept=intercept) for each in strengths]
    strength = max(trials, key=others.worst_accuracy).strength
    fits = [
        fit_logistic(standard.balanced(rng), classes, strength, intercept=intercept)
        for _ in range(subsets)
    ]
    weight = np.mean([fit.weight for fit in fits], 0) / scale
    return LinearFit(weight, np.mean([fit.bias for fit in fits], 0) - weight @ mean, strength)


def fit_logistic(
    data: GroupedFeatures, classes: int, strength: float, *, intercept: bool = True
) -> LinearFit:
    """Minimise C · Σ cross-entropy + ‖W‖₁ over a linear layer's weights W and bias.

    The bias has no penalty. W is the difference of two matrices that are not negative, so that the
    penalty is linear and the problem one with bounds, for SciPy's L-BFGS-B.

    Parameters
    ----------
    data
        ``N`` images.
    classes
        K.
    strength
        C > 0: the smaller, the more weights are 0.
    intercept
        Whether there is a bias.

    Examples
    --------
    >>> data = GroupedFeatures(np.array([[-1.0], [1.0]]), np.array([0, 1]), np.array([0, 1]))
    >>> fit_logistic(data, 2, 0.1).weight.tolist()
    [[0.0], [0.0]]
    >>> weight = fit_logistic(data, 2, 10.0).weight
    >>> bool(weight[1, 0] > weight[0, 0])
    True
    """
    count, width = data.features.shape
    size = classes * width
    targets = np.eye(classes)[data.labels]
    penalty = 1 / (strength * count)  # the sum over C · N, so that tolerances suit any number

    def weights(values: Floats) -> Floats:
        difference: Floats = values[:size] - values[size : 2 * size]
        return difference.reshape(classes, width)

    def objective(values: Floats) -> tuple[float, Floats]:
        logits = data.features @ weights(values).T + values[2 * size :]
        log_p = log_softmax(logits, axis=1)
        error = (np.exp(log_p) - targets) / count
        of_weights = (error.T @ data.features).ravel()
        gradient = np.concatenate([penalty + of_weights, penalty - of_weights, error.sum(0)])
        loss = -(targets * log_p).sum() / count + penalty * values[: 2 * size].sum()
        return float(loss), gradient

    limits = [(0, None)] * (2 * size) + [(None, None) if intercept else (0, 0)] * classes
    start = np.zeros(2 * size + classes)
    options = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "ftol": 1e-10, "gtol": 1e-6}
    found = minimize(
        objective, start, method="L-BFGS-B", jac=True, bounds=limits, options=options
    ).x
    return LinearFit(weights(found), found[2 * size :], strength)
