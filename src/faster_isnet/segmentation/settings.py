"""Define and check the settings of a segmenter and its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faster_isnet.common.checks import check_range
from faster_isnet.data.dataset import Augmentation

_STRIDE = 32  # total stride of the encoders
_SMALLEST = 2 * _STRIDE  # batch norm needs more than one value in the deepest layer
_AUGMENTATION = Augmentation(
    rotation=10, translation=0.1, scaling=0.2, horizontal_flip=0.5, brightness=0.3, contrast=0.3
)


@dataclass(frozen=True)
class SegmenterSettings:
    """Set the network of a segmenter and its training.

    Parameters
    ----------
    size
        Side in pixels of the squares that images are resized to, a multiple of 32, at least 64.
        128 suffices for the outline of an organ; finer structures need 256, at four times the cost.
    encoder
        Name of the U-Net's encoder in segmentation-models-pytorch; ``"tu-…"`` are from timm.
    encoder_weights
        ``None`` trains from scratch. A name, mostly ``"imagenet"``, downloads pretrained weights.
    epochs
        Number of epochs. The learning rate decays to 0 on a cosine.
    batch_size
        Images in a training step.
    learning_rate
        Initial learning rate of AdamW.
    augmentation
        Augmentation of training images and masks; stronger than for classifiers, as masks are few.
    held_out
        Fraction of the images on which the segmenter is evaluated instead of trained, in (0, 1).
    components
        Largest number of connected components of a mask, such as 2 for lungs; smaller ones are
        removed.
    seed
        Seed of split, weights, order and augmentation; on a CPU the same seed and number of
        threads give the same segmenter.

    Raises
    ------
    TypeError
        If a number has another type.
    ValueError
        If a value is out of its range.
    """

    size: int = 128
    encoder: str = "resnet18"
    encoder_weights: str | None = None
    epochs: int = 40
    batch_size: int = 8
    learning_rate: float = 1e-3
    augmentation: Augmentation = _AUGMENTATION
    held_out: float = 0.2
    components: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("size", self.size, _SMALLEST)
        if self.size % _STRIDE:
            below = self.size // _STRIDE * _STRIDE
            raise ValueError(
                f"size must be a multiple of {_STRIDE}, got {self.size}; give {below} or "
                f"{below + _STRIDE}"
            )
        for name in ("epochs", "batch_size", "components"):
            check_range(name, getattr(self, name), 1)
        check_range("learning_rate", self.learning_rate, 0, open_low=True)
        check_range("held_out", self.held_out, 0, 1, open_low=True)
        if self.held_out == 1:
            raise ValueError("held_out must be below 1, got 1: no image would be left to train on")
        check_range("seed", self.seed, 0, 2**32 - 1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegmenterSettings:
        """Create settings from the result of ``dataclasses.asdict``."""
        return cls(**{**values, "augmentation": Augmentation(**values["augmentation"])})
