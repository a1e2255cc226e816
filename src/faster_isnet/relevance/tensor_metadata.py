"""Metadata of the tensors of one forward pass."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import Tensor

from faster_isnet.common.torch_private import version

T = TypeVar("T")


class TensorMetadata(Generic[T]):
    """Metadata by tensor, void as soon as the tensor is changed in place."""

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[Tensor, int, T]] = {}

    def put(self, tensor: Tensor, metadata: T) -> None:
        """Keep ``metadata`` of ``tensor`` as it is now."""
        self._by_id[id(tensor)] = (tensor, version(tensor), metadata)

    def get(self, tensor: Any) -> T | None:
        """Return the metadata of ``tensor``, or None if it has none that is still true."""
        kept, written, metadata = self._by_id.get(id(tensor), (None, None, None))
        return metadata if kept is not None and version(kept) == written else None
