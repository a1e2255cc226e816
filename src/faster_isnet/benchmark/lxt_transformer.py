"""Compute torchvision's vision transformer by the functions of LXT, whose backward is AttnLRP.

LXT 2.1 (Achtibat et al., ICML 2024) is under the Clear BSD License, which grants no patent rights.
It declares dependencies that the functions used here do not need: ``pip install --no-deps lxt``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer


class LxtTransformer:
    """Explain a vision transformer by LXT's functions, which send relevance instead of gradients.

    Linear layers, sums and products have LRP-ε, with equal shares for both factors of a product;
    GELU the identity rule; layer norm a constant deviation; softmax its first-order expansion.

    Parameters
    ----------
    model
        torchvision's, with one dense layer as its head, in eval mode.
    epsilon
        The stabiliser, which LXT adds without a sign.
    constant_weights
        Whether the attention weights are constants (CP-LRP), and the values get all relevance.

    Raises
    ------
    TypeError
        If the model is no such transformer.
    ModuleNotFoundError
        If LXT is not installed.
    """

    def __init__(
        self, model: nn.Module, epsilon: float = 1e-6, constant_weights: bool = False
    ) -> None:
        if not isinstance(model, VisionTransformer) or len(model.heads) != 1:
            raise TypeError(
                f"LXT is called for torchvision's VisionTransformer with one layer as its head, "
                f"got {type(model).__name__}"
            )
        self.model: Any = model
        self.epsilon, self.constant_weights = epsilon, constant_weights
        self.functional = _lxt("lxt.explicit.functional")
        self.rules = _lxt("lxt.explicit.rules")

    def explain(self, images: Tensor, target: int | Tensor) -> Tensor:
        """Return the relevance of the pixels, shaped like ``images``, for a class or classes."""
        with torch.enable_grad():
            pixels = images.detach().clone().requires_grad_()
            logits = self._logits(pixels)
            start = torch.zeros_like(logits)
            start[torch.arange(len(start)), target] = 1
            (relevance,) = torch.autograd.grad(logits, pixels, start * logits.detach())
        return relevance

    def _logits(self, pixels: Tensor) -> Tensor:
        model, functions = self.model, self.functional
        patches = self.rules.epsilon_lrp(model.conv_proj, self.epsilon, pixels)
        class_token = model.class_token.detach().expand(len(pixels), -1, -1)
        tokens = torch.cat([class_token, patches.flatten(2).mT], 1)
        x = self._sum(tokens, model.encoder.pos_embedding.detach().expand_as(tokens))
        for block in model.encoder.layers:
            x = self._sum(x, self._attention(block.self_attention, self._norm(block.ln_1, x)))
            dense, gelu, _, other, _ = block.mlp
            hidden = self._dense(self._norm(block.ln_2, x), dense.weight, dense.bias)
            hidden = self.rules.identity(gelu, hidden)
            x = self._sum(x, self._dense(hidden, other.weight, other.bias))
        (head,) = model.heads
        first = self._norm(model.encoder.ln, x)[:, 0]
        logits: Tensor = functions.linear_epsilon(first, head.weight, head.bias, self.epsilon)
        return logits

    def _attention(self, module: nn.MultiheadAttention, x: Tensor) -> Tensor:
        functions = self.functional
        weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
        shape = (*x.shape[:2], module.num_heads, -1)
        query, key, value = (
            self._dense(x, w, b).reshape(shape).transpose(1, 2)
            for w, b in zip(weights, biases, strict=True)
        )
        scores = functions.matmul(query, key.mT, False, self.epsilon)
        scores = functions.mul2(scores, query.shape[-1] ** -0.5)
        shares = functions.softmax(scores, -1)
        if self.constant_weights:
            y = self.rules.epsilon_lrp(torch.matmul, self.epsilon, shares.detach(), value)
        else:
            y = functions.matmul(shares, value, False, self.epsilon)
        y = y.transpose(1, 2).flatten(2)
        return self._dense(y, module.out_proj.weight, module.out_proj.bias)

    def _dense(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y: Tensor = self.functional.linear_epsilon(x, weight, bias, self.epsilon)
        return y

    def _sum(self, one: Tensor, other: Tensor) -> Tensor:
        y: Tensor = self.functional.add2(one, other, False, self.epsilon)
        return y

    def _norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        # The function `layer_norm` has the same backward, with a stabiliser that cannot be chosen.
        function = self.functional.layer_norm_grad_fn
        y: Tensor = function.apply(x, norm.weight, norm.bias, norm.eps, self.epsilon)
        return y


def _lxt(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install --no-deps lxt"
        ) from error
