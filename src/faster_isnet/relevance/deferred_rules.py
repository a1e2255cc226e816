"""Backward rules that are not in the graph yet, so that several functions become one node.

A convolution, the batch norm behind it and the ReLU behind that are one step of relevance: the
share of the ReLU, sent through the convolution whose weights are scaled by the batch norm. So the
first two put no node of their own into the graph. They defer their backward rules: the next
function that reads the output fuses the rule with its own, or the rule is flushed, which puts it
into the graph before anything else reads the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import ref

from torch import Tensor

from faster_isnet.common.torch_private import versions
from faster_isnet.relevance.call_arguments import leaves

BackwardRule = Callable[..., tuple[Tensor | None, ...]]
"""``rule(G, *operands)`` returns the G of each operand, ``None`` where none arrives.

It is made of differentiable torch functions, so that training can differentiate the heatmap.
"""


@dataclass(slots=True)
class DeferredRule:
    """A backward rule with its operands: relevance of an output goes to ``operands`` by ``rule``.

    Attributes
    ----------
    output
        Whose rule it is; a weak reference, so that memory is free as early as without the engine.
    written
        The versions of the output and of the operands when the rule was deferred.
    """

    rule: BackwardRule
    operands: tuple[Tensor, ...]
    output: ref[Tensor]
    written: list[int]

    def unchanged_output(self) -> Tensor | None:
        """Return the output, if it still exists and nothing was written to since."""
        output = self.output()
        if output is None or self.written != versions((output, *self.operands)):
            return None
        return output


class DeferredRules:
    """The deferred backward rules of one forward pass; false if there are none."""

    def __init__(self) -> None:
        self._by_id: dict[int, DeferredRule] = {}

    def __bool__(self) -> bool:
        """Return whether any rule is deferred."""
        return bool(self._by_id)

    def defer(self, output: Tensor, rule: BackwardRule, *operands: Tensor) -> Tensor:
        """Defer the backward rule of ``output``, and return that."""
        written = versions((output, *operands))
        self._by_id[id(output)] = DeferredRule(rule, operands, ref(output), written)
        return output

    def fuse(self, tensor: Tensor, overwrites: bool = False) -> DeferredRule | None:
        """Return the rule of a tensor, for a function that reads it to fuse with its own rule.

        It stays for other readers of the tensor, unless the function ``overwrites`` that.
        """
        deferred = self._by_id.pop(id(tensor), None)
        if deferred is None or deferred.unchanged_output() is not tensor:
            return None
        if not overwrites:
            self._by_id[id(tensor)] = deferred
        return deferred

    def flush(self, arguments: Iterable[Any]) -> Iterator[tuple[Tensor, DeferredRule]]:
        """Remove the rules of the tensors among a function's arguments; yield tensors and rules."""
        for argument in leaves(arguments):
            if deferred := self.fuse(argument, overwrites=True):
                yield argument, deferred

    def reset(self) -> Iterator[tuple[Tensor, DeferredRule]]:
        """Remove all rules; yield the tensors that still exist, and their rules."""
        removed, self._by_id = self._by_id, {}
        for deferred in removed.values():
            output = deferred.unchanged_output()
            if output is not None:
                yield output, deferred
