"""Products of tensors that depend on the image both: relevance half and half."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from faster_isnet import Explainer
from faster_isnet.relevance.products import leads_to

COMPOSITES = ["flex", "epsilon", "zplus"]


class Two(nn.Module):
    """Combines two branches of an image by a function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 4, 3, padding=1, bias=False) for _ in range(2))
        self.function, self.last = function, nn.LazyLinear(3, bias=False)
        self.double().eval()(images())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.a(x), self.b(x)).flatten(1))


def images() -> Tensor:
    return torch.rand(2, 3, 4, 4, dtype=torch.float64)


def _slice_in_place(a: Tensor, b: Tensor) -> Tensor:
    y = a.clone()
    y[:, :2].mul_(b[:, :2])
    return y


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mul": lambda a, b: a * b,
    "multiply": lambda a, b: torch.multiply(a, other=b),
    "in-place": lambda a, b: a.clone().mul_(b),
    "in-place, of a slice": _slice_in_place,
    "broadcast": lambda a, b: a * b.mean((2, 3), keepdim=True),
    "square": lambda a, b: a * a,
    "torch.square": lambda a, b: torch.square(b),
    "power of 2": lambda a, b: a**2,
    "power of 3": lambda a, b: a.pow(3.0),
    "matmul": lambda a, b: a @ b.mT,
    "bmm": lambda a, b: torch.bmm(a.flatten(0, 1), b.flatten(0, 1)).view(a.shape),
    "einsum": lambda a, b: torch.einsum("bchw,bdhw->bcd", a, b),
    "einsum of three": lambda a, b: torch.einsum("bchw,bchw,bdhw->bcd", a, b, a),
    "in-place activation behind": lambda a, b: torch.einsum("bchw,bchw->bwhc", a, b).relu_(),
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_relevance_is_kept(name: str, composite: str) -> None:
    model = Two(PRODUCTS[name])
    explanation = Explainer(model, composite, 0.0)(images(), "all-classes")
    sums = explanation.heatmap.flatten(2).sum(2)
    torch.testing.assert_close(sums, explanation.quantity, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["mul", "in-place", "matmul", "einsum"])
def test_both_factors_have_one_half(name: str) -> None:
    model = Two(PRODUCTS[name])
    explanation = Explainer(model, epsilon=0.0, layers=["a", "b"])(images(), 1)
    for relevance in explanation.layers.values():
        sums = relevance.flatten(2).sum(2)
        torch.testing.assert_close(sums, explanation.quantity / 2)


WEIGHTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "weight": lambda a, b: a * torch.full((4, 1, 1), 2.0, dtype=a.dtype).requires_grad_(),
    "made of weights": lambda a, b: a * torch.ones(4, 1, 1).requires_grad_().exp(),
    "mask": lambda a, b: (torch.rand(4, 4) < 0.5) * a,
    "gate": lambda a, b: b.sigmoid() * a,
    "what a gate leaves": lambda a, b: a * (1 - b.sigmoid().mean((2, 3), keepdim=True)),
    "in-place gate": lambda a, b: a * b.clone().sigmoid_(),
    "detached": lambda a, b: a * b.detach(),
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_masks_and_gates_have_none(name: str, composite: str) -> None:
    torch.manual_seed(0)
    model = Two(WEIGHTED[name])
    explainer = Explainer(model, composite, 0.0, layers=["a"])
    explanation = explainer(images(), 1)
    relevance = explanation.layers["a"].flatten(2).sum(2)
    torch.testing.assert_close(relevance, explanation.quantity, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", ["mul", "in-place", "square", "power of 3", "matmul", "einsum"])
def test_the_heatmap_is_differentiable(name: str, composite: str) -> None:
    model, x = Two(PRODUCTS[name]), images()[:1]
    explainer = Explainer(model, composite, 0.1)

    def heatmap(a: Tensor, b: Tensor) -> Tensor:
        weights: dict[str, Any] = {"a.weight": a, "b.weight": b}

        class Called(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.func.functional_call(model, weights, (x,))

        explainer.model = Called()
        return explainer(x, 1, differentiable=True).heatmap

    weights = model.a.weight.detach(), model.b.weight.detach()
    assert torch.autograd.gradcheck(heatmap, [w.requires_grad_() for w in weights], fast_mode=True)


def test_gradient_x_input_is_the_gradient() -> None:
    model, x = Two(PRODUCTS["mul"]), images().requires_grad_()
    heatmap = Explainer(model, "gradient-x-input")(x, 1).heatmap[:, 0]
    (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    torch.testing.assert_close(heatmap, x * gradient)


def test_what_is_checkpointed_has_the_same_heatmap() -> None:
    model, x = Two(PRODUCTS["mul"]), images()
    expected = Explainer(model)(x, 1).heatmap
    model.function = lambda a, b: checkpoint(PRODUCTS["mul"], a, b, use_reentrant=False)
    torch.testing.assert_close(Explainer(model)(x, 1).heatmap, expected)


def test_the_standard_gradient_is_pytorchs() -> None:
    for function in PRODUCTS.values():
        model, x = Two(function), images()
        logits = Explainer(model)(x, 1, differentiable=True).logits
        found = torch.autograd.grad(logits.square().sum(), model.a.weight, allow_unused=True)
        expected = torch.autograd.grad(model(x).square().sum(), model.a.weight, allow_unused=True)
        torch.testing.assert_close(found, expected)


def test_a_product_of_pixels_is_not_taken_for_preprocessing() -> None:
    """Of a square, both corners of zB's box would be squared, too: [-1, 1] became [1, 1]."""
    conv = nn.Conv2d(3, 4, 3)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(16, 3))
    explainer = Explainer(model, input_rule="zb", input_low=-1)
    x = torch.rand(2, 3, 4, 4)
    for squared in (lambda module, args: args[0] * args[0], lambda module, args: 1 / args[0]):
        hook = conv.register_forward_pre_hook(squared)
        with pytest.raises(RuntimeError, match="is not affine"):
            explainer(x)
        hook.remove()
    hook = conv.register_forward_pre_hook(lambda module, args: torch.full((3, 1, 1), 2.0) * args[0])
    assert explainer(x).heatmap.isfinite().all()
    hook.remove()


def test_where_a_tensor_comes_from() -> None:
    x, w = torch.rand(3, requires_grad=True).clone(), torch.rand(3, requires_grad=True)
    sources = frozenset([x.grad_fn])
    assert leads_to(x, sources)
    assert leads_to(w.exp() + 2 * x, sources)
    assert not leads_to(w.exp(), sources)
    assert not leads_to(x.detach(), sources)


class Nodes(frozenset):  # type: ignore[type-arg]
    """Nodes that count how often one is looked up."""

    looked_up = 0

    def __contains__(self, node: Any) -> bool:
        self.looked_up += 1
        return super().__contains__(node)


def test_what_has_been_followed_is_not_followed_again() -> None:
    """So the search takes a time linear in a network's depth."""
    x, other = (torch.ones(2, requires_grad=True).clone() for _ in range(2))
    sources, y, counts = Nodes([x.grad_fn]), x, []
    for _ in range(6):
        y = y + y.sin()
        before = sources.looked_up
        assert leads_to(y.exp(), sources)
        counts.append(sources.looked_up - before)
    assert max(counts) == counts[0]
    assert not leads_to(y, frozenset([other.grad_fn]))
    assert not leads_to(other.exp(), sources)


def test_what_has_been_followed_is_not_kept_alive() -> None:
    pixels = torch.ones(2, requires_grad=True)
    image = pixels.clone()
    assert leads_to(image.exp().sin(), frozenset([image.grad_fn]))
    alive = weakref.ref(pixels)
    gc.disable()
    try:
        del pixels, image
        assert alive() is None
    finally:
        gc.enable()
