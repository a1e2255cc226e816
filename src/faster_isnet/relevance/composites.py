"""Composites: which rule each of a model's layers gets.

A composite is data. LRP-Flex and Gradient × Input are tables from torch functions to what takes
their place while a model is explained; the composites of rules say which rule each layer gets, by
its type, its name or its depth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.relevance.activations import (
    ActivationRule,
    GateRule,
    ReLURule,
    TorchFunction,
    activation_handlers,
    call_unchanged,
)
from faster_isnet.relevance.attention import AttentionRule
from faster_isnet.relevance.concatenations import CONCATENATIONS, ConcatenationRule
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.gates import Gates
from faster_isnet.relevance.hidden import running_module
from faster_isnet.relevance.input_rule import InputRule
from faster_isnet.relevance.interception import ForwardPass, Handler
from faster_isnet.relevance.layer_rules import Layer, LayerRules
from faster_isnet.relevance.linear_layers import linear_layer
from faster_isnet.relevance.linear_maps import LINEAR_CALLS
from faster_isnet.relevance.normalisations import HANDLERS
from faster_isnet.relevance.pools import LP_POOLS
from faster_isnet.relevance.products import with_products
from faster_isnet.relevance.quotients import with_quotients
from faster_isnet.relevance.rules import AlphaBeta, Epsilon, Gamma, Rule, ZPlus

LAYER_TYPES = ("convolution", "dense", "normalisation", "sum", "average_pool", "max_pool")
"""Types of layers that have rules; ``"normalisation"`` is a batch norm behind no linear layer."""


class Composite(ABC):
    """Which rule each of a model's layers gets.

    Attributes
    ----------
    name
        What to call it in messages and settings.
    passes
        How many relevance passes it makes, each with a heatmap of its own.
    input_rule
        The rule for the layers that read the image, unless the user names another; ``None`` for
        the one that a layer has anyway.
    half_precision
        Whether it works under autocast.
    gradient_alone
        Whether a function without a rule passes relevance by its gradient because this is what the
        composite is: then none is unknown to it.
    """

    name: str
    passes: int = 1
    input_rule: str | None = None
    half_precision: bool = False
    gradient_alone: bool = False

    @abstractmethod
    def begin(
        self,
        relevance_pass: RelevancePass,
        running: Callable[[], str],
        input_rule: InputRule | None,
    ) -> ForwardPass:
        """Return what the composite does in one forward pass.

        Parameters
        ----------
        relevance_pass
            The flag of the forward pass.
        running
            Returns the name of the innermost module that runs.
        input_rule
            The rule of what reads the image, if that has one of its own.
        """

    def running_module(self, model: nn.Module) -> AbstractContextManager[Callable[[], str]]:
        """Follow which module runs inside the block, if the composite needs to know."""
        return nullcontext(lambda: "")


@dataclass(frozen=True)
class FunctionComposite(Composite):
    """A composite that treats every call of a function alike.

    Parameters
    ----------
    name
        What to call it.
    table
        For each torch function that needs a rule, what computes it in its place; all others pass
        relevance by their gradient.
    knows_arithmetic
        Whether products, and gates written as arithmetic, have their rules, too.
    """

    name: str
    table: Mapping[TorchFunction, Handler]
    knows_arithmetic: bool = True
    half_precision: ClassVar[bool] = True  # type: ignore[misc]

    @property
    def gradient_alone(self) -> bool:  # type: ignore[override]
        """Whether only what the table names has a rule, as in Gradient × Input."""
        return not self.knows_arithmetic

    def begin(
        self,
        relevance_pass: RelevancePass,
        running: Callable[[], str],
        input_rule: InputRule | None,
    ) -> ForwardPass:
        """Return the table, without what only makes relevance fast to differentiate."""
        table = self.table
        if not relevance_pass.differentiable:
            table = {f: rule for f, rule in table.items() if rule is not linear_layer}
        if self.knows_arithmetic:
            table = with_products(Gates(with_quotients(table)).handlers())
        return ForwardPass(table)


@dataclass(frozen=True)
class LayerComposite(Composite):
    """A composite of rules for layers (method §4).

    A layer gets the rule of the first pattern that its name matches, else that of its depth, else
    that of its type, else none: then it passes G by its gradient, without a stabiliser. Whatever is
    no layer (concatenation, reshaping, dropout) does so, too. ReLU passes relevance on as it is,
    other activations share it with the stabiliser ``epsilon``, and gates get none.

    Parameters
    ----------
    name
        What to call it.
    by_type
        Rules by type of layer, see :data:`LAYER_TYPES`.
    by_depth
        Rules by the number of convolutions and dense layers that have run before; for these only.
    by_name
        Rules by shell-style patterns of module names, such as ``"layer1.*"``.
    input_rule
        For the layers that read the image: see :class:`~faster_isnet.Explainer`.
    epsilon
        The stabiliser of activations other than ReLU.

    Raises
    ------
    ValueError
        If a type of layer is unknown, or the composite has no rule at all; if entries have
        different numbers of rules.
    TypeError
        If something else than a rule, or a tuple of rules, one for each relevance pass, is given.

    Examples
    --------
    >>> mine = LayerComposite(
    ...     "mine",
    ...     by_type={"convolution": Gamma(gamma=0.25), "dense": Epsilon(1e-2)},
    ...     by_depth={0: ZPlus()},
    ...     by_name={"layer4.*": Epsilon(1e-1)},
    ... )
    >>> mine.rules(Layer("convolution", "layer2.0.conv1", 5))
    (Gamma(epsilon=0.01, gamma=0.25),)
    """

    name: str
    by_type: Mapping[str, Rule | Sequence[Rule]] = field(default_factory=dict)
    by_depth: Mapping[int, Rule | Sequence[Rule]] = field(default_factory=dict)
    by_name: Mapping[str, Rule | Sequence[Rule]] = field(default_factory=dict)
    input_rule: str | None = None
    epsilon: float = 1e-2

    def __post_init__(self) -> None:
        """Check what is given."""
        for kind in self.by_type:
            check_choice("type of layer", kind, LAYER_TYPES)
        check_range("epsilon", self.epsilon, 0)
        numbers = {
            len(_each_pass(entry))
            for entries in (self.by_type, self.by_depth, self.by_name)
            for entry in entries.values()
        }
        if len(numbers) != 1:
            raise ValueError(
                f"composite {self.name!r} must have rules, and as many for each layer as there "
                f"are relevance passes; it has entries with {sorted(numbers)} rules"
            )

    @property
    def passes(self) -> int:  # type: ignore[override]
        """How many rules each layer has."""
        entries = (*self.by_type.values(), *self.by_depth.values(), *self.by_name.values())
        return len(_each_pass(entries[0]))

    def rules(self, layer: Layer) -> tuple[Rule, ...] | None:
        """Return a layer's rules, one for each relevance pass, or ``None``."""
        for pattern, entry in self.by_name.items():
            if fnmatchcase(layer.name, pattern):
                return _each_pass(entry)
        if layer.type in ("convolution", "dense") and layer.depth in self.by_depth:
            return _each_pass(self.by_depth[layer.depth])
        found = self.by_type.get(layer.type)
        return None if found is None else _each_pass(found)

    def begin(
        self,
        relevance_pass: RelevancePass,
        running: Callable[[], str],
        input_rule: InputRule | None,
    ) -> ForwardPass:
        """Return the engine of the rules, for one forward pass."""
        return LayerRules(relevance_pass, self.rules, running, input_rule, self.epsilon)

    def running_module(self, model: nn.Module) -> AbstractContextManager[Callable[[], str]]:
        """Follow which module runs inside the block, if there are rules by name."""
        return running_module(model) if self.by_name else super().running_module(model)


