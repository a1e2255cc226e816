"""Networks with a single logit for yes or no are explained as those with two."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet
from faster_isnet.explaining.targets import QUANTITIES
from faster_isnet.methods.isnet.network import VARIANTS


def single(flat: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 1)]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if flat else [])).eval()


class AsTwo(nn.Module):
    """The logits −z/2 and z/2 of a network with a single logit z."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        z = self.network(images).reshape(-1, 1)
        return torch.cat([-z / 2, z / 2], 1)


def with_two_rows(network: nn.Sequential) -> nn.Sequential:
    """The same, of which the last layer has a row for each class."""
    (*layers, last) = network
    assert isinstance(last, nn.Linear)
    two = nn.Linear(36, 2)
    with torch.no_grad():
        two.weight.copy_(torch.cat([-last.weight, last.weight]) / 2)
        two.bias.copy_(torch.cat([-last.bias, last.bias]) / 2)
    return nn.Sequential(*layers, two).eval()


OTHERS = sorted(QUANTITIES.keys() - {"all-logits"})
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("composite", ["flex", "gradient-x-input", "epsilon"])
@pytest.mark.parametrize("target", [*OTHERS, None, 0, 1, torch.tensor([0, 1, 1, 0])])
@pytest.mark.parametrize("flat", [False, True])
def test_the_heatmap_is_that_of_two_logits(composite: str, target: object, flat: bool) -> None:
    rule = None if composite == "gradient-x-input" else "zb"
    found = []
    for model in (single(flat), AsTwo(single())):
        torch.manual_seed(1)  # of the random logit
        explainer = Explainer(model, composite, epsilon=1e-7, input_rule=rule)
        found.append(explainer(IMAGES, target))
    ours, theirs = found
    assert ours.logits.shape == ((4,) if flat else (4, 1))
    torch.testing.assert_close(ours.quantity, theirs.quantity)
    torch.testing.assert_close(ours.heatmap, theirs.heatmap, rtol=1e-4, atol=1e-6)
    assert ours.heatmap.isfinite().all()


@pytest.mark.parametrize("composite", ["flex", "gradient-x-input", "epsilon"])
@pytest.mark.parametrize("target", ["lowest-eta", "all-classes", "highest-logit"])
def test_the_heatmap_is_that_of_two_rows(composite: str, target: str) -> None:
    """Where the rule is linear in the last layer's weights, as ε → 0."""
    ours, theirs = (
        Explainer(model, composite, epsilon=1e-7, input_rule=None)(IMAGES, target)
        for model in (single(), with_two_rows(single()))
    )
    torch.testing.assert_close(ours.quantity, theirs.quantity)
    torch.testing.assert_close(ours.heatmap, theirs.heatmap, rtol=1e-3, atol=1e-5)


def test_the_logit_of_yes_has_half_of_the_positive_contributions() -> None:
    """By LRP-z⁺, whose relevance starts as what the positive weights alone would give."""
    ours, theirs = (
        Explainer(model, "zplus", epsilon=1e-7, input_rule=None)(IMAGES, 1)
        for model in (single(), with_two_rows(single()))
    )
    torch.testing.assert_close(ours.heatmap, theirs.heatmap, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_the_sum_of_all_logits_is_nothing_to_explain(flat: bool) -> None:
    with pytest.raises(ValueError, match=r"sum to 0, .* an output for each class"):
        ISNet(single(flat), "dual").explain(IMAGES)


@pytest.mark.parametrize("variant", [v for v, of in VARIANTS.items() if of.target != "all-logits"])
def test_every_variant_has_the_gradient_of_two_logits(variant: str) -> None:
    gradients = []
    for model in (single(), AsTwo(single())):
        torch.manual_seed(1)
        heatmap = ISNet(model, variant).explain(IMAGES).heatmap
        gradients.append(
            torch.autograd.grad(
                heatmap.square().sum(),
                list(model.parameters()),
                allow_unused=True,
                materialize_grads=True,
            )
        )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
