"""Load the network that a command works on, with what is needed to use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from faster_isnet.data.dataset import fit_image
from faster_isnet.data.images import read_image
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.image_classifier import ImageClassifier


@dataclass(frozen=True)
class ModelBundle:
    """Holds a network, its class names, and the shape of its images."""

    network: nn.Module
    architecture: str
    class_names: Sequence[str]
    image_shape: tuple[int, int, int]
    task: str = "multiclass"

    @classmethod
    def from_checkpoint(cls, path: Path) -> ModelBundle:
        """Read a checkpoint of ``faster-isnet fit``."""
        lit = ImageClassifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        return cls(
            lit.net.backbone.eval(),
            lit.hparams["backbone"],
            lit.class_names,
            lit.image_shape,
            lit.criterion.task,
        )

    @classmethod
    def by_name(cls, name: str, classes: int, size: int, weights: Path | None) -> ModelBundle:
        """Build a network, with weights from a file or its own."""
        lit = ImageClassifier(
            [str(number) for number in range(classes)],
            (3, size, size),
            name,
            pretrained=weights is None,
        )
        if weights is not None:
            load_backbone_weights(weights, lit.net.backbone)
        return cls(lit.net.backbone.eval(), name, lit.class_names, lit.image_shape)

    def prepare(self, path: Path) -> Tensor:
        """Return an image as the network takes it, ``[C, H, W]`` in [0, 1]."""
        channels, *size = self.image_shape
        return fit_image(read_image(path), size, channels)
