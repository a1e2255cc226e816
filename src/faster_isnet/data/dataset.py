"""Load samples as tensors of one size, and augment them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from faster_isnet.common.checks import NO_ATTRIBUTE, NO_MASK, check_channels, check_range
from faster_isnet.common.resizing import STRETCHED, Resizing
from faster_isnet.data.masks import read_mask, with_margin
from faster_isnet.data.rand_augment import STRONGEST, RandAugment
from faster_isnet.data.read_cache import Read, ReadCache
from faster_isnet.data.samples import Sample, relative_name
from faster_isnet.data.seeded_sampling import seeded
from faster_isnet.data.worse_masks import WorseMasks, removed_masks

Item = tuple[Tensor, ...]
"""Image, label and mask; the attribute as well where the data know it."""
Transform = Callable[..., Any]
_MAGNITUDE = 9.0  # of torchvision's RandAugment, and of the paper's ResNet-50
_LARGEST = {"rotation": 180.0, "rand_augment": float("inf"), "magnitude": float(STRONGEST)}


@dataclass(frozen=True)
class Augmentation:
    """Set the strength of random augmentation, sampled at each access; 0 turns a change off.

    Random numbers come from torch's global generator, or by a seed that comes with an index
    (:class:`~faster_isnet.data.seeded_sampling.SeededIndex`).

    Attributes
    ----------
    rotation
        Largest angle in degrees, in either direction, in [0, 180].
    translation
        Largest shift, as a share of the image's size, in [0, 1].
    scaling
        Largest change of size: 0.1 for factors of 0.9 to 1.1; in [0, 1).
    horizontal_flip, vertical_flip
        Probabilities. Off by default: a mirrored radiograph has its heart on the wrong side.
    brightness, contrast
        Largest change, as a share, in [0, 1].
    rand_augment
        How many changes of :class:`~faster_isnet.data.rand_augment.RandAugment` are made besides
        those above, before ``brightness`` and ``contrast``; 0 for none, the default, and 2 in most
        publications.
    magnitude
        The strength of these, in [0, 30]. No number is best for all data; the
        paper searches it.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    rotation: float = 10.0
    translation: float = 0.05
    scaling: float = 0.1
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.1
    rand_augment: int = 0
    magnitude: float = _MAGNITUDE

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in vars(self).items():
            check_range(f"augmentation.{name}", value, 0, _LARGEST.get(name, 1.0))
        if self.rand_augment != int(self.rand_augment):
            raise ValueError(
                f"augmentation.rand_augment must be a whole number of changes, got "
                f"{self.rand_augment!r}; their strength is augmentation.magnitude"
            )
        if not self.rand_augment and self.magnitude != _MAGNITUDE:
            raise ValueError(
                f"augmentation.magnitude={self.magnitude!r} is the strength of rand_augment, of "
                "which there is none; set augmentation.rand_augment: 2"
            )
        if self.scaling == 1:
            raise ValueError("augmentation.scaling must be below 1, got 1: no size would be left")

    def build(self) -> Transform:
        """Build the transformation of an image, or of an image and its mask together."""
        transform: Transform = v2.Compose(
            [
                v2.RandomAffine(
                    self.rotation,
                    translate=(self.translation, self.translation),
                    scale=(1 - self.scaling, 1 + self.scaling),
                    interpolation=InterpolationMode.BILINEAR,
                ),
                v2.RandomHorizontalFlip(self.horizontal_flip),
                v2.RandomVerticalFlip(self.vertical_flip),
                *([RandAugment(self.rand_augment, self.magnitude)] if self.rand_augment else []),
                v2.ColorJitter(self.brightness, self.contrast),
            ]
        )
        return transform


