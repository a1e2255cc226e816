"""Batches of images, labels, masks and attributes, in the one form that all parts read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from faster_isnet.common.checks import is_on_host

_KEYS = {
    "images": ("images", "image"),
    "labels": ("labels", "label"),
    "masks": ("masks", "mask"),
    "attributes": ("attributes", "attribute"),
}
_WHITE = 255
_TOO_FEW = (
    "value per channel"  # of what batch norm says to one: PyTorch's, and that of an Explainer
)


class Batch(NamedTuple):
    """Images with their labels, masks and spurious attributes.

    Attributes
    ----------
    images
        ``[B, C, ...]``.
    labels
        ``[B]`` int64, or ``[B, C]``, see :class:`~faster_isnet.methods.ClassificationLoss`.
        ``None`` for images that are only predicted.
    masks
        ``[B, 1, ...]`` or ``[B, ...]``: 1 in the foreground, 0 in the background,
        :data:`~faster_isnet.NO_MASK` everywhere for a sample without a mask. ``None`` if no sample
        has one.
    attributes
        ``[B]`` int64: what the background of each image shows (the scanner, the planted mark), an
        index from 0; −1 where it is not known. ``None`` if no sample has one. With the label it
        makes the groups of methods such as :class:`~faster_isnet.methods.GroupDRO`.

    Examples
    --------
    >>> mask = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    >>> Batch.of({"image": torch.zeros(1, 3, 1, 2), "label": torch.tensor([1]), "mask": mask}).masks
    tensor([[[[0., 1.]]]])
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    attributes: Tensor | None = None

    @classmethod
    def of(cls, batch: Tensor | Sequence[Any] | Mapping[str, Any]) -> Batch:
        """Return what a data loader gives as a ``Batch``.

        Parameters
        ----------
        batch
            Images; or ``(images, labels)``, ``(images, labels, masks)`` or ``(images, labels,
            masks, attributes)``; or a dictionary with the keys ``images``, ``labels``, ``masks``,
            ``attributes`` (or ``image``, ``label``, ``mask``, ``attribute``), of which others are
            ignored. Masks may be boolean, or ``uint8`` with 255 or 1 in the foreground; attributes
            integers of any size.

        Raises
        ------
        TypeError
            If it is none of these, or attributes are no tensor of integers.
        ValueError
            If a dictionary has no images, a sequence has more than four entries, ``uint8`` masks
            hold other values, or there is not one attribute for each image.
        """
        if isinstance(batch, Tensor):
            return cls(batch)
        if isinstance(batch, Mapping):
            found = {name: _find(batch, keys) for name, keys in _KEYS.items()}
            if found["images"] is None:
                raise ValueError(
                    f"the batch has no images: its keys are {list(batch)}; call them 'images' (or "
                    "'image'), 'labels', 'masks' and 'attributes'"
                )
            return cls._checked(**found)
        if not isinstance(batch, Sequence):
            raise TypeError(
                "a batch must be (images, labels, masks, attributes), the first few of these, a "
                f"dictionary or a tensor of images, got {type(batch).__name__}"
            )
        if not 1 <= len(batch) <= len(_KEYS):
            raise ValueError(
                f"a batch must be (images, labels, masks, attributes), got {len(batch)} entries; "
                f"give a dictionary with the keys {', '.join(map(repr, _KEYS))} if there are others"
            )
        return cls._checked(*batch)

    @classmethod
    def _checked(
        cls, images: Any, labels: Any = None, masks: Any = None, attributes: Any = None
    ) -> Batch:
        if attributes is not None:
            attributes = _attributes(attributes, len(images))
        return cls(images, labels, _masks(masks), attributes)

    def needed(self, name: str) -> Tensor:
        """Return the ``"labels"``, ``"masks"`` or ``"attributes"``, where they are needed.

        Raises
        ------
        ValueError
            If there are none.
        """
        part: Tensor | None = getattr(self, name)
        if part is None:
            raise ValueError(f"the batch has no {name}, which are needed here")
        return part

    def select(self, samples: Tensor) -> Batch:
        """Return the samples of these indices, ``[N]``."""
        return Batch(*(None if part is None else part[samples] for part in self))  # type: ignore[arg-type]

    def clone(self) -> Batch:
        """Return a copy, which has its own memory."""
        return Batch(*(None if part is None else part.clone() for part in self))  # type: ignore[arg-type]


def says_too_few_samples(error: ValueError) -> bool:
    """Whether an error says that batch norm cannot be trained on a single sample."""
    return _TOO_FEW in str(error)


def _find(batch: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((batch[key] for key in keys if key in batch), None)


def _attributes(attributes: object, count: int) -> Tensor:
    if not isinstance(attributes, Tensor):
        raise TypeError(
            f"attributes must be a tensor of integers [B], got {type(attributes).__name__}; number "
            "what backgrounds show from 0, with -1 where it is not known"
        )
    if attributes.is_floating_point() or attributes.is_complex():
        raise TypeError(f"attributes must be integers, got {attributes.dtype}; use .long()")
    if attributes.shape != (count,):
        raise ValueError(
            f"attributes must be one integer for each of {count} images, got the shape "
            f"{list(attributes.shape)}"
        )
    return attributes.long()


def _masks(masks: Any) -> Any:
    """Return masks as floats; what is wrong with others is said where they are used."""
    if not isinstance(masks, Tensor):
        return masks
    if masks.dtype == torch.uint8:
        if is_on_host(masks):
            _check_uint8(masks)
        return (masks > 0).float()
    return masks.float() if masks.dtype == torch.bool else masks


def _check_uint8(masks: Tensor) -> None:
    if not masks.numel() or masks.max() < 2 or bool(((masks == 0) | (masks == _WHITE)).all()):
        return
    raise ValueError(
        f"masks of dtype uint8 must hold 0 and 255 (or 0 and 1) only, got "
        f"{torch.unique(masks).tolist()[:5]}; binarise with (mask > threshold).float()"
    )