def flex(epsilon: float) -> FunctionComposite:
    """LRP-Flex: LRP-ε with the stabiliser at the activations only (method §1).

    Everything linear passes G by its gradient, so no knowledge of the architecture is needed.
    Normalisations have a constant scale; gates get no relevance (Bassi et al., IEEE Access 12,
    2024, section on LRP-Flex). Attention has the rules of AttnLRP (Achtibat et al., ICML 2024):
    products share relevance equally, the softmax passes it by its gradient.

    Parameters
    ----------
    epsilon
        The stabiliser ε ≥ 0, in units of the activations. With 0 and ReLU it is Gradient × Input.
    """
    return _flex("flex", epsilon, AttentionRule(), softmax=call_unchanged)


def cp_lrp(epsilon: float) -> FunctionComposite:
    """LRP-Flex with constant attention weights: the values get all relevance (CP-LRP).

    It conserves relevance. It does not see what a network uses only to choose where it attends to,
    so it can be clean where the network reads the background: choose it to compare, and
    :func:`flex` to train (Ali et al., ICML 2022).

    Parameters
    ----------
    epsilon
        As in :func:`flex`.
    """
    return _flex("cp-lrp", epsilon, AttentionRule(constant_weights=True), softmax=GateRule())


def gradient_x_input(epsilon: float) -> Composite:
    """Gradient × Input (Shrikumar et al., 2016): every function passes G by its gradient.

    Only normalisations have constant statistics, as in all composites. It has no stabiliser:
    ``epsilon`` is not used.
    """
    table = _linear_functions()
    table[F.scaled_dot_product_attention] = AttentionRule(shared=False)
    return FunctionComposite("gradient-x-input", table, knows_arithmetic=False)


