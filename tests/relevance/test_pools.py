"""Power-average pooling: relevance is kept, and windows of zeros have finite derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer


def network(pool: nn.Module, dims: int) -> nn.Sequential:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](3, 4, 1, bias=False)
    layers = convolution, nn.ReLU(), pool, nn.Flatten(), nn.Linear(4 * 2**dims, 3, bias=False)
    return nn.Sequential(*layers).double()


def images(dims: int) -> Tensor:
    x = torch.rand(2, 3, *(4,) * dims, dtype=torch.float64)
    x[:, :, :2] = 0  # windows of zeros
    return x


POOLS = {1: nn.LPPool1d, 2: nn.LPPool2d, 3: nn.LPPool3d}


@pytest.mark.parametrize("composite", ["flex", "epsilon", "gradient-x-input"])
@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("dims", POOLS)
def test_windows_of_zeros_have_finite_heatmaps_and_gradients(
    dims: int, p: float, composite: str
) -> None:
    torch.manual_seed(0)
    model, x = network(POOLS[dims](p, 2), dims), images(dims)
    explanation = Explainer(model, composite, 0.0)(x, 1, differentiable=True)
    torch.testing.assert_close(explanation.logits, model(x))
    sums = explanation.heatmap.flatten(2).sum(2)
    torch.testing.assert_close(sums, explanation.quantity)
    heatmap_loss = explanation.heatmap.square().sum()
    for loss in (heatmap_loss, explanation.logits.square().sum()):
        for gradient in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True):
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0


@pytest.mark.parametrize("p", [1.5, 2, 3])
def test_the_heatmaps_gradient_is_that_of_finite_differences(p: float) -> None:
    model, x = network(nn.LPPool2d(p, 2), 2), torch.rand(2, 3, 4, 4, dtype=torch.float64) + 0.1
    model[0].weight.data.abs_()

    def heatmap(first: Tensor, last: Tensor) -> Tensor:
        model[0].weight, model[4].weight = nn.Parameter(first), nn.Parameter(last)
        del model[0].weight, model[4].weight
        model[0].weight, model[4].weight = first, last
        return Explainer(model, epsilon=0.1)(x, 1, differentiable=True).heatmap

    weights = [model[i].weight.detach().clone().requires_grad_() for i in (0, 4)]
    assert torch.autograd.gradcheck(heatmap, weights, fast_mode=True)
