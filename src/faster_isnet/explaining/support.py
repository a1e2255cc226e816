"""What of a model is explained exactly, approximately, or not known."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Names of parameters that are added to features, whatever the image, or of modules that hold them.
_ADDED = re.compile(
    r"(^|\.)(\w*bias(es)?\w*|(abs_|rel_)?pos(ition)?(al)?_?emb\w*|rel_pos\w*|abs_pos\w*|\w+_pos|beta|b"
    r"|\w*(cls|class|reg|register|dist)_token\w*)(\.|$)"
)
# Below this share of Σ|relevance| a logit is what rounding leaves of 0.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Support:
    """Say how well a model can be explained.

    Attributes
    ----------
    exact, approximate, unknown
        How often each function carries relevance that it conserves exactly (apart from the
        stabiliser ε and biases), does not conserve (as the softmax of attention under AttnLRP), or
        passes by its gradient because the composite has no rule for it.
    absorbed
        1 − Σ relevance / logit of the model as it is: what biases, the stabiliser and approximate
        and unknown functions take (or add, where it is negative).
    error
        |Σ relevance − logit| / |logit| of a copy without biases, position embeddings and class
        tokens, as ε → 0: what approximate and unknown functions take alone. Not a number if the
        logit is (nearly) 0 then, or the copy cannot be made or run in float64.

    Examples
    --------
    >>> support = Support({"convolution": 3}, {}, {"exp": 1}, 0.25, 0.5)
    >>> print(support)
    exact: convolution (3)
    approximate: none
    unknown, passed by its gradient: exp (1)
    relevance that biases, the stabiliser and the above absorb: 25 %
    conservation error without biases: 0.5
    """

    exact: Mapping[str, int]
    approximate: Mapping[str, int]
    unknown: Mapping[str, int]
    absorbed: float
    error: float

    def __str__(self) -> str:
        """Return what is found as lines of text."""
        unknown = "not known (the logit is 0 without them, or the network not for float64)"
        error = f"{self.error:.1g}" if math.isfinite(self.error) else unknown
        return "\n".join(
            [
                f"exact: {_listed(self.exact)}",
                f"approximate: {_listed(self.approximate)}",
                f"unknown, passed by its gradient: {_listed(self.unknown)}",
                "relevance that biases, the stabiliser and the above absorb: "
                f"{100 * self.absorbed:.0f} %",
                f"conservation error without biases: {error}",
            ]
        )


def without_biases(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode whose biases and position embeddings are 0.

    They are known by their names. The running means of batch norms, which are biases too, are 0.
    Other constants stay, such as the mean of a normalisation that a model begins with: what they
    take is counted as an error.
    """
    copied = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if _ADDED.search(name):
                parameter.zero_()
        for name, buffer in copied.named_buffers():
            if name.rpartition(".")[2] == "running_mean":
                buffer.zero_()
    return copied


def random_image(model: nn.Module, size: int | Sequence[int], low: Tensor, high: Tensor) -> Tensor:
    """Return an image ``[1, C, H, W]`` for a model, on its device.

    Parameters
    ----------
    model
        Whose first convolution says C, if ``size`` does not.
    size
        A side, ``(H, W)``, or ``(C, H, W)`` and longer.
    low, high
        The bounds of pixel values, of one value or one for each channel.

    Raises
    ------
    ValueError
        If the size is none of these.
    """
    sizes = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sizes) < 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(f"size must be a side, (H, W) or (C, H, W) in pixels, got {size!r}")
    if len(sizes) == 2:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        sizes = (3 if first is None else first.in_channels, *sizes)
    image = torch.rand(1, *sizes, generator=torch.Generator().manual_seed(0))
    shape = 1, -1, *(1 for _ in sizes[1:])
    low, high = low.reshape(shape), high.reshape(shape)
    image = low + image * (high - low)
    parameter = next(model.parameters(), None)
    return image if parameter is None else image.to(parameter)


def missing_share(quantity: Tensor, heatmap: Tensor) -> float:
    """Return the share of a quantity ``[1, K]`` that its first heatmap lacks; NaN of nearly 0."""
    whole, relevance = quantity[0, 0], heatmap[0, 0]
    nothing = whole.abs() <= _ROUNDING * relevance.abs().sum()
    return math.nan if nothing else float(1 - relevance.sum() / whole)


def _listed(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{name} ({count})" for name, count in ordered) or "none"
