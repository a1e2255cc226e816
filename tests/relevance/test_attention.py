"""Attention has one explanation in all its spellings, by the rules of AttnLRP or CP-LRP."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet, ISNetLoss
from faster_isnet.relevance import Interception, RelevancePass
from faster_isnet.relevance.attention import AttentionRule, Recomputed
from faster_isnet.relevance.composites import cp_lrp, flex, gradient_x_input

HEADS, WIDTH, TOKENS = 2, 8, 16
COMPOSITES = ["flex", "cp-lrp", "gradient-x-input", "epsilon", "zplus"]


def fused(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return _joined(module, F.scaled_dot_product_attention(*_heads(module, x)))


def by_matmul(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    q, k, v = _heads(module, x)
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    return _joined(module, weights @ v)


def by_bmm(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    q, k, v = (t.flatten(0, 1) for t in _heads(module, x))
    scores = torch.baddbmm(torch.zeros_like(q[:, :1, :1]), q / q.shape[-1] ** 0.5, k.mT)
    y = torch.bmm(F.softmax(scores, dim=-1), v)
    return _joined(module, y.unflatten(0, (-1, HEADS)))


def by_einsum(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    q, k, v = _heads(module, x)
    scores = torch.einsum("bhnd,bhmd->bhnm", q * q.shape[-1] ** -0.5, k)
    return _joined(module, torch.einsum("bhnm,bhmd->bhnd", torch.softmax(scores, -1), v))


def module_without_weights(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return module(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


def module_with_weights(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return module(x, x, x)[0]  # type: ignore[no-any-return]


SPELLINGS = [fused, by_matmul, by_bmm, by_einsum, module_without_weights, module_with_weights]


def _heads(module: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    qkv = F.linear(x, module.in_proj_weight, module.in_proj_bias)
    q, k, v = qkv.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def _joined(module: nn.MultiheadAttention, y: Tensor) -> Tensor:
    return module.out_proj(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Two blocks of attention and a perceptron."""

    def __init__(self, attention: Callable[[nn.MultiheadAttention, Tensor], Tensor]) -> None:
        super().__init__()
        self.attention = attention
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.heads = nn.ModuleList(
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH)) for _ in range(2)
        )
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        for i, (head, perceptron) in enumerate(zip(self.heads, self.perceptrons, strict=True)):
            x = x + self.attention(head, self.norms[2 * i](x))
            x = x + perceptron(self.norms[2 * i + 1](x))
        return self.last(x.mean(1))


def transformer(attention: Callable[[nn.MultiheadAttention, Tensor], Tensor]) -> Transformer:
    torch.manual_seed(0)
    return Transformer(attention).double()


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator)


def explained(model: nn.Module, composite: str) -> tuple[Tensor, list[Tensor]]:
    """Return the heatmap, and the gradients of the heatmap loss."""
    masks = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    masks[..., 4:12, 4:12] = 1
    explanation = ISNet(model, composite=composite).explain(images())
    loss = ISNetLoss()(explanation, torch.tensor([0, 2]), masks).heatmap
    return explanation.heatmap, list(torch.autograd.grad(loss, list(model.parameters())[:-1]))


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("spelling", SPELLINGS[1:])
def test_every_spelling_has_one_explanation_and_one_gradient(
    spelling: Callable[..., Tensor], composite: str
) -> None:
    heatmap, gradients = explained(transformer(fused), composite)
    other, of_other = explained(transformer(spelling), composite)
    torch.testing.assert_close(other, heatmap, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(of_other, gradients, rtol=1e-9, atol=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in gradients[:4])


@pytest.mark.parametrize("composite", COMPOSITES)
def test_all_classes_at_once_have_the_heatmaps_of_each(composite: str) -> None:
    explainer = Explainer(transformer(fused), composite)
    together = explainer(images(), "all-classes", differentiable=True).heatmap
    each = [explainer(images(), index, differentiable=True).heatmap for index in range(3)]
    torch.testing.assert_close(together, torch.cat(each, 1))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_constant_attention_weights_conserve_relevance(spelling: Callable[..., Tensor]) -> None:
    model = transformer(spelling)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.data.zero_()
    explanation = Explainer(model, "cp-lrp", epsilon=0.0)(images())
    sums = explanation.heatmap.flatten(2).sum(2)
    torch.testing.assert_close(sums, explanation.quantity, rtol=1e-6, atol=1e-12)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "mask": {"attn_mask": torch.rand(5, 5).gt(0.3) | torch.eye(5).bool()},
    "bias": {"attn_mask": torch.randn(2, 5, 5, dtype=torch.float64)},
    "learned bias": {"attn_mask": torch.randn(4, 5, 5, dtype=torch.float64, requires_grad=True)},
    "groups of queries": {"enable_gqa": True},
}
RULES = [flex, cp_lrp, gradient_x_input]


