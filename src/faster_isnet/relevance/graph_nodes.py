"""Read the nodes of the graph that torch records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

APPROXIMATE = "faster_isnet.approximate"
"""Metadata of a node of the graph whose rule does not conserve relevance: its function's name."""
SHARED = "faster_isnet.shared"
"""Metadata of nodes of a function that is known to share its relevance among what it reads."""
HANDLED = "faster_isnet.handled"
"""Metadata of a node that a composite's handler has returned."""


def nodes_of(tensor: Tensor) -> set[Any]:
    """Return all nodes of the graph that ``tensor`` comes from."""
    seen, rest = set[Any](), [tensor.grad_fn]
    while rest:
        node = rest.pop()
        if node is not None and node not in seen:
            seen.add(node)
            rest += [before for before, _ in node.next_functions]
    return seen


def base_name(node: Any) -> str:
    """Return the name of a node without what torch adds to that of the function."""
    return re.sub(r"Backward\d*(_copy)?$", "", node.name().rpartition("::")[2])


def is_custom(node: Any) -> bool:
    """Return whether a node is that of a ``torch.autograd.Function``."""
    return isinstance(node, BackwardCFunction)


def is_engines(node: Any) -> bool:
    """Return whether a node is that of a function of this library."""
    return is_custom(node) and node._forward_cls.__module__.startswith("faster_isnet.")


def mark_between(y: Tensor, operands: Iterable[Tensor], mark: str) -> None:
    """Mark the nodes between what a function returned and what it read."""
    ends = {operand.grad_fn for operand in operands}
    rest: list[Any] = [y.grad_fn]
    while rest:
        node = rest.pop()
        if node is not None and node not in ends:
            node.metadata[mark] = True
            rest += [before for before, _ in node.next_functions]
