"""The engine of the rules: batch norms fused, sums, pools, dense connections, in-place layers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet, ISNetLoss
from faster_isnet.relevance.composites import COMPOSITES, LAYER_TYPES, LayerComposite
from faster_isnet.relevance.rules import AlphaBeta, Epsilon, Gamma, ZPlus
from layered_networks import Applied, Lambda, conv, images

RULED = ["epsilon", "zplus", "alpha2-beta1"]


def without_biases(model: nn.Module) -> nn.Module:
    """Relevance is kept only where no bias takes any; batch norms get scales of either sign."""
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data.uniform_(0.5, 1.5)
            module.weight.data *= torch.where(torch.rand_like(module.weight) < 0.3, -1, 1)
            module.running_mean.zero_()
            module.running_var.uniform_(0.5, 1.5)
    return model.double().eval()


def explain(model: nn.Module, composite: object, x: Tensor, target: object = 1, **options: object):
    options = {"epsilon": 1e-12} | options
    return Explainer(model, composite, **options)(x, target)


@pytest.mark.parametrize("composite", [*RULED, "dual"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_relevance_is_conserved_where_the_published_code_loses_it(
    name: str, composite: str
) -> None:
    """Two faults of the published LRP-Block (method §4) show here, and are not repeated.

    Its max pool overwrites where windows overlap, as in the stem of every ResNet and DenseNet, and
    its dense blocks of ten or more layers route relevance to the wrong readers: Σ R / q came out
    anywhere between −28 and 2.4.
    """
    model = without_biases(torchvision.models.get_model(name, num_classes=5))
    target = "all-logits" if composite == "dual" else "all-classes"
    explanation = explain(model, composite, images(), target)
    sums = explanation.heatmap.flatten(2).sum(2)
    assert ((sums - explanation.quantity).abs() < 1e-6 * explanation.quantity.abs()).all()


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("densenet121", marks=pytest.mark.slow), "vgg11_bn"]
)
def test_the_block_form_tends_to_flex(name: str) -> None:
    """Without biases, so that the two differ by nothing but where ε is added."""
    if name == "vgg11_bn":
        layers = torchvision.models.vgg.make_layers([8, "M", 16, "M"], batch_norm=True)
        model = torchvision.models.VGG(layers, num_classes=5)
        model.classifier = nn.Linear(16 * 49, 5)
    else:
        model = torchvision.models.get_model(name, num_classes=5)
    model, x = model.double().eval(), images()
    distances = []
    for epsilon in (1e-2, 1e-4, 1e-6):
        block = explain(model, "epsilon", x, epsilon=epsilon).heatmap
        flex = explain(model, "flex", x, epsilon=epsilon).heatmap
        distances.append(((block - flex).norm() / flex.norm()).item())
    assert distances[0] > 10 * distances[1] > 100 * distances[2]
    assert distances[2] < 1e-2


def _iadd(x: Tensor, one: nn.Module, two: nn.Module) -> Tensor:
    y = one(x)
    y += two(x)
    return F.relu(y, inplace=True)


def _add(x: Tensor, one: nn.Module, two: nn.Module) -> Tensor:
    return F.relu(one(x) + two(x))


def _add_bn_in_place(x: Tensor, one: nn.Module, bn: nn.Module, two: nn.Module) -> Tensor:
    y = bn(one(x))
    y += two(x)
    return y.relu_()


def _add_bn(x: Tensor, one: nn.Module, bn: nn.Module, two: nn.Module) -> Tensor:
    return torch.relu(torch.add(bn(one(x)), two(x)))


def _statement(x: Tensor, one: nn.Module) -> Tensor:
    y = one(x)
    y.relu_()
    return F.max_pool2d(y, 2)


def _clamped(x: Tensor, one: nn.Module) -> Tensor:
    return F.max_pool2d(one(x).clamp(min=0), 2)


SPELLINGS = {
    "sum of convolutions": (_iadd, _add, lambda: (conv(), conv())),
    "sum with a batch norm": (
        _add_bn_in_place,
        _add_bn,
        lambda: (conv(bias=False), nn.BatchNorm2d(4), conv()),
    ),
    "ReLU as a statement": (_statement, _clamped, lambda: (conv(),)),
    "in-place modules": (
        lambda x, c, bn: nn.ReLU(True)(F.avg_pool2d(bn(c(x)), 2)),
        lambda x, c, bn: nn.ReLU()(F.avg_pool2d(bn(c(x)), 2)),
        lambda: (conv(), nn.BatchNorm2d(4)),
    ),
    "in place after a pool": (
        lambda x, c: F.relu_(F.max_pool2d(c(x), 3, 2, 1)),
        lambda x, c: F.relu(F.max_pool2d(c(x), 3, 2, 1, return_indices=True)[0]),
        lambda: (conv(),),
    ),
    "mean": (
        lambda x, c: c(x).relu().mean((2, 3), keepdim=True),
        lambda x, c: F.adaptive_avg_pool2d(c(x).relu(), 1),
        lambda: (conv(),),
    ),
    "batch norm in torch's own order": (
        lambda x, c, bn: bn(c(x)).relu(),
        lambda x, c, bn: torch.batch_norm(
            *(c(x), bn.weight, bn.bias, bn.running_mean, bn.running_var),
            *(False, 0.1, bn.eps, False),
        ).relu(),
        lambda: (conv(), nn.BatchNorm2d(4)),
    ),
}


@pytest.mark.parametrize("composite", [c for c in COMPOSITES if c != "flex"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_a_network_have_one_explanation(name: str, composite: str) -> None:
    one, other, parts = SPELLINGS[name]
    modules, x = parts(), images(3, 8, 8)
    model = Lambda(one, *modules)
    with torch.no_grad():
        features = other(x.float(), *(m.eval() for m in modules)).flatten(1).shape[1]
    head = nn.Linear(features, 3)
    heatmaps = [
        Explainer(Lambda(f, *modules, head).double().eval(), composite)(x, "all-logits").heatmap
        for f in (one, other)
    ]
    assert isinstance(model, nn.Module)
    assert heatmaps[0].abs().sum() > 0
    torch.testing.assert_close(heatmaps[0], heatmaps[1])


def fused(convolution: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    result = nn.Conv2d(3, 4, 3, padding=1).double()
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    bias = 0 if convolution.bias is None else convolution.bias
    result.weight.data = convolution.weight * scale[:, None, None, None]
    result.bias.data = (bias - bn.running_mean) * scale + bn.bias
    return result


@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), AlphaBeta(), Gamma()])
@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_is_one_with_the_convolution_before_it(rule: object, bias: bool) -> None:
    convolution, bn, head = conv(bias=bias), nn.BatchNorm2d(4), nn.Linear(4 * 64, 3)
    for tensor in (bn.weight.data, bn.bias.data, bn.running_mean):
        tensor.normal_()
    composite = LayerComposite("one", dict.fromkeys(LAYER_TYPES, rule))
    two = Lambda(lambda x, c, b: b(c(x)).relu(), convolution, bn, head).double().eval()
    one = Lambda(lambda x, c: c(x).relu(), fused(convolution, bn), head)
    x = images(3, 8, 8) - 0.5  # inputs of either sign
    expected = Explainer(one, composite)(x, 1).heatmap
    torch.testing.assert_close(Explainer(two, composite)(x, 1).heatmap, expected)


def test_batch_norms_see_through_concatenations() -> None:
    """As in a DenseNet: each reader's batch norm is one with every convolution that it reads."""

    def dense(x: Tensor, c1: nn.Module, c2: nn.Module, bn: nn.Module) -> Tensor:
        return bn(torch.cat([c1(x), c2(x)], 1)).relu()

    def apart(x: Tensor, c1: nn.Module, c2: nn.Module, bn: nn.Module) -> Tensor:
        halves = zip(
            *(t.chunk(2) for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias)),
            strict=True,
        )
        outputs = [
            F.batch_norm(c(x), *half, eps=bn.eps).relu()
            for c, half in zip((c1, c2), halves, strict=True)
        ]
        return torch.cat(outputs, 1)

    parts = conv(), conv(bias=False), nn.BatchNorm2d(8), nn.Linear(8 * 64, 3)
    parts[2].weight.data.normal_()
    parts[2].running_mean.normal_()
    x = images(3, 8, 8)
    for composite in (c for c in COMPOSITES if c != "epsilon-gamma-box"):  # its zB stops there
        both = [
            Explainer(Lambda(f, *parts).double().eval(), composite)(x, "all-logits").heatmap
            for f in (dense, apart)
        ]
        torch.testing.assert_close(both[0], both[1])


