"""torch.compile beside the engine; see docs/compile.md."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32" or not (shutil.which("g++") or shutil.which("clang++")),
        reason="torch.compile needs a C++ compiler",
    ),
    pytest.mark.filterwarnings("ignore"),  # torch.compile's own
]
TRACED = pytest.mark.parametrize("backend", ["eager", "aot_eager"])


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    torch.compiler.reset()


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)),
        *(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    ).double()


def images() -> Tensor:
    return torch.rand(2, 3, 12, 12, dtype=torch.float64)


def loss(net: ISNet, x: Tensor) -> Tensor:
    explanation = net.explain(x)
    return explanation.heatmap.abs().mean() + explanation.logits.square().sum()


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
def test_trained_backbone_compiles(backend: str) -> None:
    net, x = ISNet(network()), images()
    loss(net, x).backward()
    net.eval()
    compiled = torch.compile(net.backbone, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x))


@TRACED
def test_a_model_is_explained_and_trained_while_its_compiled_version_exists(backend: str) -> None:
    net, x = ISNet(network().eval()), images()
    expected = Explainer(net.backbone)(x).heatmap
    compiled = torch.compile(net.backbone, backend=backend)
    compiled(x).sum().backward()
    for model in (net.backbone, compiled._orig_mod):
        torch.testing.assert_close(Explainer(model)(x).heatmap, expected)
    before = compiled(x)
    loss(net, x).backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    assert not torch.allclose(compiled(x), before)  # the weights are the same ones
    torch.testing.assert_close(compiled(x), net(x))


@TRACED
def test_compiled_isnet_predicts_compiled_and_explains_as_ever(backend: str) -> None:
    net, x = ISNet(network().eval()), images()
    compiled = torch.compile(net, backend=backend)
    torch.testing.assert_close(compiled(x), net(x))
    torch.testing.assert_close(compiled.explain(x).heatmap, net.explain(x).heatmap)


@TRACED
def test_explanation_in_a_compiled_function_runs_as_it_is(backend: str) -> None:
    explainer, x = Explainer(network().eval()), images()
    expected = explainer(x * 2).heatmap + 1
    compiled = torch.compile(lambda x: explainer(x * 2).heatmap + 1, backend=backend)
    for _ in range(3):  # the first was wrong once, the second right
        torch.testing.assert_close(compiled(x), expected)


@TRACED
def test_training_step_in_a_compiled_function_explains_as_it_is(backend: str) -> None:
    net, x = ISNet(network()), images()
    loss(net, x).backward()
    expected = [p.grad for p in net.parameters()]
    net.zero_grad()
    torch.compile(loss, backend=backend)(net, x).backward()
    torch.testing.assert_close([p.grad for p in net.parameters()], expected)


def test_compiled_modules_are_refused() -> None:
    model = network()
    with pytest.raises(TypeError, match=r"compiled by torch.compile.*explain .* its ._orig_mod"):
        ISNet(torch.compile(model, backend="eager"))
    model[0] = torch.compile(model[0], backend="eager")  # within a model as well
    with pytest.raises(TypeError, match=r"module '0' is compiled by torch.compile"):
        Explainer(model)


def test_module_compiled_in_place_is_refused_even_later() -> None:
    model = network()
    explainer = Explainer(model)
    model[3].compile(backend="eager")
    with pytest.raises(TypeError, match=r"module '3' .*compiled = torch.compile\(module\)"):
        explainer(images())


def test_a_relevance_pass_of_a_compiled_model_has_no_double_backward() -> None:
    """The reason in PyTorch: should this test fail, it is time to look again."""
    x = images().requires_grad_()
    logits = torch.compile(network().eval(), backend="aot_eager")(x)
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        g.sum().backward()


def test_trained_backbone_exports() -> None:
    net, x = ISNet(network()), images()
    loss(net, x).backward()
    net.eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net.backbone, (x,), dynamic_shapes=({0: batch},))
    more = torch.cat([x, images()[:1]])
    torch.testing.assert_close(program.module()(more), net(more))
