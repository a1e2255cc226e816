"""Load the network that a command works on, with what is needed to use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.data.dataset import fit_image
from faster_isnet.data.images import read_image
from faster_isnet.methods import Standard
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.image_classifier import ImageClassifier


@dataclass(frozen=True)
class ModelBundle:
    """A network, and what one must know to use it.

    Attributes
    ----------
    network
        From images to logits, in evaluation mode.
    architecture
        The name that it was built by.
    class_names
        Of each logit.
    image_shape
        ``(C, H, W)``.
    task
        ``"multiclass"`` or ``"multilabel"``.
    inputs
        Makes the network's input of a batch: its images, unless the method needs masks as well.
    """

    network: nn.Module
    architecture: str
    class_names: Sequence[str]
    image_shape: tuple[int, int, int]
    task: str
    inputs: Callable[[Batch], Tensor]

    @classmethod
    def from_checkpoint(cls, path: Path) -> ModelBundle:
        """Read a checkpoint of ``faster-isnet fit``."""
        return cls._of(ImageClassifier.load_deployed(path))

    @classmethod
    def by_name(cls, name: str, classes: int, size: int, weights: Path | None) -> ModelBundle:
        """Build a network, with weights from a file or its own."""
        lit = ImageClassifier(
            [str(number) for number in range(classes)],
            (3, size, size),
            name,
            pretrained=weights is None,
            method=Standard(),
        )
        if weights is not None:
            load_backbone_weights(weights, lit.deployed)
        return cls._of(lit)

    @classmethod
    def _of(cls, lit: ImageClassifier) -> ModelBundle:
        network = lit.deployed.eval()
        return cls(
            network,
            lit.backbone_name,
            lit.class_names,
            lit.image_shape,
            lit.method.task,
            lit.method.inputs,
        )

    def prepare(self, path: Path) -> Tensor:
        """Return an image as the network takes it, ``[C, H, W]`` in [0, 1]."""
        channels, *size = self.image_shape
        return fit_image(read_image(path), size, channels)