MIXED = LayerComposite("mixed", {"convolution": ZPlus(), "dense": Epsilon()}, {"parts.1": Gamma()})


def dense_block(between: Callable[[Tensor], object]) -> Callable[..., Tensor]:
    """Return a dense block; a concatenation continues the one before it if nothing is between."""

    def block(x: Tensor, *parts: nn.Module) -> Tensor:
        features = [parts[0](x)]
        for bn, layer in zip(parts[1:-2:2], parts[2:-2:2], strict=True):
            joined = torch.cat(features, 1)
            between(joined)
            features.append(layer(bn(joined).relu()))
        # A concatenation of concatenations, as in a U-Net of dense blocks.
        joined = torch.cat([torch.cat(features, 1), parts[-2](x)], 1)
        between(joined)
        return parts[-1](joined).relu()

    return block


@pytest.mark.parametrize("composite", ["flex", *RULED, "dual", MIXED])
def test_concatenations_that_continue_one_another_change_nothing(composite: object) -> None:
    widths = (4, 7, 10)
    layers = [part for n in widths for part in (nn.BatchNorm2d(n), conv(n, 3))]
    parts = conv(bias=False), *layers, conv(), nn.BatchNorm2d(17), nn.Linear(17 * 64, 3)
    for part in parts:
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.normal_()
            part.bias.data.normal_()
    x = images(3, 8, 8)
    found = []
    for between in (lambda _: None, lambda joined: torch.cat([joined, joined])):
        model = Lambda(dense_block(between), *parts).double().train()
        explanation = Explainer(model, composite)(x, "all-logits", differentiable=True)
        loss = explanation.heatmap.pow(3).sum() + explanation.logits.square().sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        found.append((explanation.heatmap, *gradients))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_biases_are_constants_of_the_rules_and_weights_are_not() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    for composite in ("epsilon", "zplus", "alpha2-beta1"):
        explanation = Explainer(model, composite, epsilon=0.1)(
            images(3, 2, 2), "all-logits", differentiable=True
        )
        weight, bias = torch.autograd.grad(
            explanation.heatmap.square().sum(),
            list(model.parameters()),
            allow_unused=True,
            materialize_grads=True,
        )
        assert weight.abs().sum() > 0
        if composite != "alpha2-beta1":  # whose relevance starts as the logit, bias and all
            start = explanation.quantity
            assert start.requires_grad
        if composite == "zplus":
            assert bias.abs().sum() == 0