class ImageDataset(Dataset[Item]):
    """Load samples as ``(image, label, mask)`` from their files, at each access.

    With ``attributes``, items are ``(image, label, mask, attribute)``, whatever is known of a
    sample.

    The image is ``[channels, H, W]``, float32 in [0, 1]. The label is an int64 scalar, or for
    multi-label data ``[K]`` float32 in {0, 1}. The mask is ``[1, H, W]`` in {0, 1}, or filled with
    ``NO_MASK`` for a sample that has none. A mask without foreground (empty in the file, after
    resizing, or after augmentation) counts as none. The attribute is an int64 scalar, −1 if it is
    not known.

    Parameters
    ----------
    samples
        The samples; each has a label.
    size
        H and W that images and masks are resized to.
    channels
        3: the channel of grey images is repeated. 1: colours are converted to luminance.
    mask_margin
        By which masks are dilated, or eroded if it is negative, in pixels at ``size``; see
        :func:`~faster_isnet.data.masks.with_margin`.
    augmentation
        ``None`` for none.
    worse_masks
        Changes that make masks worse on purpose, before ``mask_margin`` and augmentation; ``None``
        for none.
    folder
        Folder that names of images are relative to where ``worse_masks`` draws by them, so that
        data may be moved; ``None`` for whole names.
    attributes
        Names of the samples' attributes, by index; empty for none.
    added_masks
        Files of masks for samples that have none, or whose mask ``worse_masks`` leaves out, by the
        samples' names; ``worse_masks`` does not change them.
    cache_gib
        Memory in GiB in which images and masks are kept as they were read and resized; those that
        find no room are read at each access. Their files must not change.
    resizing
        How they are; by default the aspect ratio is not kept.

    Raises
    ------
    ValueError
        If a number is out of range, samples have no label, or an attribute that is not among
        ``attributes``. At access: if an image or a mask cannot be read or their sizes differ; the
        message names the file.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: tuple[int, int],
        channels: int = 3,
        mask_margin: float = 0.0,
        augmentation: Augmentation | None = None,
        worse_masks: WorseMasks | None = None,
        folder: str | Path | None = None,
        attributes: Sequence[str] = (),
        added_masks: Mapping[str, Path] | None = None,
        cache_gib: float = 0.0,
        resizing: Resizing = STRETCHED,
    ) -> None:
        self.samples = list(samples)
        self.size = tuple(int(check_range("size", side, 1)) for side in size)
        self.channels = check_channels(channels)
        self.mask_margin = check_range("mask_margin", mask_margin, -max(self.size))
        self.worse_masks = worse_masks
        self.folder = folder
        self._attributes = _attribute_indices(self.samples, attributes) if attributes else None
        self.added_masks = added_masks or {}
        self.resizing = resizing
        self._cache = ReadCache(cache_gib)
        self._augment = augmentation.build() if augmentation else None
        if unlabelled := [sample.name for sample in self.samples if sample.label is None]:
            raise ValueError(
                f"{len(unlabelled)} samples have no label, for example {unlabelled[:3]}; fill it "
                "in, or leave them out"
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Return an item; raise ``IndexError`` beyond the end."""
        return self.item_and_exact_mask(index)[0]

    def item_and_exact_mask(self, index: int) -> tuple[Item, Tensor]:
        """Return an item, and the mask that its sample has, augmented alike.

        The item's own mask may be another: a worse one, or one that was added.
        """
        image, masks = self._cache.get(index, self._read)
        if self._augment is not None:
            with seeded(index):
                image, masks = _augmented(self._augment, image, masks)
        else:  # copies, since items may be changed in place
            image, masks = image.clone(), [None if m is None else m.clone() for m in masks]
        filled = [
            torch.full((1, *self.size), NO_MASK) if mask is None or not bool(mask.any()) else mask
            for mask in masks
        ]
        item: Item = (image, _label_tensor(self.samples[index]), filled[0])
        if self._attributes is not None:
            item = (*item, torch.tensor(self._attributes[index]))
        return item, filled[-1]

    def _read(self, index: int) -> Read:
        """Return the image, with the mask in use, and that of the sample if it is another."""
        sample = self.samples[index]
        image = sample.read_image()
        exact = sample.read_mask((image.shape[1], image.shape[2]))
        if exact is not None:
            exact = fit_mask(exact, self.size, self.resizing)
        used = self._used_mask(exact, sample)
        masks = [exact] if used is exact else [used, exact]
        changed = [None if m is None else with_margin(m, self.mask_margin) for m in masks]
        return fit_image(image, self.size, self.channels, self.resizing), changed

    def _used_mask(self, exact: Tensor | None, sample: Sample) -> Tensor | None:
        if (added := self.added_masks.get(sample.name)) is not None:
            return fit_mask(read_mask(added), self.size, self.resizing)
        if self.worse_masks is None or exact is None:
            return exact
        if sample.name in self._removed_masks:
            return None
        return self.worse_masks.worsen(exact, relative_name(sample, self.folder))

    @cached_property
    def _removed_masks(self) -> frozenset[str]:
        if self.worse_masks is None:
            return frozenset()
        return frozenset(removed_masks(self.worse_masks, self.samples, self.folder))


def fit_image(
    image: Tensor, size: Sequence[int], channels: int, resizing: Resizing = STRETCHED
) -> Tensor:
    """Resize an image ``[C, H, W]`` in [0, 1], and convert it to 1 or 3 channels."""
    image = resizing.image(image, size)
    if channels == 1 and len(image) == 3:
        image = v2.functional.rgb_to_grayscale(image)
    # Bilinear interpolation may exceed [0, 1] by a rounding error, bicubic by more.
    return image.clamp(0, 1).expand(channels, -1, -1)


def fit_mask(mask: Tensor, size: Sequence[int], resizing: Resizing = STRETCHED) -> Tensor:
    """Resize a mask ``[1, H, W]`` in {0, 1} to its nearest pixels."""
    return resizing.mask(mask, size)


def _augmented(
    augment: Transform, image: Tensor, masks: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor | None]]:
    there = [mask for mask in masks if mask is not None]
    if not there:
        return augment(tv_tensors.Image(image)).as_subclass(Tensor).clamp(0, 1), list(masks)
    image, stacked = augment(tv_tensors.Image(image), tv_tensors.Mask(torch.cat(there)))
    changed = iter(stacked.as_subclass(Tensor).split(1))
    changed_masks = [None if mask is None else next(changed) for mask in masks]
    return image.as_subclass(Tensor).clamp(0, 1), changed_masks


def _attribute_indices(samples: Sequence[Sample], names: Sequence[str]) -> list[int]:
    """Look up the attribute of each sample; −1 where it is not known."""
    positions = {name: index for index, name in enumerate(names)}
    if unknown := {s.attribute for s in samples if s.attribute is not None} - positions.keys():
        raise ValueError(
            f"samples have the attributes {sorted(map(str, unknown))[:5]}, which are not among the "
            f"names given, {list(names)}; name all"
        )
    return [NO_ATTRIBUTE if s.attribute is None else positions[s.attribute] for s in samples]


def _label_tensor(sample: Sample) -> Tensor:
    is_multilabel = isinstance(sample.label, tuple)
    return torch.tensor(sample.label, dtype=torch.float32 if is_multilabel else torch.int64)
