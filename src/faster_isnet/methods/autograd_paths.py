"""Count the paths of an autograd graph, to find the tensors that all of them go through."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


class AutogradPaths:
    """Tell which tensors lie on all, some or none of the paths from one tensor to another.

    Parameters
    ----------
    start
        A leaf that requires gradients.
    end
        A tensor that depends on it.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, requires_grad=True)
    >>> y = x.exp()
    >>> branch = y.sin()
    >>> paths = AutogradPaths(x, (y + branch).sum())
    >>> paths.all_through(get_gradient_edge(y)), paths.all_through(get_gradient_edge(branch))
    (True, False)
    >>> paths.some_beside(get_gradient_edge(branch))
    True
    """

    def __init__(self, start: Tensor, end: Tensor) -> None:
        root: Any = get_gradient_edge(end).node
        order = _inputs_first(root)
        to_start = Counter({get_gradient_edge(start).node: 1})
        for node in order:
            for before, _ in node.next_functions:
                to_start[node] += to_start[before]
        # By output: a function that returns several tensors is one node.
        self._through = Counter[tuple[Any, int]]()
        to_end = Counter({root: 1})
        for node in reversed(order):
            for before, output in node.next_functions:
                if before is not None:
                    to_end[before] += to_end[node]
                    self._through[before, output] += to_end[node] * to_start[before]
        self._all = self._through[root, 0] = to_start[root]

    def all_through(self, edge: GradientEdge) -> bool:
        """Return whether all paths go through a tensor, and there is one."""
        return self._all > 0 and self._through[edge.node, edge.output_nr] == self._all

    def some_beside(self, edge: GradientEdge) -> bool:
        """Return whether some paths go through a tensor, and others do not."""
        return 0 < self._through[edge.node, edge.output_nr] < self._all


def _inputs_first(root: Any) -> list[Any]:
    """Return the nodes of a graph, each after those that it reads."""
    order, seen, stack = [], {root}, [(root, iter(root.next_functions))]
    while stack:
        node, inputs = stack[-1]
        before = next((n for n, _ in inputs if n is not None and n not in seen), None)
        if before is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(before)
            stack.append((before, iter(before.next_functions)))
    return order
