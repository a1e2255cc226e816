"""Ways back that wait for what reads an output, so that several functions become one node.

A convolution, the batch norm behind it and the ReLU behind that are one step of relevance: the
share of the ReLU, sent through the convolution whose weights are scaled by the batch norm. So
neither of the first two puts a node of its own on its output's history. It leaves its way back
here; who reads the output next joins it, or it is put there before the output is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import ref

from torch import Tensor

from faster_isnet.relevance.notes import versions

Rule = Callable[..., tuple[Tensor | None, ...]]
"""``rule(G, *operands)`` returns the G of each operand, ``None`` where none arrives.

It is made of differentiable torch functions, so that training can differentiate the heatmap.
"""


@dataclass(slots=True)
class Way:
    """A way back: relevance of an output goes to ``operands`` by ``rule``.

    It is ``optional`` where PyTorch's own gradient carries relevance as well, if more slowly.
    """

    rule: Rule
    operands: tuple[Tensor, ...]
    optional: bool = False


@dataclass(slots=True)
class Entrance:
    """Another way in for relevance of a tensor: for what has been scaled by channel already.

    All relevance of the tensor is going to be scaled by ``factors``. A layer that reads it can do
    that by its weights, where they are smaller than the tensor, and send its relevance here.

    Attributes
    ----------
    operand
        A tensor without values, of the same node as the tensor, to be an operand in its place.
    factors
        What to scale by before, each ``[C]``.
    """

    operand: Tensor
    factors: tuple[Tensor, ...]

    def leads_to(self, tensor: Tensor) -> bool:
        """Whether it is an entrance of ``tensor``, whose history is what it was.

        It is closed where a hook on the tensor, or its ``grad``, shall see all that arrives there.
        """
        node = tensor.grad_fn
        if node is None or node is not self.operand.grad_fn:
            return False
        return not (tensor._backward_hooks or tensor.retains_grad)


@dataclass(slots=True)
class _Waiting:
    """A way that waits, whose output it is of, and the versions of all when it was left."""

    way: Way
    output: ref[Tensor]
    versions: list[int]
    unseen: Callable[[], None] | None
    joined: bool = False

    def holds_for(self, tensor: Tensor | None) -> bool:
        """Whether it is the way of ``tensor``, and nothing has been written to since."""
        if tensor is None or self.output() is not tensor:
            return False
        return self.versions == versions((tensor, *self.way.operands))


class Ways:
    """The ways back that wait, in one forward pass.

    Attributes
    ----------
    waiting
        They, by the ids of their outputs. Those of outputs that are gone are among them.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, _Waiting] = {}

    def leave(
        self,
        output: Tensor,
        rule: Rule,
        *operands: Tensor,
        optional: bool = False,
        unseen: Callable[[], None] | None = None,
    ) -> Tensor:
        """Leave the way back of ``output``, and return that.

        ``unseen`` makes PyTorch's own gradient carry relevance as well, for what may have read the
        output without joining its way.
        """
        written = versions((output, *operands))
        way = Way(rule, operands, optional)
        self.waiting[id(output)] = _Waiting(way, ref(output), written, unseen)
        return output

    def were_read_unseen(self) -> None:
        """Prepare the outputs whose ways wait for readers that have not joined them."""
        for waiting in self.waiting.values():
            if waiting.unseen is not None:
                waiting.unseen()
                waiting.unseen = None

    def join(self, tensor: Tensor, overwrites: bool = False) -> Way | None:
        """Return the way of a tensor, for a function that reads it and takes it into its own.

        The way waits on for others that read the tensor, unless it is optional or the function
        ``overwrites`` the tensor.
        """
        waiting = self.waiting.pop(id(tensor), None)
        if waiting is None or not waiting.holds_for(tensor):
            return None
        if not (waiting.way.optional or overwrites):
            waiting.joined = True
            self.waiting[id(tensor)] = waiting
        return waiting.way

    def of(self, arguments: Iterable[Any]) -> Iterator[tuple[Tensor, Way]]:
        """Yield those among a function's arguments whose ways waited, which wait no longer."""
        for argument in _flat(arguments):
            if waiting := self.waiting.pop(id(argument), None):
                yield from _held(waiting)

    def all(self, joined: bool) -> Iterator[tuple[Tensor, Way]]:
        """Yield all outputs whose ways waited, which wait no longer.

        ``joined`` says whether those are among them that a function has joined.
        """
        waiting, self.waiting = self.waiting, {}
        for one in waiting.values():
            if joined or not one.joined:
                yield from _held(one)


def _held(waiting: _Waiting) -> Iterator[tuple[Tensor, Way]]:
    output = waiting.output()
    if output is not None and waiting.holds_for(output):
        yield output, waiting.way


def _flat(arguments: Iterable[Any]) -> Iterator[Any]:
    """Yield arguments, and what is in those that are lists, tuples or dictionaries."""
    for argument in arguments:
        if isinstance(argument, (list, tuple)):
            yield from _flat(argument)
        elif isinstance(argument, dict):
            yield from _flat(argument.values())
        else:
            yield argument
