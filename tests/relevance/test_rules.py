"""The rules: their formulas, and agreement with zennit."""

from __future__ import annotations

import pytest
import torch
import zennit.rules as z
from torch import Tensor, nn
from torchvision.models import VGG
from torchvision.models.vgg import make_layers
from zennit.attribution import Gradient
from zennit.canonizers import Canonizer, SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, SpecialFirstLayerMapComposite
from zennit.torchvision import VGGCanonizer
from zennit.types import Activation, AvgPool, Convolution, Linear

from faster_isnet import Explainer
from faster_isnet.relevance.composites import LayerComposite
from faster_isnet.relevance.rules import AlphaBeta, Epsilon, Gamma, Rule, Shares, Sums, ZPlus

EPSILON = 1e-6
RULES = {
    "epsilon": (Epsilon(EPSILON), z.Epsilon(EPSILON)),
    "zplus": (ZPlus(EPSILON), z.ZPlus(EPSILON)),
    "alpha2-beta1": (AlphaBeta(EPSILON), z.AlphaBeta(2, 1, EPSILON)),
    "alpha1.5-beta0.5": (AlphaBeta(EPSILON, 1.5, -0.5), z.AlphaBeta(1.5, 0.5, EPSILON)),
    "gamma": (Gamma(EPSILON, 0.25), z.Gamma(0.25, EPSILON)),
    "gamma-large": (Gamma(EPSILON, 2.0), z.Gamma(2.0, EPSILON)),
}
INPUT_RULES = {
    "zb": z.ZBox(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1), EPSILON),
    "w2": z.WSquare(EPSILON),
    "flat": z.Flat(EPSILON),
}


def _randomised(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(-1.5, 1.5)
            module.bias.data.uniform_(-0.3, 0.3)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.eps = 0.0  # zennit divides by √(σ² + eps), and then once more by √(1 + eps)
    return model.double().eval()


def sequential() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 9, 3, stride=2, bias=False), nn.BatchNorm2d(9), nn.ReLU()),
        *(nn.Conv2d(9, 6, 2, groups=3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5)),
    )


def vgg() -> nn.Module:
    model = VGG(make_layers([8, "M", 12, 12, "M", 16, "M"], batch_norm=True), num_classes=5)
    model.classifier = nn.Sequential(
        *(nn.Linear(16 * 49, 20), nn.ReLU(True), nn.Dropout(), nn.Linear(20, 5))
    )
    return model


NETWORKS = {
    "sequential": (sequential, 16, SequentialMergeBatchNorm),
    "vgg": (vgg, 32, VGGCanonizer),
}


def by_zennit(
    model: nn.Module,
    canonizer: type[Canonizer],
    rules: dict[str, z.BasicHook],
    x: Tensor,
    start: Tensor,
    first: z.BasicHook | None = None,
) -> Tensor:
    """Propagate ``start`` ``[B, C]``; average pools share in proportion, max pools to one."""
    layer_map = [
        (Activation, z.Pass()),
        (AvgPool, z.Norm(EPSILON)),
        (Convolution, rules["convolution"]),
        (Linear, rules["dense"]),
    ]
    canonizers = [canonizer()]
    if first is None:
        composite = LayerMapComposite(layer_map, canonizers=canonizers)
    else:
        composite = SpecialFirstLayerMapComposite(
            layer_map, [(Convolution, first)], canonizers=canonizers
        )
    with Gradient(model, composite) as attributor:
        return attributor(x, start)[1]


