"""What is known about the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


_version = attrgetter("_version")


def versions(tensors: Iterable[Tensor]) -> list[int]:
    """Say how often tensors have been written to; those of inference mode do not count it."""
    try:
        return list(map(_version, tensors))
    except RuntimeError:
        return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]


class Notes(Generic[T]):
    """Notes about tensors, void as soon as a tensor is changed in place.

    Attributes
    ----------
    ids
        Of the tensors that there are notes about, void or not: a first look at many tensors.
    """

    def __init__(self) -> None:
        self._notes: dict[int, tuple[Tensor, int, T]] = {}
        self.ids = self._notes.keys()

    def put(self, tensor: Tensor, note: T) -> None:
        """Keep ``note`` about ``tensor`` as it is now."""
        self._notes[id(tensor)] = (tensor, tensor._version, note)

    def get(self, tensor: Any) -> T | None:
        """Return the note about ``tensor``, or None if there is none that still holds."""
        kept, version, note = self._notes.get(id(tensor), (None, None, None))
        return note if kept is not None and kept._version == version else None