@pytest.mark.parametrize("composite", [c for c in COMPOSITES if c not in ("flex",)])
@pytest.mark.parametrize("training", [True, False])
def test_heatmaps_can_be_trained(composite: str, training: bool) -> None:
    """A step against the gradient of the heatmap's size makes it smaller."""
    parts = conv(), nn.BatchNorm2d(4), conv(4, 4), nn.Linear(4 * 64, 3)

    def network(x: Tensor, c1: nn.Module, bn: nn.Module, c2: nn.Module) -> Tensor:
        y = F.relu(bn(c1(x)), inplace=True)
        return F.relu(y + c2(y))

    model = Lambda(network, *parts).double().train(training)
    x = images(3, 8, 8)
    explainer = Explainer(model, composite, epsilon=0.05)

    def size() -> Tensor:
        return explainer(x, "all-logits", differentiable=True).heatmap.square().sum()

    before = size()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(before, parameters, allow_unused=True, materialize_grads=True)
    assert all(g.isfinite().all() for g in gradients)
    length = torch.cat([g.flatten() for g in gradients]).norm()
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-4 * gradient / length
    assert size() < before


@pytest.mark.parametrize("variant", ["flex", "dual"])
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_nothing_of_an_explanation_stays_in_memory(name: str, variant: str) -> None:
    model = torchvision.models.get_model(name, num_classes=3)
    gc.collect()
    gc.disable()
    try:
        explanation = Explainer(model, variant)(
            torch.rand(2, 3, 64, 64), "all-logits", differentiable=True
        )
        heatmap = weakref.ref(explanation.heatmap)
        nodes = weakref.ref(explanation.logits)
        del explanation
        assert heatmap() is None
        assert nodes() is None
    finally:
        gc.enable()


def _half(x: Tensor) -> Tensor:
    return 0.5 * x


def _half_(x: Tensor) -> Tensor:
    return x.mul_(0.5)


def _slice_(x: Tensor) -> Tensor:
    x[:, :1] = 0
    return x


IN_PLACE = {
    "relu6": (F.relu6, lambda x: F.relu6(x, inplace=True)),
    "silu": (F.silu, lambda x: F.silu(x, inplace=True)),
    "hardswish": (F.hardswish, lambda x: F.hardswish(x, inplace=True)),
    "leaky-relu": (F.leaky_relu, F.leaky_relu_),
    "clamp": (lambda x: x.clamp(-0.1, 0.2), lambda x: x.clamp_(-0.1, 0.2)),
    "clamp-above-0": (lambda x: x.clamp(0.1, 0.2), lambda x: x.clamp_(0.1, 0.2)),
    "threshold": (lambda x: F.threshold(x, 0.1, 0.0), lambda x: F.threshold(x, 0.1, 0.0, True)),
    "product": (_half, _half_),
    "slice": (lambda x: torch.cat([0 * x[:, :1], x[:, 1:]], 1), _slice_),
    "dropout": (lambda x: F.dropout(x, 0.0, True), lambda x: F.dropout(x, 0.0, True, True)),
}


