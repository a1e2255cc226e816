"""Metadata of the tensors of one forward pass."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from faster_isnet.common.torch_private import version

T = TypeVar("T")


class Origin(NamedTuple, Generic[T]):
    """The metadata, shape and dtype of a tensor whose values another one holds."""

    metadata: T
    shape: torch.Size
    dtype: torch.dtype


class TensorMetadata(Generic[T]):
    """Metadata by tensor, void as soon as the tensor is changed in place.

    A tensor that lies in the same memory in the same order holds the same values, and so has the
    same metadata: what a full backward hook, a reshape and back, or a ``torch.autograd.Function``
    that changes nothing has made of it.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[Tensor, int, T]] = {}
        self._by_place: dict[Any, tuple[Tensor, int, T]] = {}
        self._copies: dict[int, tuple[Tensor, int, Origin[T]]] = {}

    def put(self, tensor: Tensor, metadata: T) -> None:
        """Keep ``metadata`` of ``tensor`` as it is now."""
        entry = tensor, version(tensor), metadata
        self._by_id[id(tensor)] = entry
        if place := _place(tensor):
            self._by_place[place] = entry

    def origin(self, tensor: Any) -> Origin[T] | None:
        """Return whose values ``tensor`` holds in their order, if that has metadata."""
        if origin := _unchanged(self._copies.get(id(tensor))):
            return origin
        metadata = self.get(tensor)
        return None if metadata is None else Origin(metadata, tensor.shape, tensor.dtype)

    def follow(self, origin: Origin[T] | None, copy: Any) -> None:
        """Keep that ``copy`` holds the values of a tensor, which has metadata, in their order."""
        if origin is None or not isinstance(copy, Tensor) or copy.dtype != origin.dtype:
            return
        self._copies[id(copy)] = copy, version(copy), origin

    def get(self, tensor: Any) -> T | None:
        """Return the metadata of ``tensor``, or None if it has none that is still true."""
        if (metadata := _unchanged(self._by_id.get(id(tensor)))) is not None:
            return metadata
        origin = _unchanged(self._copies.get(id(tensor)))
        # Inside of a torch.autograd.Function a copy has no history yet.
        if origin is not None and tensor.shape == origin.shape and tensor.grad_fn is not None:
            return origin.metadata
        if self._by_place and isinstance(tensor, Tensor):
            return _unchanged(self._by_place.get(_place(tensor)))
        return None

    def sharing_memory(self, tensor: Tensor) -> list[tuple[Tensor, T]]:
        """Return the tensors in the memory of ``tensor`` whose metadata is still true, with it."""
        found = [(k, m) for k, written, m in self._by_id.values() if version(k) == written]
        return [(kept, metadata) for kept, metadata in found if _share_memory(kept, tensor)]


def _unchanged(entry: tuple[Tensor, int, T] | None) -> T | None:
    """Return what is kept of a tensor, if nothing was written to that since."""
    if entry is None:
        return None
    tensor, written, kept = entry
    return kept if version(tensor) == written else None


def _share_memory(one: Tensor, other: Tensor) -> bool:
    address = one.untyped_storage().data_ptr()
    return one is other or address == other.untyped_storage().data_ptr() != 0


def _place(tensor: Tensor) -> Any:
    """Return where the elements of a tensor lie; None if they lie nowhere."""
    if tensor.device.type == "meta" or not (address := tensor.data_ptr()):
        return None
    return address, tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad
