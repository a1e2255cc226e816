"""Find which functions carry relevance to a heatmap, and whether they have a rule.

The graph that torch records is asked, and not the calls: it knows of functions by every spelling,
and of those that cannot be intercepted (``torch.autograd.Function``, custom operators).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.graph_nodes import (
    APPROXIMATE,
    HANDLED,
    SHARED,
    base_name,
    is_custom,
    is_engines,
    nodes_of,
)

# Names of torch's nodes whose gradient conserves relevance: they are linear, or positively
# homogeneous, in what they read of the image. Products are: where several factors depend on the
# image, the engine shares relevance among them.
_HOMOGENEOUS = re.compile(
    "|".join(
        [
            # sums, products, linear layers
            *("Add", "Sub", "Neg", "Rsub", "Mul", "Div", "Lerp", "(Nan)?[sS]um", "Cumsum", "Mean"),
            *(r"\w*[mM]m", "Mv", "Addmv", "Addr", "Addcmul", "Addcdiv", "Matmul", "Dot"),
            *("Trilinear", "LinalgCross", "Linear", r"\w*Convolution\w*", r"SlowConv\w+"),
            *(r"ConvDepthwise\w+", "MkldnnLinear", r"(Native|Cudnn|Miopen)?BatchNorm\w*"),
            *(r"\w*Pool[123]D\w*", r"MaxUnpool\w+", r"Upsample\w+", r"Fft\w+"),
            # piecewise linear, norms
            *("Abs", "Relu", "LeakyRelu", "PreluKernel", "Threshold", "Max", "Min", "Amax", "Amin"),
            *("Aminmax", "Maximum", "Minimum", "Fmax", "Fmin", "Cummax", "Cummin", "Topk", "Sort"),
            *("(Nan)?[mM]edian", "Kthvalue", "Mode", "LinalgVectorNorm", "Norm", "Std", "StdMean"),
            *("Hypot", "NanToNum", "RreluWithNoise", "BlockDiag", r"\w*Dropout", "Bernoulli"),
            # what moves, copies and selects
            *(r"(Unsafe|Masked)*(Index|View|Split|Chunk)\w*", r"(Masked)?(Scatter|Select)\w*"),
            *(r"\w*Pad(Nd|[123]D)", "Gather", "Put", "Take", r"Slice\w*", r"AsStrided\w*"),
            *(r"\w*Reshape\w*", "Permute", "Transpose", "T", "Expand", "Repeat", "Roll"),
            *("Flip", "Rot90", "Stack", "Cat", "Unbind", "Unfold", "Im2Col", "Col2Im", r"Pixel\w+"),
            *("ChannelShuffle", "Squeeze", "Unsqueeze", "(Lazy)?Clone", "Copy(Slices|Backwards)"),
            *("ToCopy", "Alias", "LiftFresh", "Where", "MaskedFill", "Zero", "Fill", "Tril"),
            *("Triu", r"Diag\w*", "Complex", "NegView", r"Conj\w*", "Trace"),
        ]
    )
)
# Products, of which the engine shares those that it knows.
_PRODUCT = re.compile(
    r"\w*[mM]m|Mv|Addmv|Addr|Mul|Div|Lerp|Addc(mul|div)|Matmul|Dot|Trilinear|LinalgCross"
)
# The gradient of a softmax conserves no relevance (AttnLRP), nor does that of sampling positions; a
# clamp's bounds are constants, which relevance is lost to.
_APPROXIMATE = re.compile("(Safe|Masked)?Softmax|GridSampler[23]D|Clamp(Min|Max)?")
# Functions of torch that change nothing: of full backward hooks, and of distributed training.
_TORCHS_OWN = frozenset(["BackwardHookFunction", "_DDPSink"])
_LEAF = "torch::autograd::AccumulateGrad"
# The engine's, which belong to the function below them, or to none.
_AUXILIARY = frozenset(["SharedEqually", "RelevanceEdge"])


@dataclass
class Carriers:
    """Count the functions that carry relevance to a heatmap, by name.

    Attributes
    ----------
    exact
        Functions that conserve relevance, apart from the stabiliser and what biases absorb.
    approximate
        Functions that have a rule, which does not conserve relevance: attention weights by
        AttnLRP, for example.
    unknown
        Functions without a rule. They pass relevance by their gradient, of which nothing is known.
    unknown_only
        Whether exact and approximate functions are left out, which saves time.
    """

    exact: Counter[str] = field(default_factory=Counter)
    approximate: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    unknown_only: bool = False

    def watch(self, logits: Tensor, relevance_pass: RelevancePass) -> None:
        """Count what carries relevance in the relevance passes that follow.

        Parameters
        ----------
        logits
            What the model returned.
        relevance_pass
            The flag of its forward pass.
        """
        nodes = nodes_of(logits)
        leading = _leading(nodes, relevance_pass.sources)
        for node in nodes - relevance_pass.sources:
            kind = self._kind(node, leading)
            if kind is None or (self.unknown_only and kind is not self.unknown):
                continue
            node.register_prehook(_once(kind, function_name(node), relevance_pass))

    def _kind(self, node: Any, leading: Container[Any]) -> Counter[str] | None:
        """Return where a function is counted; None for what is none of its own."""
        name = base_name(node)
        if node.name() == _LEAF or (is_engines(node) and name in _AUXILIARY):
            return None
        if APPROXIMATE in node.metadata:
            return self.approximate
        if SHARED in node.metadata:
            return self.exact
        if is_custom(node):
            known = is_engines(node) or name in _TORCHS_OWN or HANDLED in node.metadata
            return self.exact if known else self.unknown
        if _is_rectifier(node):
            return self.exact
        if _APPROXIMATE.fullmatch(name):
            return self.approximate
        factors = sum(before in leading for before, _ in node.next_functions)
        if _PRODUCT.fullmatch(name) and factors > 1:
            return self.unknown
        return self.exact if _HOMOGENEOUS.fullmatch(name) else self.unknown


def _leading(nodes: Iterable[Any], sources: Iterable[Any]) -> set[Any]:
    """Return the nodes from which relevance goes to one of the sources."""
    readers: dict[Any, list[Any]] = {}
    for node in nodes:
        for before, _ in node.next_functions[getattr(node, "gradient_edges", 0) :]:
            readers.setdefault(before, []).append(node)
    seen, rest = set[Any](), list(sources)
    while rest:
        node = rest.pop()
        if node not in seen:
            seen.add(node)
            rest += readers.get(node, [])
    return seen


def function_name(node: Any) -> str:
    """Return the name of a node's function, such as ``"layer_norm"``.

    A node of the engine that stands on a function has that function's name.
    """
    if APPROXIMATE in node.metadata:
        return str(node.metadata[APPROXIMATE])
    while is_engines(node) and hasattr(node, "gradient_edges"):
        below = _below(node)
        if below is None or below.name() == _LEAF:
            break
        node = below
    words = re.sub(r"(?<=[a-z0-9D])(?=[A-Z][a-z])", "_", base_name(node)).lower()
    return re.sub("^(native|mkldnn|cudnn|miopen|mps)_", "", words)


def _once(kind: Counter[str], name: str, relevance_pass: RelevancePass) -> Callable[[Any], None]:
    """Return a hook that counts a function the first time that relevance comes to it."""
    counted = False

    def hook(grads: Any) -> None:
        nonlocal counted
        if relevance_pass.active and not counted and any(grad is not None for grad in grads):
            counted = True
            kind[name] += 1

    return hook


def _below(node: Any) -> Any:
    """Return the node of the function that a node of the engine stands on."""
    below = next((before for before, _ in node.next_functions if before is not None), None)
    while below is not None and base_name(below) == "Clone":
        below = below.next_functions[0][0]
    return below


def _is_rectifier(node: Any) -> bool:
    """Return whether a node is a clamp at 0, from above or below."""
    if base_name(node) not in ("Clamp", "ClampMin", "ClampMax"):
        return False
    bounds = [getattr(node, f"_saved_{name}", None) for name in ("min", "max")]
    given = [bound for bound in bounds if bound is not None]
    return len(given) == 1 and isinstance(given[0], (int, float)) and given[0] == 0
