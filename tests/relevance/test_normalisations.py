"""Relevance of normalisations: a linear map whose scale is constant."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet import Explainer
from faster_isnet.relevance import Interception, RelevancePass, flex

NORMALISATIONS = {
    "batch 1d, training": (nn.BatchNorm1d(6), (8, 6)),
    "batch 1d of sequences, training": (nn.BatchNorm1d(6), (4, 6, 5)),
    "batch 2d, training": (nn.BatchNorm2d(6), (4, 6, 3, 3)),
    "batch 3d, training": (nn.BatchNorm3d(6), (2, 6, 3, 2, 2)),
    "batch 2d, eval": (nn.BatchNorm2d(6).eval(), (4, 6, 3, 3)),
    "batch 2d, no parameters": (nn.BatchNorm2d(6, affine=False), (4, 6, 3, 3)),
    "batch 2d, no running statistics": (
        nn.BatchNorm2d(6, track_running_stats=False).eval(),
        (4, 6, 3, 3),
    ),
    "batch 2d, cumulative": (nn.BatchNorm2d(6, momentum=None), (4, 6, 3, 3)),
    "layer": (nn.LayerNorm((6, 5)), (4, 6, 5)),
    "layer, no parameters": (nn.LayerNorm(5, elementwise_affine=False), (4, 6, 5)),
    "group": (nn.GroupNorm(3, 6), (4, 6, 3, 3)),
    "group, no parameters": (nn.GroupNorm(2, 6, affine=False), (4, 6, 3)),
    "instance": (nn.InstanceNorm2d(6), (4, 6, 3, 3)),
    "instance, affine": (nn.InstanceNorm1d(6, affine=True), (4, 6, 7)),
    "instance, eval": (
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True).eval(),
        (4, 6, 3, 3),
    ),
    "rms": (nn.RMSNorm(5), (4, 6, 5)),
}
OF_A_SAMPLE = [n for n in NORMALISATIONS if "batch" not in n and "eval" not in n]


def prepare(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    module, shape = NORMALISATIONS[name]
    module = copy.deepcopy(module).double()
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2)
    if getattr(module, "weight", None) is not None:
        module.weight.data.flatten()[0] = -1.5
    x = (3 + 2 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    return module, x, torch.randn(shape, dtype=torch.float64, requires_grad=True)


def intercepted(module: nn.Module, x: Tensor) -> tuple[Tensor, RelevancePass]:
    relevance_pass = RelevancePass()
    with Interception(flex(1e-2).table, relevance_pass):
        return module(x.clone()), relevance_pass


def relevance(module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    y, relevance_pass = intercepted(module, x)
    with relevance_pass.running():
        return torch.autograd.grad(y, x, g, create_graph=True)[0]


@pytest.mark.parametrize("name", [n for n in NORMALISATIONS if n not in OF_A_SAMPLE])
def test_relevance_is_scaled_by_the_slope_of_a_constant_affine_map(name: str) -> None:
    module, x, g = prepare(name)
    y, _ = intercepted(copy.deepcopy(module), x)
    bias = getattr(module, "bias", None)
    bias = 0 if bias is None else bias
    shape = (1, -1, *(1,) * (x.dim() - 2))
    bias = bias.reshape(shape) if isinstance(bias, Tensor) else bias
    weight = getattr(module, "weight", None)
    weight = torch.ones(()).double() if weight is None else weight.reshape(shape)
    # y = weight (x − mean) / std + bias; two points of the same group give 1 / std.
    standardised = ((y - bias) / weight).detach()
    slope = relevance(copy.deepcopy(module), x, torch.ones_like(g)) / weight
    torch.testing.assert_close(slope.detach().abs(), slope.detach())
    offset = (standardised - slope * x).detach()
    for dims in _groups(module, x):
        spread = offset.amax(dims) - offset.amin(dims)
        assert spread.abs().max() < 1e-9
    torch.testing.assert_close(relevance(module, x, g), g * slope * weight)


def _groups(module: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """Dimensions over which mean and standard deviation are the same."""
    spatial = tuple(range(2, x.dim()))
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return [(0, *spatial)]
    return [spatial]


def _of_constant_deviation(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the normalisation as a function whose σ is that of ``x``."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        grouped: tuple[int, ...] = (-1, math.prod(module.normalized_shape))
        shape = (1, *module.normalized_shape)
    else:
        grouped = (x.shape[0] * getattr(module, "num_groups", x.shape[1]), -1)
        shape = (1, -1, *(1,) * (x.dim() - 2))
    weight = torch.ones(()).double() if module.weight is None else module.weight.reshape(shape)

    def centred(x: Tensor) -> Tensor:
        x = x.reshape(grouped)
        return x if isinstance(module, nn.RMSNorm) else x - x.mean(-1, keepdim=True)

    eps = torch.finfo(x.dtype).eps if module.eps is None else module.eps
    deviation = (centred(x).square().mean(-1, keepdim=True) + eps).sqrt()
    return lambda x: (centred(x) / deviation).reshape(x.shape) * weight


@pytest.mark.parametrize("name", OF_A_SAMPLE)
def test_a_samples_own_mean_carries_relevance_and_its_deviation_is_constant(name: str) -> None:
    module, x, g = prepare(name)
    expected = torch.func.vjp(_of_constant_deviation(module, x), x)[1](g)[0]
    found = relevance(module, x, g)
    torch.testing.assert_close(found, expected)
    # In the relevance's own gradient, the deviation depends on the sample.
    inputs = [x, g, *module.parameters()]
    v = torch.randn_like(x)
    ours, theirs = (torch.autograd.grad(r, inputs, v, allow_unused=True) for r in (found, expected))
    assert ours[0].abs().max() > 0
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", OF_A_SAMPLE)
def test_a_samples_normalisation_without_bias_conserves_relevance(name: str) -> None:
    module, x, g = prepare(name)
    if getattr(module, "bias", None) is not None:
        module.bias.data.zero_()
    y, _ = intercepted(module, x)
    torch.testing.assert_close((x * relevance(module, x, g)).sum(), (y * g).sum())


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_output_statistics_and_gradients_are_torchs(name: str) -> None:
    module, x, g = prepare(name)
    plain = copy.deepcopy(module)
    y, _ = intercepted(module, x)
    expected = plain(x)
    torch.testing.assert_close(y, expected)
    for ours, theirs in zip(module.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    ours = torch.autograd.grad(y, [x, *module.parameters()], g)
    theirs = torch.autograd.grad(expected, [x, *plain.parameters()], g)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", [n for n in NORMALISATIONS if "batch" in n or "eval" in n])
def test_relevance_is_differentiable_with_constant_statistics(name: str) -> None:
    module, x, g = prepare(name)
    if not list(module.parameters()):
        pytest.skip("nothing to differentiate but g, in which it is linear")
    r = relevance(module, x, g)
    (gradient,) = torch.autograd.grad((r * g).sum(), module.weight)
    dims = [d for d in range(x.dim()) if d != 1]
    slope = (r / g).detach() / module.weight.detach().reshape(1, -1, *(1,) * (x.dim() - 2))
    torch.testing.assert_close(gradient, (slope * g.square()).sum(dims))


def test_torch_batch_norm_with_its_own_order_of_arguments() -> None:
    module, x, g = prepare("batch 2d, eval")
    m = module
    arguments = (m.weight, m.bias, m.running_mean, m.running_var, False, 0.1, m.eps, False)
    other = relevance(lambda x: torch.batch_norm(x, *arguments), x, g)  # type: ignore[arg-type]
    torch.testing.assert_close(other, relevance(module, x, g))


def test_batch_norm_refuses_one_value_per_channel() -> None:
    with (
        Interception(flex(1e-2).table, RelevancePass()),
        pytest.raises(ValueError, match="more than one value per channel"),
    ):
        F.batch_norm(torch.rand(1, 3), torch.zeros(3), torch.ones(3), training=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("composite", ["flex", "epsilon", "gradient-x-input"])
def test_a_single_image_behind_which_channels_come_last(
    composite: str, differentiable: bool, training: bool
) -> None:
    """Torch's own gradient is another then: it reads channels in the wrong order."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
            self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.conv(x))
            tokens = x.flatten(2).transpose(1, 2)
            attended = F.scaled_dot_product_attention(tokens, tokens, tokens)
            return self.head((tokens + attended).mean(1))  # type: ignore[no-any-return]

    model, x = Attending().double().train(training), torch.rand(1, 3, 5, 5).double()
    explainer = Explainer(model, composite, epsilon=0.0, layers=["conv", "norm"])
    (target,) = model(x).argmax(1).tolist()
    explanation = explainer(x, target, differentiable=differentiable)
    if not training:  # else the mean takes some
        whole = float(explanation.heatmap.sum())
        for layer in explanation.layers.values():
            assert float(layer.sum()) == pytest.approx(whole)
    if differentiable:
        weight = model.conv.weight
        (gradient,) = torch.autograd.grad(explanation.logits[0, target], weight)
        step = 1e-6 * torch.randn_like(weight)
        with torch.no_grad():
            before = model(x)[0, target]
            weight += step
            change = model(x)[0, target] - before
        assert float(change) == pytest.approx(float((gradient * step).sum()), rel=1e-3)
