"""Batches of images, labels and masks, in the one form that all parts of the library read."""

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
}
_WHITE = 255
_TOO_FEW = (
    "value per channel"  # of what batch norm says to one: PyTorch's, and that of an Explainer
)


class Batch(NamedTuple):
    """Images with their labels and masks.

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

    Examples
    --------
    >>> mask = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    >>> Batch.of({"image": torch.zeros(1, 3, 1, 2), "label": torch.tensor([1]), "mask": mask}).masks
    tensor([[[[0., 1.]]]])
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None

    @classmethod
    def of(cls, batch: Tensor | Sequence[Any] | Mapping[str, Any]) -> Batch:
        """Return what a data loader gives as a ``Batch``.

        Parameters
        ----------
        batch
            Images; or ``(images, labels)`` or ``(images, labels, masks)``; or a dictionary with
            the keys ``images``, ``labels``, ``masks`` (or ``image``, ``label``, ``mask``), of
            which others are ignored. Masks may be boolean, or ``uint8`` with 255 or 1 in the
            foreground.

        Raises
        ------
        TypeError
            If it is none of these.
        ValueError
            If a dictionary has no images, a sequence has more than three entries, or ``uint8``
            masks hold other values.
        """
        if isinstance(batch, Tensor):
            return cls(batch)
        if isinstance(batch, Mapping):
            found = {name: _find(batch, keys) for name, keys in _KEYS.items()}
            if found["images"] is None:
                raise ValueError(
                    f"the batch has no images: its keys are {list(batch)}; call them 'images' (or "
                    "'image'), 'labels' and 'masks'"
                )
            return cls(found["images"], found["labels"], _masks(found["masks"]))
        if not isinstance(batch, Sequence):
            raise TypeError(
                "a batch must be (images, labels, masks), a dictionary or a tensor of images, got "
                f"{type(batch).__name__}"
            )
        if not 1 <= len(batch) <= 3:
            raise ValueError(
                f"a batch must be (images, labels, masks), got {len(batch)} entries; give a "
                "dictionary with the keys 'images', 'labels' and 'masks' if there are others"
            )
        images, labels, masks = (*batch, None, None)[:3]
        return cls(images, labels, _masks(masks))

    def needed(self, name: str) -> Tensor:
        """Return the ``"labels"`` or ``"masks"``, where there is nothing to do without.

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
        labels, masks = (None if part is None else part[samples] for part in self[1:])
        return Batch(self.images[samples], labels, masks)


def says_too_few_samples(error: ValueError) -> bool:
    """Whether an error says that batch norm cannot be trained on a single sample."""
    return _TOO_FEW in str(error)


def _find(batch: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((batch[key] for key in keys if key in batch), None)


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
