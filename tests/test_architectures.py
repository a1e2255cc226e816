"""Layers and ways of building networks that the engine must carry relevance through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from faster_isnet import Explainer, ISNet


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def layers(*modules: nn.Module, size: int) -> nn.Sequential:
    """A network of ReLUs around some layers, with images of this size."""
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(size, 3))


def _skip(x: Tensor, one: nn.Module, two: nn.Module, relu: nn.Module) -> Tensor:
    y = relu(one(x))
    y = two(y)
    y += x
    return relu(y)


def _dense(x: Tensor, one: nn.Module, two: nn.Module) -> Tensor:
    y = torch.cat([x, F.relu(one(x), inplace=True)], 1)
    return torch.cat([y, two(y).relu()], 1)


def _shuffle(x: Tensor, one: nn.Module) -> Tensor:
    a, b = x.chunk(2, 1)
    y = torch.cat([a, one(b).relu_()], 1)
    return F.channel_shuffle(y, 2)


def _functional(x: Tensor, one: nn.Module, two: nn.Module) -> Tensor:
    y = F.conv2d(x, one.weight, one.bias, stride=1, padding=(1, 1))
    y = torch.clamp(y, min=0)
    return F.max_pool2d(two(y).clamp_(min=0), 2)


C = 4
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1-d": (
        lambda: layers(nn.Conv1d(C, 6, 3), nn.BatchNorm1d(6), nn.ReLU(True), size=6 * 7),
        (C, 9),
    ),
    "3-d": (
        lambda: layers(
            *(nn.Conv3d(C, 6, 2), nn.BatchNorm3d(6), nn.ReLU(True), nn.MaxPool3d(2)), size=6 * 8
        ),
        (C, 5, 5, 5),
    ),
    "grouped": (lambda: layers(nn.Conv2d(C, 8, 3, groups=2), nn.ReLU(), size=8 * 16), (C, 6, 6)),
    "depthwise": (lambda: layers(nn.Conv2d(C, C, 3, groups=C), nn.ReLU(), size=C * 16), (C, 6, 6)),
    "dilated": (lambda: layers(nn.Conv2d(C, 5, 3, dilation=2), nn.ReLU(), size=5 * 4), (C, 6, 6)),
    "strided": (
        lambda: layers(nn.Conv2d(C, 5, 3, (2, 3), 1), nn.ReLU(), size=5 * 8),
        (C, 7, 6),
    ),
    "transposed": (
        lambda: layers(
            nn.ConvTranspose2d(C, 5, 3, 2, 1, 1), nn.ReLU(True), nn.AvgPool2d(2), size=5 * 16
        ),
        (C, 4, 4),
    ),
    "circular": (
        lambda: layers(nn.Conv2d(C, 5, 3, padding=1, padding_mode="circular"), size=5 * 16),
        (C, 4, 4),
    ),
    "pooling": (
        lambda: layers(
            *(nn.Conv2d(C, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(nn.AvgPool2d(3, 2, 1), nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(2)),
            size=5 * 4,
        ),
        (C, 16, 16),
    ),
    "lp and fractional pooling": (
        lambda: layers(
            *(nn.ReLU(), nn.LPPool2d(2, 2), nn.FractionalMaxPool2d(2, 2)),
            size=C * 4,
        ),
        (C, 8, 8),
    ),
    "upsampling": (
        lambda: layers(
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelShuffle(2), size=1 * 16 * 16
        ),
        (C, 4, 4),
    ),
    "one ReLU used many times": (
        lambda: (
            lambda relu: layers(
                *(nn.Conv2d(C, 5, 3), relu, nn.Conv2d(5, 5, 3), relu, nn.Flatten()),
                *(nn.Linear(20, 8), relu),
                size=8,
            )
        )(nn.ReLU(inplace=True)),
        (C, 6, 6),
    ),
    "skip connection": (
        lambda: layers(
            Lambda(_skip, nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, C, 1), nn.ReLU(True)),
            size=C * 16,
        ),
        (C, 4, 4),
    ),
    "dense connections": (
        lambda: layers(
            Lambda(_dense, nn.Conv2d(C, 3, 1), nn.Conv2d(C + 3, 2, 1)), size=(C + 5) * 16
        ),
        (C, 4, 4),
    ),
    "channel shuffle": (
        lambda: layers(Lambda(_shuffle, nn.Conv2d(2, 2, 1)), size=C * 16),
        (C, 4, 4),
    ),
    "functional": (
        lambda: layers(Lambda(_functional, nn.Conv2d(C, 6, 3), nn.Conv2d(6, 5, 3)), size=5 * 4),
        (C, 6, 6),
    ),
    "stochastic depth and dropout": (
        lambda: layers(
            Lambda(lambda x: x + stochastic_depth(x.relu(), 0.5, "row", True)),
            *(nn.Dropout(0.4), nn.Dropout2d(0.4), nn.ReLU()),
            size=C * 16,
        ),
        (C, 4, 4),
    ),
    "linear on the last dimension": (
        lambda: layers(nn.Linear(4, 6), nn.ReLU(True), nn.Linear(6, 2), nn.ReLU(), size=C * 4 * 2),
        (C, 4, 4),
    ),
}


def prepare(name: str) -> tuple[nn.Module, Tensor]:
    build, shape = ARCHITECTURES[name]
    model = build().double()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            module.eval()
    return model, torch.rand(3, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_with_relus_and_no_stabiliser_it_is_gradient_times_input(name: str) -> None:
    model, x = prepare(name)
    torch.manual_seed(1)
    explanation = Explainer(model, epsilon=0.0)(x, target=1)
    x.requires_grad_()
    torch.manual_seed(1)
    logits = model(x.clone())
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    torch.testing.assert_close(explanation.logits, logits)
    torch.testing.assert_close(explanation.heatmap.squeeze(1), x * gradient)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_classes_at_once_are_the_classes_one_by_one(name: str) -> None:
    model, x = prepare(name)
    explainer = Explainer(model)

    def explain(target: int | str) -> Tensor:
        torch.manual_seed(1)
        return explainer(x, target).heatmap

    together = explain("all-classes")
    torch.testing.assert_close(together, torch.cat([explain(c) for c in range(3)], 1))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("variant", ["selective", "original"])
def test_the_heatmap_can_be_trained(name: str, variant: str) -> None:
    """The gradient of the heatmap against finite differences along a random direction."""
    model, x = prepare(name)
    net = ISNet(model, variant, input_rule=None, epsilon=0.1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    directions = [torch.randn_like(p) for p in parameters]

    def size() -> Tensor:
        torch.manual_seed(1)
        return net.explain(x).heatmap.square().sum()

    gradients = torch.autograd.grad(size(), parameters, allow_unused=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    step, sizes = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=sign * step)
        sizes.append(size().detach())
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=-sign * step)
    expected = (sizes[0] - sizes[1]) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)


class SqueezeAndExcite(nn.Module):
    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.squeeze, self.excite, self.gate = nn.Conv2d(C, 2, 1), nn.Conv2d(2, C, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid(inplace=True)])
def test_relevance_is_conserved_through_gates(gate: nn.Module) -> None:
    model = layers(SqueezeAndExcite(gate), nn.ReLU(), size=C * 16).double()
    model[-1].bias.data.zero_()
    explanation = Explainer(model, epsilon=1e-12)(torch.rand(2, C, 4, 4).double(), "all-classes")
    torch.testing.assert_close(explanation.heatmap.flatten(2).sum(2), explanation.quantity)
