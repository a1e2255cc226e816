"""Deferred rules: what functions make of relevance as one node, they make as several."""

from __future__ import annotations

import gc
from collections.abc import Callable
from weakref import ref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from custom_function import Doubled
from faster_isnet import Explainer
from faster_isnet.relevance.deferred_rules import DeferredRules
from faster_isnet.relevance.functions import RelevancePass


class Network(nn.Module):
    """A network of two convolutions; its steps are one node or, ``apart``, each one of its own."""

    def __init__(self, steps: Callable[[Network, Tensor], Tensor], apart: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.apart = steps, apart
        self.conv, self.other = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.norm, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.dense, self.norm1d = nn.Linear(4, 4), nn.BatchNorm1d(16)
        self.out = nn.Linear(4, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.steps(self, F.relu(self.conv(x))).mean((2, 3)))

    def then(self, x: Tensor) -> Tensor:
        """Hand ``x`` on; a copy is read by nothing that fuses rules."""
        return x.clone() if self.apart else x


def plain(n: Network, x: Tensor) -> Tensor:
    return F.relu(n.then(n.norm(n.then(n.other(x)))))


def in_place(n: Network, x: Tensor) -> Tensor:
    return F.relu(n.then(n.norm(n.then(n.other(x)))), inplace=True)


def norm_alone(n: Network, x: Tensor) -> Tensor:
    return n.other(n.then(F.relu(n.then(n.norm(x)))))


def two_norms_first(n: Network, x: Tensor) -> Tensor:
    return n.other(n.then(F.relu(n.then(n.second(n.then(n.norm(x))))))).sin()


def norm_first(n: Network, x: Tensor) -> Tensor:
    a = n.then(F.relu(n.then(n.norm(x)), inplace=True))
    return F.relu(n.then(n.second(n.then(n.other(a)))))


def norm_first_of_several(n: Network, x: Tensor) -> Tensor:
    a = n.then(F.relu(n.then(n.norm(x))))
    turned = F.conv_transpose2d(a, n.other.weight, stride=2)
    b = n.then(F.relu(n.then(n.second(x))))
    separate = F.conv2d(b, n.other.weight[:, :2], n.other.bias, groups=2)
    return (n.other(a) + separate + n.other(a).sin() + a[..., 2:, 2:]) * turned[..., :5, :5]


def without_norm(n: Network, x: Tensor) -> Tensor:
    return F.relu(n.then(n.other(x)))


def nothing_fuses(n: Network, x: Tensor) -> Tensor:
    return n.then(n.norm(n.then(n.other(x)))).sin()


def two_norms(n: Network, x: Tensor) -> Tensor:
    return F.relu(n.then(n.second(n.then(n.norm(n.then(n.other(x)))))))


def norms_of_two_modes(n: Network, x: Tensor) -> Tensor:
    n.second.eval()
    return F.relu(n.then(n.second(n.then(n.norm(x)))))


def norms_of_two_modes_the_other_way_round(n: Network, x: Tensor) -> Tensor:
    n.norm.eval()
    return F.relu(n.then(n.second(n.then(n.norm(x)))))


def norm_without_weight(n: Network, x: Tensor) -> Tensor:
    y = F.batch_norm(n.other(x), torch.zeros(4).to(x), torch.arange(1, 5).to(x), eps=0.5)
    return F.relu(n.then(n.norm(n.then(F.relu(n.then(y))))))


def read_before(n: Network, x: Tensor) -> Tensor:
    y = n.then(n.norm(n.then(n.other(x))))
    gate = y.sigmoid()
    return F.relu(y) * gate + y


def read_after(n: Network, x: Tensor) -> Tensor:
    conv = n.then(n.other(x))
    y = n.then(n.norm(conv))
    return F.relu(y) + 2 * y + conv.square()


def first_norm_read_after(n: Network, x: Tensor) -> Tensor:
    y = n.then(n.norm(x))
    return F.relu(n.second(y)) + y


def written_to(n: Network, x: Tensor) -> Tensor:
    y = n.then(n.norm(n.then(n.other(x))))
    y *= 2
    return F.relu(y)


def written_to_after(n: Network, x: Tensor) -> Tensor:
    y = n.then(n.norm(n.then(n.other(x))))
    a = F.relu(y)
    y += 1
    return a + y


def in_a_list(n: Network, x: Tensor) -> Tensor:
    y = n.then(n.norm(n.then(n.other(x))))
    return torch.cat([y, F.relu(y)], 2)


def concatenated(n: Network, x: Tensor) -> Tensor:
    y, z = n.then(n.other(x)), n.then(n.second(n.then(n.other(x))))
    return F.relu(torch.cat([y, x[..., 2:, 2:], z], 2))


def concatenated_twice(n: Network, x: Tensor) -> Tensor:
    y = n.then(n.other(x))
    z = n.then(n.norm(y))
    return F.relu(torch.cat([y, z], 2)) + torch.cat([z, y], 2)


def dense_block(n: Network, x: Tensor) -> Tensor:
    features = [x[..., 2:, 2:], n.then(n.other(x))]
    for _ in range(2):
        y = F.relu(n.then(n.second(n.then(torch.cat(features, 2))[..., :5, :5])))
        features.append(n.then(F.conv2d(y, n.other.weight, padding=1)))
    return torch.cat(features, 2)


def written_to_after_concatenation(n: Network, x: Tensor) -> Tensor:
    y = n.then(n.norm(n.then(n.other(x))))
    z = torch.cat([y, y], 2)
    y += 1
    return F.relu(z) + torch.cat([y, y], 2)


def dense_of_three_dimensions(n: Network, x: Tensor) -> Tensor:
    sequence = x.flatten(2).transpose(1, 2)[:, :16]
    y = F.relu(n.then(n.norm1d(n.then(n.dense(sequence)))))
    return y.transpose(1, 2)[..., None]


ALL = [
    *(plain, in_place, norm_alone, two_norms_first, norm_first, norm_first_of_several),
    *(without_norm, nothing_fuses, two_norms),
    *(
        norms_of_two_modes,
        norms_of_two_modes_the_other_way_round,
        norm_without_weight,
        read_before,
        read_after,
        first_norm_read_after,
        written_to,
        written_to_after,
        in_a_list,
    ),
    *(concatenated, concatenated_twice, dense_block, written_to_after_concatenation),
    dense_of_three_dimensions,
]


def gradients(model: nn.Module, x: Tensor, differentiable: bool, target: int | str) -> list[Tensor]:
    """Return the heatmap, and if it is differentiable the gradients of a function of it."""
    explanation = Explainer(model)(x, target, differentiable=differentiable)
    if not differentiable:
        return [explanation.heatmap]
    loss = explanation.heatmap.square().sum() + explanation.logits.square().sum()
    found = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)
    return [explanation.heatmap, *(g for g in found if g is not None)]