def epsilon_everywhere(epsilon: float) -> Composite:
    """LRP-ε in its block form: stabilised at every linear layer's output (method §4).

    It tends to :func:`flex` as ε → 0 (Bassi et al., Nature Communications 15, 291, 2024).
    """
    return LayerComposite("epsilon", dict.fromkeys(LAYER_TYPES, Epsilon(epsilon)), epsilon=epsilon)


def zplus(epsilon: float) -> Composite:
    """LRP-z⁺ at every layer (Montavon et al., 2017; method §4)."""
    return LayerComposite("zplus", dict.fromkeys(LAYER_TYPES, ZPlus(epsilon)), epsilon=epsilon)


def dual(epsilon: float) -> Composite:
    """LRP-z⁺ and LRP-ε in one go: two heatmaps, in this order (the Dual ISNet; method §4)."""
    both = (ZPlus(epsilon), Epsilon(epsilon))
    return LayerComposite("dual", dict.fromkeys(LAYER_TYPES, both), epsilon=epsilon)


def alpha2_beta1(epsilon: float) -> Composite:
    """LRP-αβ with α = 2, β = −1 at layers with weights (Bach et al., 2015).

    Sums and pools, which have no weights and mostly positive inputs, have z⁺ (α = 1): with α = 2
    they would double the relevance wherever they have no negative contribution to balance it.
    """
    weighted = dict.fromkeys(("convolution", "dense"), AlphaBeta(epsilon))
    rest = dict.fromkeys(("normalisation", "sum", "average_pool", "max_pool"), ZPlus(epsilon))
    return LayerComposite("alpha2-beta1", {**weighted, **rest}, epsilon=epsilon)


def epsilon_gamma_box(epsilon: float) -> Composite:
    """LRP-ε at dense layers, γ = 0.25 at convolutions, zB at the image (Montavon et al., 2019)."""
    return _preset("epsilon-gamma-box", Gamma(epsilon), epsilon, input_rule="zb")


def epsilon_plus(epsilon: float) -> Composite:
    """LRP-ε at dense layers, z⁺ at convolutions (Lapuschkin et al., 2017)."""
    return _preset("epsilon-plus", ZPlus(epsilon), epsilon)


COMPOSITES: dict[str, Callable[[float], Composite]] = {
    "flex": flex,
    "cp-lrp": cp_lrp,
    "epsilon": epsilon_everywhere,
    "zplus": zplus,
    "dual": dual,
    "alpha2-beta1": alpha2_beta1,
    "epsilon-gamma-box": epsilon_gamma_box,
    "epsilon-plus": epsilon_plus,
    "gradient-x-input": gradient_x_input,
}
"""The composites by name, as functions of ε."""


def build_composite(composite: str | Composite, epsilon: float) -> Composite:
    """Return a composite from its name, or the one that is given.

    Raises
    ------
    ValueError
        If there is no composite of that name.
    TypeError
        If it is neither a name nor a :class:`Composite`.
    """
    if isinstance(composite, Composite):
        return composite
    return COMPOSITES[check_choice("composite", composite, COMPOSITES)](epsilon)


def _flex(
    name: str, epsilon: float, attention: AttentionRule, softmax: Handler
) -> FunctionComposite:
    rules = activation_handlers(ActivationRule(epsilon), ReLURule(epsilon), GateRule(), softmax)
    table: dict[TorchFunction, Handler] = {**rules, **_linear_functions()}
    table[F.scaled_dot_product_attention] = attention
    return FunctionComposite(name, table)


def _preset(
    name: str, convolution_rule: Rule, epsilon: float, input_rule: str | None = None
) -> Composite:
    by_type = dict.fromkeys(LAYER_TYPES, Epsilon(epsilon)) | {"convolution": convolution_rule}
    return LayerComposite(name, by_type, input_rule=input_rule, epsilon=epsilon)


def _linear_functions() -> dict[TorchFunction, Handler]:
    """Return what passes G by the gradient, only faster or with constant statistics."""
    return {
        **dict.fromkeys(LINEAR_CALLS, linear_layer),
        **dict.fromkeys(CONCATENATIONS, ConcatenationRule()),
        **HANDLERS,
        **LP_POOLS,
    }


def _each_pass(entry: Rule | Sequence[Rule]) -> tuple[Rule, ...]:
    rules = (entry,) if isinstance(entry, Rule) else tuple(entry)
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(f"a rule must be a Rule, such as Epsilon(1e-2), got {rule!r}")
    return rules
