"""The rules of LRP: how a linear layer's output shares its relevance among its inputs.

Each contribution a_j w_jk is positive or negative; what a layer's output k is made of is known by
three sums over j, biases included: z of all, Z⁺ of the positive and Z⁻ of the negative ones. A rule
says what every unit of contribution of either kind receives of the relevance R_k. Everything else
(which layers there are, batch norms fused with them, where the contributions come from) is the
engine's work, see :mod:`~faster_isnet.relevance.layer_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from faster_isnet.common.checks import check_range
from faster_isnet.relevance.activations import stabilise, stabilise_nonnegative


class Sums(NamedTuple):
    """What a layer's outputs are made of; a sum that the rule does not need may be ``None``.

    Attributes
    ----------
    total
        z, the output itself.
    positive, negative
        Z⁺ ≥ 0 and Z⁻ ≤ 0.
    rectified
        Whether ``total`` is ≥ 0 because negative outputs, which have no relevance, are left out.
    """

    total: Tensor | None
    positive: Tensor | None
    negative: Tensor | None
    rectified: bool = False


class Shares(NamedTuple):
    """Relevance for each unit of contribution: of all, of the positive, of the negative ones.

    A positive contribution receives ``total + positive``, a negative ``total + negative``;
    ``None`` is nothing.
    """

    total: Tensor | None = None
    positive: Tensor | None = None
    negative: Tensor | None = None


@dataclass(frozen=True)
class Rule:
    """How a layer shares the relevance of its outputs. Subclasses say how.

    Parameters
    ----------
    epsilon
        The stabiliser ε ≥ 0, in units of the layer's outputs; it takes relevance away.

    Raises
    ------
    ValueError
        If ε is negative or not finite.
    """

    epsilon: float = 1e-2

    needs_total: ClassVar[bool] = True
    needs_positive: ClassVar[bool] = False
    needs_negative: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_range("epsilon", self.epsilon, 0)

    def share(self, relevance: Tensor, sums: Sums) -> Shares:
        """Share the relevance R of a layer's outputs, of their shape."""
        raise NotImplementedError

    def start(self, logits: Tensor, positive: Tensor | None) -> Tensor:
        """Return what the relevance of the model's last layer starts as, if G there is one."""
        return logits


@dataclass(frozen=True)
class Epsilon(Rule):
    """LRP-ε: R_j = Σ_k a_j w_jk / (z_k + ε·sign z_k) · R_k (Bach et al., PLoS ONE 10(7), 2015).

    Examples
    --------
    >>> r, z = torch.tensor([1.0]), torch.tensor([-3.0])
    >>> Epsilon(1.0).share(r, Sums(z, None, None)).total  # 1 / (-3 - 1)
    tensor([-0.2500])
    """

    def share(self, relevance: Tensor, sums: Sums) -> Shares:
        """Divide by the stabilised output."""
        assert sums.total is not None
        stabilised = stabilise_nonnegative if sums.rectified else stabilise
        return Shares(total=relevance / stabilised(sums.total, self.epsilon))


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """LRP-αβ: R_j = Σ_k [α (a_j w_jk)⁺ / (Z⁺_k + ε) + β (a_j w_jk)⁻ / (Z⁻_k − ε)] R_k.

    See Bach et al., PLoS ONE 10(7), 2015. Here α + β = 1, so that relevance is kept: what others
    write as α = 2, β = 1 is α = 2, β = −1.

    Parameters
    ----------
    alpha, beta
        The weights of the positive and the negative contributions, α + β = 1.

    Raises
    ------
    ValueError
        If α + β is not 1.
    """

    alpha: float = 2.0
    beta: float = -1.0

    needs_total: ClassVar[bool] = False
    needs_positive: ClassVar[bool] = True
    needs_negative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        for name, weight in (("alpha", self.alpha), ("beta", self.beta)):
            check_range(name, weight, -1e6)
        if abs(self.alpha + self.beta - 1) > 1e-6:
            raise ValueError(
                f"alpha + beta must be 1, got alpha={self.alpha}, beta={self.beta}; what is "
                "written as α=2, β=1 elsewhere is alpha=2, beta=-1 here"
            )

    def share(self, relevance: Tensor, sums: Sums) -> Shares:
        """Share α times the relevance among the positive contributions, β among the negative."""
        assert sums.positive is not None
        assert sums.negative is not None
        return Shares(
            positive=self.alpha * relevance / stabilise_nonnegative(sums.positive, self.epsilon),
            negative=-self.beta * relevance / stabilise_nonnegative(-sums.negative, self.epsilon),
        )


@dataclass(frozen=True)
class ZPlus(Rule):
    """LRP-z⁺: R_j = Σ_k (a_j w_jk)⁺ / (Z⁺_k + ε) · R_k (Montavon et al., Pattern Recogn. 65, 2017).

    It is αβ with α = 1, β = 0. The relevance of the last layer starts as Z⁺, the logit that the
    positive weights alone would give (Bassi et al., Nature Communications 15, 291, 2024).
    """

    needs_total: ClassVar[bool] = False
    needs_positive: ClassVar[bool] = True

    def share(self, relevance: Tensor, sums: Sums) -> Shares:
        """Share among the positive contributions."""
        assert sums.positive is not None
        return Shares(positive=relevance / stabilise_nonnegative(sums.positive, self.epsilon))

    def start(self, logits: Tensor, positive: Tensor | None) -> Tensor:
        """Return Z⁺, if the last layer is one that has it."""
        return logits if positive is None else positive


@dataclass(frozen=True)
class Gamma(Rule):
    """LRP-γ: the ε rule with weights w + γ w⁺ (Montavon et al., LNCS 11700, 2019).

    In the general form, which inputs and outputs of either sign may have (Andéol et al., 2021):
    an output z_k > 0 favours the positive contributions, with denominator z + γ Z⁺; an output
    z_k < 0 the negative ones, with z + γ Z⁻.

    Parameters
    ----------
    gamma
        γ ≥ 0; 0 is the ε rule, ∞ would be z⁺.

    Raises
    ------
    ValueError
        If γ is negative or not finite.
    """

    gamma: float = 0.25

    needs_positive: ClassVar[bool] = True
    needs_negative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        check_range("gamma", self.gamma, 0)

    def share(self, relevance: Tensor, sums: Sums) -> Shares:
        """Share among all contributions, and once more among those of the output's sign."""
        assert sums.total is not None
        assert sums.positive is not None
        assert sums.negative is not None
        above = sums.total > 0
        favoured = torch.where(above, sums.positive, sums.negative)
        share = relevance / stabilise(sums.total + self.gamma * favoured, self.epsilon)
        more = self.gamma * share
        return Shares(share, torch.where(above, more, 0), torch.where(above, 0, more))
