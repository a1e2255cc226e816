"""Which functions carry relevance, and which have no rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from custom_function import Doubled
from faster_isnet import Explainer
from layered_networks import Applied, conv

X = torch.rand(2, 3, 6, 6)
# What a model does, and the names of what no composite knows of it.
UNKNOWN: dict[str, tuple[Callable[[Tensor], Tensor], set[str]]] = {
    "exp": (lambda x: x.exp() - 1, {"exp"}),
    "log1p": (lambda x: torch.log1p(x.abs()), {"log1p"}),
    "sin": (torch.sin, {"sin"}),
    "special": (lambda x: torch.special.entr(x.abs()), {"special_entr"}),
    "prod": (lambda x: x.unflatten(1, (2, 2)).prod(1), {"prod"}),
    "logsumexp": (lambda x: x.logsumexp(1, keepdim=True), {"logsumexp"}),
    "custom function": (Doubled.apply, {"doubled"}),
    "cosine": (lambda x: F.cosine_similarity(x, x.flip(1), 1)[:, None], {"div", "mul"}),
    "product by another name": (lambda x: torch.addcmul(x, x, x.flip(1)), {"addcmul"}),
    "two of them": (lambda x: x.sin() + x.exp(), {"sin", "exp"}),
}
KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gate": lambda x: x * torch.sigmoid(x),
    "gate of exponentials": lambda x: x / (1 + torch.exp(-x)),
    "clamp at 0": lambda x: x.clamp(min=0),
    "product": lambda x: x * x.flip(1),
    "square": torch.square,
    "cube": lambda x: x**3,
    "root": lambda x: x.abs().sqrt(),
    "learned power": lambda x: (x.abs() + 0.1) ** torch.tensor([1.5], requires_grad=True),
    "clamp away from 0": lambda x: x.clamp(min=0.2),
    "clamp by a tensor": lambda x: x.clamp(min=torch.tensor([0.0, 0.1]).repeat(2)[:, None, None]),
    "product of matrices": lambda x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None],
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "norm by hand": lambda x: x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt(),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "softmax": lambda x: (x @ x.mT).softmax(-1) @ x,
    "moving": lambda x: torch.roll(x.permute(0, 2, 3, 1).flip(1), 1, 2).permute(0, 3, 1, 2),
    "selecting": lambda x: torch.where(x > 0, x, 0 * x)[:, [1, 0, 3, 2]].cumsum(1),
    "sorting": lambda x: x.sort(1).values,
    "fourier": lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[2:]),
    "max pool": lambda x: F.max_pool2d(x, 2),
    "upsampling": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "padding": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "in place": lambda x: x.clone().mul_(2).add_(1),
    "statistics of the weights": lambda x: x * torch.ones(1, requires_grad=True).exp(),
    "checkpoint": lambda x: torch.utils.checkpoint.checkpoint(torch.relu, x, use_reentrant=False),
    "nothing behind it": lambda x: x + 0 * x.detach().exp(),
}


def network(function: Callable[[Tensor], Tensor]) -> nn.Module:
    pooled = nn.Sequential(conv(), Applied(function), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    channels = pooled(X).shape[1]
    return nn.Sequential(pooled, nn.Linear(channels, 2)).eval()


@pytest.mark.parametrize("composite", ["flex", "zplus"])
@pytest.mark.parametrize("case", UNKNOWN)
def test_a_function_without_a_rule_is_named_once_and_refused(case: str, composite: str) -> None:
    function, names = UNKNOWN[case]
    model = network(function)
    explainer = Explainer(model, composite)
    with pytest.warns(UserWarning, match=f"passes through {', '.join(sorted(names))} of"):
        explainer(X)
    with _no_warning():
        explainer(X)
    strict = Explainer(model, composite, strict=True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has no rule: by the gradient"):
            strict(X)


@pytest.mark.parametrize("composite", ["flex", "zplus", "gradient-x-input"])
@pytest.mark.parametrize("case", KNOWN)
def test_what_has_a_rule_is_not_named(case: str, composite: str) -> None:
    explainer = Explainer(network(KNOWN[case]), composite, strict=True)
    for differentiable in (False, True):
        with _no_warning():
            explainer(X, differentiable=differentiable)


def test_gradient_x_input_knows_every_function() -> None:
    with _no_warning():
        Explainer(network(torch.exp), "gradient-x-input", strict=True)(X)


def test_a_function_that_runs_in_training_alone_is_named() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp() if self.training else x

    model = network(torch.relu)
    model[0][1] = Noisy().eval()
    explainer = Explainer(model, strict=True)
    explainer(X)
    model.train()
    with pytest.raises(RuntimeError, match="exp"):
        explainer(X, differentiable=True)


def test_module_hooks_are_no_functions() -> None:
    model = network(torch.relu)
    seen = list[Any]()
    model[0].register_full_backward_hook(lambda *call: seen.append(call))
    Explainer(model, strict=True)(X)
    assert seen


class _no_warning(pytest.WarningsRecorder):  # noqa: N801 - used as a function
    """Check that no warning of a function without a rule is given."""

    def __init__(self) -> None:
        super().__init__(_ispytest=True)

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        assert not [each for each in self.list if "has no rule" in str(each.message)]