def _attended(
    composite: Callable[[float], Any], options: dict[str, Any], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return attention, and G of queries, keys and values for G of ones."""
    relevance_pass = RelevancePass()
    sources = [t.clone() for t in inputs]
    relevance_pass.sources = frozenset(t.grad_fn for t in sources)
    with Interception(composite(0.0).table, relevance_pass):
        y = F.scaled_dot_product_attention(*sources, **options)
    with relevance_pass.running():
        ones = torch.ones_like(y)
        return y, torch.autograd.grad(y, inputs, ones, create_graph=True, allow_unused=True)


def _inputs(options: dict[str, Any]) -> tuple[Tensor, ...]:
    heads = 2 if options.get("enable_gqa") else 4
    shapes = (2, 4, 5, 3), (2, heads, 5, 3), (2, heads, 5, 3)
    if options.get("attn_mask") is not None and options["attn_mask"].dim() == 3:
        shapes = tuple((*shape[:1], len(options["attn_mask"]), *shape[2:]) for shape in shapes)
    return tuple(torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)


@pytest.mark.parametrize("composite", RULES)
@pytest.mark.parametrize("name", OPTIONS)
def test_the_fused_function_shares_relevance_by_constants(
    name: str, composite: Callable[[float], Any]
) -> None:
    inputs = _inputs(OPTIONS[name])
    y, found = _attended(composite, OPTIONS[name], inputs)
    plain = F.scaled_dot_product_attention(*inputs, **OPTIONS[name])
    torch.testing.assert_close(y, plain)
    expected = torch.autograd.grad(plain.sum(), inputs)
    shares = {flex: (0.25, 0.25, 0.5), cp_lrp: (0, 0, 1), gradient_x_input: (1, 1, 1)}[composite]
    for share, ours, theirs in zip(shares, found, expected, strict=True):
        torch.testing.assert_close(torch.zeros(()) if ours is None else ours, share * theirs)


@pytest.mark.parametrize("name", OPTIONS)
def test_its_relevance_is_differentiable_twice(name: str) -> None:
    def relevance(*inputs: Tensor) -> tuple[Tensor | None, ...]:
        return _attended(flex, OPTIONS[name], inputs)[1]

    inputs = _inputs(OPTIONS[name])
    # In random directions: a minute less than each element by itself.
    assert torch.autograd.gradcheck(relevance, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(relevance, inputs, fast_mode=True)


def test_what_is_recomputed_has_the_functions_gradients() -> None:
    def function(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a * b.sin(), a.exp()

    inputs = tuple(torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    arguments = (lambda *t: Recomputed.apply(function, *t), inputs)
    assert torch.autograd.gradcheck(*arguments)
    assert torch.autograd.gradgradcheck(*arguments)


class Kept:
    """A tensor that the graph keeps."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_no_attention_weights_are_kept() -> None:
    """Only queries, keys, values and G are, for the gradient of the relevance."""
    kept = weakref.WeakSet[Kept]()

    def keep(tensor: Tensor) -> Kept:
        kept.add(holder := Kept(tensor))
        return holder

    q = torch.randn(1, 1, 40, 2, requires_grad=True)
    relevance_pass, source = RelevancePass(), q.clone()
    relevance_pass.sources = frozenset([source.grad_fn])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda holder: holder.tensor):
        with Interception(flex(0.0).table, relevance_pass):
            y = F.scaled_dot_product_attention(source, source, source)
        with relevance_pass.running():
            (relevance,) = torch.autograd.grad(y, q, torch.ones_like(y), create_graph=True)
    assert relevance.requires_grad
    assert kept
    assert max(holder.tensor.numel() for holder in kept) < 40 * 40