@pytest.mark.parametrize("target", [0, "all-classes"])
@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", ALL)
def test_one_node_is_what_several_are(
    steps: Callable[[Network, Tensor], Tensor],
    training: bool,
    differentiable: bool,
    target: int | str,
) -> None:
    x = torch.rand(3, 2, 9, 9, dtype=torch.float64)
    found, expected = (
        gradients(Network(steps, apart).double().train(training), x, differentiable, target)
        for apart in (False, True)
    )
    assert len(found) == len(expected)
    largest = max(float(other.detach().abs().max()) for other in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12 * largest)


def test_what_has_no_gradient_keeps_none() -> None:
    def steps(n: Network, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = n.norm(n.other(x))
        return F.relu(x[..., 2:, 2:]) + F.relu(y)

    n = Network(steps).double()
    heatmap, *found = gradients(n, torch.rand(3, 2, 9, 9, dtype=torch.float64), True, 0)
    used = (*n.conv.parameters(), *n.out.parameters())
    assert len(found) == len(used)
    assert heatmap.abs().sum() > 0


def test_rules_keep_no_outputs_alive() -> None:
    deferred, x = DeferredRules(), torch.ones(2, requires_grad=True)
    y = x * 2
    gone = ref(deferred.defer(y, lambda g, x: (g,), x))
    del y
    gc.collect()
    assert gone() is None
    assert list(deferred.reset()) == []


@pytest.mark.parametrize("written", ["output", "operand"])
def test_a_rule_is_void_once_its_output_or_an_operand_was_written_to(written: str) -> None:
    deferred, x, factor = DeferredRules(), torch.ones(2, requires_grad=True), torch.ones(2)
    y = deferred.defer(x * 2, lambda g, *_: (g, None), x, factor)
    assert deferred.fuse(y) is not None
    with torch.no_grad():
        (y if written == "output" else factor).add_(1)
    assert deferred.fuse(y) is None
    assert not deferred


def test_a_rule_is_gone_once_a_function_that_fuses_it_overwrites_the_output() -> None:
    deferred, x = DeferredRules(), torch.ones(2, requires_grad=True)
    for overwrites in (True, False):
        y = deferred.defer(x * 2, lambda g, x: (g,), x)
        assert deferred.fuse(y, overwrites) is not None
        assert (deferred.fuse(y) is None) == overwrites


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("how", ["flush", "flush a list", "reset"])
def test_rules_are_put_into_the_graph_before_anything_else_reads(how: str, fused: bool) -> None:
    x, relevance_pass = torch.ones(2, requires_grad=True), RelevancePass()
    y, other = (relevance_pass.defer(x * 2, lambda g, x: (7 * g,), x) for _ in range(2))
    if fused:
        relevance_pass.deferred.fuse(y)
    if how == "reset":
        relevance_pass.reset()
    else:
        relevance_pass.flush([y] if how == "flush" else [{"tensors": [y]}])
    with relevance_pass.running():
        gradients = [torch.autograd.grad(z.sum(), x)[0].tolist() for z in (y, other)]
    assert gradients == [[7, 7], [7, 7] if how == "reset" else [2, 2]]


def test_a_convolution_its_batch_norm_and_its_relu_are_one_node() -> None:
    """The fast path: relevance of the ReLU goes straight to what the convolution reads."""
    outputs = []
    n = Network(lambda n, x: outputs.append(F.relu(n.norm(n.other(x)))) or x).double()
    Explainer(n)(torch.rand(3, 2, 9, 9, dtype=torch.float64), 0, differentiable=True)
    (node,) = [output.grad_fn for output in outputs]
    assert type(node).__name__ == "ReLUBackward"
    before = [type(function).__name__ for function, _ in node.next_functions if function]
    assert before[0] == "NativeBatchNormBackward0"
    assert before[1:] == ["ReLUBackward", "AccumulateGrad", "AccumulateGrad"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", ["conv", "norm", "relu", "norm, relu", "relu, norm", "temporary"])
def test_a_custom_function_reads_what_a_torch_function_would(last: str, training: bool) -> None:
    def steps(double: Callable[[Tensor], Tensor]) -> Callable[[Network, Tensor], Tensor]:
        def run(n: Network, x: Tensor) -> Tensor:
            if last == "temporary":  # nothing of what it reads is left when it has read it
                return F.relu(double(n.norm(n.other(x))))
            y = n.other(x)
            y = n.norm(y) if "norm" in last else y
            y = F.relu(y) if last == "relu" else y
            first = F.relu(y) if last == "relu, norm" else 0
            z = double(y)
            return F.relu(y) + z if last == "norm, relu" else first + z

        return run

    x = torch.rand(3, 2, 9, 9, dtype=torch.float64)
    found, expected = (
        gradients(Network(steps(double)).double().train(training), x, True, 0)
        for double in (Doubled.apply, lambda y: 2 * y)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


class ReadsOwnOutput(nn.Module):
    """Returns what a layer of its own has read, too."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = [network]

    def forward(self, x: Tensor) -> Tensor:
        (n,) = self.network
        a = n.then(F.relu(n.then(n.norm(x))))
        n.aside = n.other(a)
        return a


def test_a_hidden_layer_gets_all_of_its_relevance() -> None:
    """Also what layers send that have read it before its module returned it."""

    def hidden(apart: bool) -> Tensor:
        def steps(n: Network, x: Tensor) -> Tensor:
            return n.inner(x)[..., 2:, 2:] * n.aside

        n = Network(steps, apart)
        n.inner = ReadsOwnOutput(n)
        x = torch.rand(3, 2, 9, 9, dtype=torch.float64)
        return Explainer(n.double(), layers=["inner"])(x, 0, differentiable=True).layers["inner"]

    torch.testing.assert_close(hidden(False), hidden(True))


@pytest.mark.parametrize("sees", ["register_hook", "retain_grad"])
@pytest.mark.parametrize(
    ("what", "training", "differentiable"),
    [("relu", True, True), ("norm", False, False), ("conv", False, True)],
)
def test_who_looks_at_what_arrives_at_a_tensor_sees_all_of_it(
    what: str, training: bool, differentiable: bool, sees: str
) -> None:
    seen: dict[bool, Tensor] = {}

    def arrived(apart: bool) -> Tensor:
        def watched(n: Network, name: str, tensor: Tensor) -> Tensor:
            if name == what and sees == "register_hook":
                tensor.register_hook(lambda g: seen.update({apart: g.detach()}))
            elif name == what:
                tensor.retain_grad()
                n.looked_at = tensor
            return n.then(tensor)

        def steps(n: Network, x: Tensor) -> Tensor:
            y = watched(n, "conv", n.other(x))
            z = watched(n, "norm", n.norm(y))
            return n.other(watched(n, "relu", F.relu(z)))

        n = Network(steps, apart).double().train(training)
        x = torch.rand(3, 2, 9, 9, dtype=torch.float64)
        Explainer(n)(x, 0, differentiable=differentiable)
        return seen[apart] if sees == "register_hook" else n.looked_at.grad

    torch.testing.assert_close(arrived(False), arrived(True))


def test_a_relu_may_be_looked_at_in_inference_mode() -> None:
    def steps(n: Network, x: Tensor) -> Tensor:
        z = n.norm(x)
        with torch.inference_mode():
            n.active = (F.relu(z) > 0).double().mean()
        return n.other(F.relu(z))

    x = torch.rand(3, 2, 9, 9, dtype=torch.float64)
    found, expected = (
        gradients(Network(looked_at).double(), x, True, 0) for looked_at in (steps, norm_alone)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


class ReadsImageAgain(Network):
    """Reads the image a second time, between the first and the second reader of a batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.then(self.norm(self.then(self.other(F.relu(self.conv(x))))))
        a = F.relu(y)
        return self.out((a * self.conv(x[..., 2:, 2:]) + y.sin()).mean((2, 3)))


def test_rules_stay_deferred_while_the_image_is_read_again() -> None:
    x = torch.rand(3, 2, 9, 9, dtype=torch.float64)
    found, expected = (
        Explainer(ReadsImageAgain(plain, apart).double(), input_rule="zb")(x, 0).heatmap
        for apart in (False, True)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("steps", ALL)
def test_a_graph_that_is_no_longer_needed_is_gone(
    steps: Callable[[Network, Tensor], Tensor],
) -> None:
    """No node keeps itself: memory is free at once, and not when Python looks for cycles."""
    n = Network(steps).double()
    images: list[ref[Tensor]] = []
    n.register_forward_pre_hook(lambda module, args: images.append(ref(args[0])))
    gc.collect()
    gc.disable()
    try:
        explanation = Explainer(n)(
            torch.rand(3, 2, 9, 9, dtype=torch.float64), 0, differentiable=True
        )
        assert images[0]() is not None
        del explanation
        assert images[0]() is None
    finally:
        gc.enable()