@pytest.mark.parametrize("composite", [*RULED, "epsilon-plus", "epsilon-gamma-box", "dual"])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", IN_PLACE)
def test_what_writes_over_a_layers_output_is_explained_as_what_does_not(
    name: str, normalised: bool, composite: str
) -> None:
    layers = [conv(3), nn.BatchNorm2d(4) if normalised else nn.Identity(), nn.Identity()]
    model = nn.Sequential(*layers, conv(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model, x, found = model.double(), images(3, 6, 6), []
    for function in IN_PLACE[name]:
        model[2] = Applied(function)
        heatmap = Explainer(model, composite)(x, "all-logits", differentiable=True).heatmap
        gradient = torch.autograd.grad(heatmap.square().sum(), model[0].weight)[0]
        found.append((heatmap, gradient))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("composite", ["epsilon", "zplus"])
def test_what_writes_into_a_view_of_an_output_leaves_it_to_the_rule(composite: str) -> None:
    """EfficientNet's dropout writes into the flattened output of its last pool."""
    model = nn.Sequential(conv(), nn.AvgPool2d(2), nn.Flatten(), nn.Identity(), nn.Linear(36, 3))
    x, found = torch.rand(2, 3, 6, 6), []
    for model[3] in (Applied(lambda z: z * 2), Applied(lambda z: z.mul_(2))):
        heatmap = Explainer(model, composite)(x, 1, differentiable=True).heatmap
        found.append((heatmap, torch.autograd.grad(heatmap.square().sum(), model[0].weight)[0]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"])
def test_the_dual_isnet_trains_a_mobilenet(name: str) -> None:
    net = ISNet(torchvision.models.get_model(name, num_classes=3), "dual")
    masks = torch.zeros(2, 1, 32, 32)
    masks[..., :16] = 1
    explanation = net.explain(torch.rand(2, 3, 32, 32))
    ISNetLoss()(explanation, torch.tensor([0, 1]), masks).total.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def _branches_in_place(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    """Add up branches as MobileOne does."""
    y: Tensor = 0  # type: ignore[assignment]
    y += a(x)
    y += b(x)
    y += 0
    return y.relu_()


@pytest.mark.parametrize("composite", ["epsilon", "zplus", "dual"])
def test_branches_added_up_from_a_number_on_are_their_sum(composite: str) -> None:
    a, b, last = conv(), conv(), nn.Linear(144, 3)
    x, found = torch.rand(2, 3, 6, 6), []
    for function in (_branches_in_place, _add):
        model = Lambda(function, a, b, last)
        heatmap = Explainer(model, composite)(x, 1, differentiable=True).heatmap
        found.append((heatmap, torch.autograd.grad(heatmap.square().sum(), a.weight)[0]))
    torch.testing.assert_close(*found)


GATED = {
    "special.expit": lambda a, b: a * torch.special.expit(b),
    "glu": lambda a, b: F.glu(torch.cat([a, b], 1), 1),
}


@pytest.mark.parametrize("composite", ["flex", "epsilon", "zplus"])
@pytest.mark.parametrize("name", GATED)
def test_a_gate_by_another_name_gets_no_relevance(name: str, composite: str) -> None:
    a, b, last = conv(3).double(), conv(3).double(), nn.Linear(144, 3).double()
    x, found = images(3, 6, 6), []
    for function in (lambda a, b: a * torch.sigmoid(b), GATED[name]):
        model = Lambda(lambda x, a, b, function=function: function(a(x), b(x)), a, b, last)
        heatmap = Explainer(model, composite)(x, 1, differentiable=True).heatmap
        found.append((heatmap, torch.autograd.grad(heatmap.square().sum(), b.weight)[0]))
    torch.testing.assert_close(*found)


def test_rules_for_layers_refuse_a_module_in_half_precision() -> None:
    half = nn.Conv2d(3, 4, 3, padding=1).bfloat16()
    model = Lambda(lambda x, half: half(x.bfloat16()).float(), half, nn.Linear(144, 3))
    for composite in ("epsilon", "zplus", "dual"):
        with pytest.raises(
            RuntimeError,
            match=r"module 'parts.0' is in torch.bfloat16.*in torch.float32.*model.float",
        ):
            Explainer(model, composite)(torch.rand(2, 3, 6, 6))
    hidden = Applied(lambda x: half(x.bfloat16()).float().flatten(1))  # no module of the model
    with pytest.raises(RuntimeError, match=r"shape \[4, 3, 3, 3\] computes in torch.bfloat16"):
        Explainer(hidden, "zplus")(torch.rand(2, 3, 6, 6))
    assert Explainer(model)(torch.rand(2, 3, 6, 6)).heatmap.isfinite().all()
