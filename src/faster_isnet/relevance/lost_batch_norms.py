"""Tell of batch norms that are one with a layer, but could not be recognised as such."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from faster_isnet.relevance.graph_nodes import is_custom, is_engines

BOUNDARY = "faster_isnet.boundary"
"""Metadata of a node of the graph behind which nothing is one with what is before."""

# Functions of one tensor that share no relevance anew.
_LINEAR = frozenset(
    f"{name}Backward0"
    for name in (
        *("Clone", "View", "UnsafeView", "ReshapeAlias", "Alias", "Permute", "Transpose", "T"),
        *("ToCopy", "Squeeze", "Unsqueeze", "Mul", "Div", "Add", "Sub", "Neg"),
    )
)


class FusableLayers:
    """The layers of one forward pass that a batch norm may be one with."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}

    def put(self, output: Tensor, name: str) -> None:
        """Keep the layer of an output, with its module's name if that is known."""
        if output.grad_fn is not None:
            self._names[output.grad_fn] = name

    def warn_of_lost(self, read: Tensor, name: str) -> None:
        """Warn if a batch norm that reads ``read``, and is treated alone, has a layer before it.

        It has one if nothing stands between them but linear functions of one tensor, and functions
        that PyTorch knows nothing of, such as a ``torch.autograd.Function``.
        """
        node: Any = read.grad_fn
        between = list[str]()
        while node is not None and node not in self._names:
            before = [n for n, _ in node.next_functions if n is not None]
            own = is_custom(node) and not is_engines(node)
            if not (node.name() in _LINEAR or own) or len(before) != 1 or BOUNDARY in node.metadata:
                return
            between.append(node.name().removesuffix("0").removesuffix("Backward"))
            (node,) = before
        if node is None:
            return
        layer = self._names[node]
        warnings.warn(
            f"batch norm{_named(name)} of {read.shape[1]} channels is explained by itself and not "
            f"as one with the layer{_named(layer)} before it, which makes another heatmap: what "
            f"{', '.join(reversed(between))} returns is not known to be what it read. Let the "
            "batch norm read the layer's output itself",
            stacklevel=2,
        )


def _named(name: str) -> str:
    return f" {name!r}" if name else ""