def assert_agrees(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_rules_agree_with_zennit(network: str, rule: str) -> None:
    build, size, canonizer = NETWORKS[network]
    model = _randomised(build())
    ours, theirs = RULES[rule]
    x = torch.rand(2, 3, size, size, dtype=torch.float64)
    composite = LayerComposite(
        "test", {"convolution": ours, "dense": ours, "average_pool": Epsilon(EPSILON)}
    )
    explanation = Explainer(model, composite)(x, torch.tensor([1, 3]))
    start = torch.zeros(2, 5, dtype=torch.float64)
    start[[0, 1], [1, 3]] = explanation.quantity.flatten()
    expected = by_zennit(model, canonizer, {"convolution": theirs, "dense": theirs}, x, start)
    assert_agrees(explanation.heatmap[:, 0], expected)


@pytest.mark.parametrize("rule", INPUT_RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_input_rules_agree_with_zennit(network: str, rule: str) -> None:
    build, size, canonizer = NETWORKS[network]
    model = _randomised(build())
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    # zennit counts biases as inputs for w² and flat, and multiplies them by single pixels for zB.
    torch.nn.init.zeros_(first.bias)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and network == "vgg":
            torch.nn.init.zeros_(module.bias)
            module.running_mean.zero_()
            break
    x = torch.rand(2, 3, size, size, dtype=torch.float64)
    composite = LayerComposite(
        "test",
        {
            "convolution": ZPlus(EPSILON),
            "dense": Epsilon(EPSILON),
            "average_pool": Epsilon(EPSILON),
        },
    )
    explanation = Explainer(model, composite, EPSILON, rule)(x, 2)
    start = torch.zeros(2, 5, dtype=torch.float64)
    start[:, 2] = explanation.logits[:, 2]
    theirs = {"convolution": z.ZPlus(EPSILON), "dense": z.Epsilon(EPSILON)}
    expected = by_zennit(model, canonizer, theirs, x, start, INPUT_RULES[rule])
    assert_agrees(explanation.heatmap[:, 0], expected)


def _contributions() -> tuple[Tensor, Tensor]:
    """Contributions ``[I, O]`` to outputs, and the outputs' relevance ``[O]``."""
    return torch.randn(6, 20, dtype=torch.float64), torch.randn(20, dtype=torch.float64)


def shared(rule: Rule, contributions: Tensor, relevance: Tensor) -> Tensor:
    """Share relevance among single contributions."""
    up, down = contributions.clamp(min=0), contributions.clamp(max=0)
    sums = Sums(contributions.sum(0), up.sum(0), down.sum(0))
    total, positive, negative = rule.share(relevance, sums)
    nothing = Shares(*(torch.zeros(()) if s is None else s for s in (total, positive, negative)))
    return contributions * nothing.total + up * nothing.positive + down * nothing.negative


@pytest.mark.parametrize(
    "rule", [Epsilon(0), ZPlus(0), AlphaBeta(0), AlphaBeta(0, 1, 0), Gamma(0), Gamma(0, 10.0)]
)
def test_rules_keep_all_relevance_without_a_stabiliser(rule: Rule) -> None:
    contributions, relevance = _contributions()
    torch.testing.assert_close(shared(rule, contributions, relevance).sum(0), relevance)


@pytest.mark.parametrize("rule", [Epsilon(1.0), ZPlus(1.0), Gamma(1.0)])
def test_the_stabiliser_takes_relevance_away(rule: Rule) -> None:
    contributions, relevance = _contributions()
    assert (shared(rule, contributions, relevance).sum(0).abs() < relevance.abs()).all()


def test_rules_that_are_one_another() -> None:
    contributions, relevance = _contributions()
    for one, other in [
        (ZPlus(0.1), AlphaBeta(0.1, 1, 0)),
        (Gamma(0.1, 0.0), Epsilon(0.1)),
    ]:
        torch.testing.assert_close(
            shared(one, contributions, relevance), shared(other, contributions, relevance)
        )
    positive = contributions.abs()
    torch.testing.assert_close(
        shared(ZPlus(0.1), positive, relevance), shared(Epsilon(0.1), positive, relevance)
    )


def test_alpha_beta_by_its_formula() -> None:
    contributions, relevance = _contributions()
    up, down = contributions.clamp(min=0), contributions.clamp(max=0)
    expected = 3 * up / (up.sum(0) + 0.1) - 2 * down / (down.sum(0) - 0.1)
    rule = AlphaBeta(0.1, 3, -2)
    torch.testing.assert_close(shared(rule, contributions, relevance), expected * relevance)


@pytest.mark.parametrize("rule", [Epsilon(0), ZPlus(0), AlphaBeta(0), Gamma(0)])
def test_a_layer_without_contributions_shares_nothing_and_is_finite(rule: Rule) -> None:
    zeros = torch.zeros(3, 2, requires_grad=True)
    relevance = shared(rule, zeros, torch.zeros(2))
    assert torch.equal(relevance, torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Epsilon(-1), "epsilon must be a number in .*got -1"),
        (lambda: ZPlus(float("inf")), "epsilon must be"),
        (lambda: Gamma(0.1, -2), "gamma must be a number in .*got -2"),
        (lambda: AlphaBeta(0.1, 2, 1), "alpha \\+ beta must be 1, got alpha=2, beta=1"),
    ],
)
def test_bad_parameters(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
