"""Metadata of the tensors of one forward pass."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import Tensor

from faster_isnet.common.torch_private import version

T = TypeVar("T")


class TensorMetadata(Generic[T]):
    """Metadata by tensor, void as soon as the tensor is changed in place.

    A tensor that lies in the same memory in the same order holds the same values, and so has the
    same metadata: what a full backward hook, a reshape and back, or a ``torch.autograd.Function``
    that changes nothing has made of it.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[Tensor, int, T]] = {}
        self._by_place: dict[Any, tuple[Tensor, int, T]] = {}

    def put(self, tensor: Tensor, metadata: T) -> None:
        """Keep ``metadata`` of ``tensor`` as it is now."""
        entry = tensor, version(tensor), metadata
        self._by_id[id(tensor)] = entry
        if place := _place(tensor):
            self._by_place[place] = entry

    def get(self, tensor: Any) -> T | None:
        """Return the metadata of ``tensor``, or None if it has none that is still true."""
        entry = self._by_id.get(id(tensor))
        if entry is None and self._by_place and isinstance(tensor, Tensor):
            entry = self._by_place.get(_place(tensor))
        kept, written, metadata = entry or (None, None, None)
        return metadata if kept is not None and version(kept) == written else None

    def sharing_memory(self, tensor: Tensor) -> list[tuple[Tensor, T]]:
        """Return the tensors in the memory of ``tensor`` whose metadata is still true, with it."""
        found = [(k, m) for k, written, m in self._by_id.values() if version(k) == written]
        return [(kept, metadata) for kept, metadata in found if _share_memory(kept, tensor)]


def _share_memory(one: Tensor, other: Tensor) -> bool:
    address = one.untyped_storage().data_ptr()
    return one is other or address == other.untyped_storage().data_ptr() != 0


def _place(tensor: Tensor) -> Any:
    """Return where the elements of a tensor lie; None if they lie nowhere."""
    if tensor.device.type == "meta" or not (address := tensor.data_ptr()):
        return None
    return address, tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad
