"""Composites: presets, and one's own by type, name and depth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer
from faster_isnet.relevance import (
    COMPOSITES,
    LAYER_TYPES,
    AlphaBeta,
    Epsilon,
    Gamma,
    Layer,
    LayerComposite,
    ZPlus,
    build_composite,
)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(True)),
        *(nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 3)),
    ).double()


def explain(model: nn.Module, composite: object, **options: object) -> Tensor:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    return Explainer(model.eval(), composite, **options)(x, "all-logits").heatmap


@pytest.mark.parametrize("name", COMPOSITES)
def test_presets_give_a_finite_heatmap_for_each_pass(name: str) -> None:
    composite = build_composite(name, 1e-2)
    assert composite.name == name
    heatmap = explain(network(), name)
    assert heatmap.shape == (2, composite.passes, 3, 8, 8)
    assert heatmap.isfinite().all()
    assert heatmap.abs().sum() > 0
    assert build_composite(composite, 0.5) is composite


def test_dual_is_both_in_one_go() -> None:
    model = network()
    both = explain(model, "dual")
    torch.testing.assert_close(both[:, :1], explain(model, "zplus"))
    torch.testing.assert_close(both[:, 1:], explain(model, "epsilon"))


def test_presets_are_what_the_literature_says() -> None:
    model = network()
    for name, convolution, input_rule in [
        ("epsilon-gamma-box", Gamma(), "zb"),
        ("epsilon-plus", ZPlus(), None),
    ]:
        mine = LayerComposite(
            "mine", dict.fromkeys(LAYER_TYPES, Epsilon()) | {"convolution": convolution}
        )
        torch.testing.assert_close(
            explain(model, name), explain(model, mine, input_rule=input_rule)
        )


def test_the_input_rule_that_is_named_goes_before_the_composites_own() -> None:
    model = network()
    assert not torch.equal(
        explain(model, "epsilon-gamma-box"), explain(model, "epsilon-gamma-box", input_rule="w2")
    )


def test_rules_by_name_and_by_depth_are_those_by_type() -> None:
    model = network()
    by_type = LayerComposite("type", {"convolution": Gamma(), "dense": Epsilon()})
    by_name = LayerComposite("name", by_name={"[01].0": Gamma(), "3": Epsilon(), "5": Epsilon()})
    by_depth = LayerComposite(
        "depth", by_depth={0: Gamma(), 1: Gamma(), 2: Epsilon(), 3: Epsilon()}
    )
    expected = explain(model, by_type)
    torch.testing.assert_close(explain(model, by_name), expected)
    torch.testing.assert_close(explain(model, by_depth), expected)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_depth_counts_the_layer_that_the_input_rule_has() -> None:
    model = network()
    one = LayerComposite("one", by_depth={1: AlphaBeta()})
    other = LayerComposite("other", by_name={"1.0": AlphaBeta()})
    torch.testing.assert_close(
        explain(model, one, input_rule="zb"), explain(model, other, input_rule="zb")
    )


def test_name_goes_before_depth_and_depth_before_type() -> None:
    composite = LayerComposite(
        "mine",
        by_type={"dense": Epsilon(1.0), "max_pool": Epsilon(4.0)},
        by_depth={3: Epsilon(2.0)},
        by_name={"head*": Epsilon(3.0)},
    )
    assert composite.rules(Layer("dense", "x", 0)) == (Epsilon(1.0),)
    assert composite.rules(Layer("dense", "x", 3)) == (Epsilon(2.0),)
    assert composite.rules(Layer("dense", "head.1", 3)) == (Epsilon(3.0),)
    assert composite.rules(Layer("max_pool", "x", 3)) == (Epsilon(4.0),)
    assert composite.rules(Layer("convolution", "x", 1)) is None


def test_layers_without_a_rule_pass_relevance_by_the_gradient() -> None:
    model = network()
    only_name = LayerComposite("none", by_name={"no such module": Epsilon()})
    torch.testing.assert_close(explain(model, only_name), explain(model, "gradient-x-input"))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: build_composite("epsilon-pluss", 0.1), ValueError, "did you mean 'epsilon-plus'"),
        (
            lambda: LayerComposite("a", {"convolutional": Epsilon()}),
            ValueError,
            "unknown type of layer 'convolutional'",
        ),
        (lambda: LayerComposite("a"), ValueError, "composite 'a' must have rules"),
        (
            lambda: LayerComposite("a", {"dense": Epsilon(), "sum": (Epsilon(), ZPlus())}),
            ValueError,
            r"entries with \[1, 2\] rules",
        ),
        (lambda: LayerComposite("a", {"dense": "epsilon"}), TypeError, "a rule must be a Rule"),
        (lambda: LayerComposite("a", {"sum": Epsilon()}, epsilon=-1), ValueError, "epsilon must"),
    ],
)
def test_bad_composites(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