def test_queries_that_are_weights_get_no_share() -> None:
    """Attention pooling: the scores' relevance is the keys' alone."""
    latent = torch.randn(2, 4, 1, 3, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    relevance_pass, sources = RelevancePass(), (k.clone(), v.clone())
    relevance_pass.sources = frozenset(t.grad_fn for t in sources)
    with Interception(flex(0.0).table, relevance_pass):
        y = F.scaled_dot_product_attention(latent, *sources)
    with relevance_pass.running():
        of_k, of_v = torch.autograd.grad(y.sum(), (k, v))
    expected = torch.autograd.grad(F.scaled_dot_product_attention(latent, k, v).sum(), (k, v))
    torch.testing.assert_close((of_k, of_v), tuple(g / 2 for g in expected))


def test_dropped_attention_weights_are_the_same_in_the_relevance() -> None:
    model = transformer(fused)
    dropped: list[Tensor] = []

    def attention(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*_heads(module, x), dropout_p=0.5)
        dropped.append(y.detach())
        return _joined(module, y)

    model.attention = attention
    for parameter in model.parameters():
        if parameter.dim() == 1 and parameter.shape != (WIDTH,):
            parameter.data.zero_()
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.data.zero_()
    explanation = Explainer(model, "cp-lrp", epsilon=0.0)(images())
    # Conserved only if the relevance goes where the dropped weights let the values through.
    sums = explanation.heatmap.flatten(2).sum(2)
    torch.testing.assert_close(sums, explanation.quantity, rtol=1e-6, atol=1e-12)


def test_attention_weights_that_multiply_elements_are_a_gate() -> None:
    class Selective(nn.Module):
        """Two branches, weighed by a softmax over them (Li et al., 2019)."""

        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Conv2d(3, 4, 3, bias=False) for _ in range(2))
            self.weigh, self.last = nn.Linear(4, 8), nn.Linear(4, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.stack([branch(x) for branch in self.branches], 1)
            weights = self.weigh(y.sum(1).mean((2, 3))).view(-1, 2, 4).softmax(1)
            return self.last((y * weights[..., None, None]).sum(1).mean((2, 3)))

    explanation = Explainer(Selective().double(), epsilon=0.0)(images())
    sums = explanation.heatmap.flatten(2).sum(2)
    torch.testing.assert_close(sums, explanation.quantity, rtol=1e-6, atol=1e-12)


def test_the_fused_function_itself_runs_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        "faster_isnet.relevance.written_out.scaled_dot_product_attention",
        lambda *_, **__: calls.append("written out"),
    )
    rule = AttentionRule()
    query = torch.randn(1, 1, 4, 2, requires_grad=True)
    y = rule(RelevancePass(), F.scaled_dot_product_attention, (query, query, query), {})
    assert "ScaledDotProduct" in _names(y.grad_fn)
    assert not calls


def _names(node: Any) -> str:
    return "" if node is None else node.name() + "".join(_names(n) for n, _ in node.next_functions)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_queries_may_be_made_of_what_values_are_a_part_of(composite: str) -> None:
    """As rotary position embeddings do; torch has one node for all parts of a tensor."""

    class Rotated(nn.Module):
        def __init__(self, fused: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fused, self.qkv, self.head = fused, nn.Linear(3, 3 * WIDTH), nn.Linear(WIDTH, 2)

        def forward(self, x: Tensor) -> Tensor:
            qkv = self.qkv(x.flatten(2).mT).unflatten(2, (3, 1, WIDTH)).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            q, k = (torch.cat([t[..., 1:], -t[..., :1]], -1).exp2().log2() for t in (q, k))
            if self.fused:
                y = F.scaled_dot_product_attention(q, k, v)
            else:
                y = (q @ k.mT * WIDTH**-0.5).softmax(-1) @ v
            return self.head(y.mean((1, 2)))  # type: ignore[no-any-return]

    x, results = torch.rand(2, 3, 4, 4).double(), []
    for fused in (True, False):
        model = Rotated(fused).double()
        plain = Explainer(model, composite)(x, 1).heatmap
        explanation = Explainer(model, composite)(x, 1, differentiable=True)
        assert torch.allclose(explanation.heatmap, plain, rtol=1e-9)
        explanation.heatmap.square().sum().backward()
        results.append([plain, *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-14)
