"""Load the network that a command works on, with what is needed to use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor, nn

from faster_isnet.commands.arguments import CommandParser
from faster_isnet.commands.run_folder import best_checkpoint
from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_range
from faster_isnet.data.dataset import fit_image
from faster_isnet.data.images import read_image
from faster_isnet.methods import Standard
from faster_isnet.models import backbone_names
from faster_isnet.models.timm_models import PREFIX as TIMM
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.image_classifier import ImageClassifier


def add_network_options(parser: CommandParser) -> None:
    """Add the options that :meth:`ModelBundle.load` builds a network by name with."""
    add = parser.add_argument
    add("--weights", type=Path, help="of a network by name: a file (default: its own pretrained)")
    add("--classes", type=int, default=1000, help="of a network by name")
    add("--size", type=int, default=224, help="of images for a network by name")
    add("--channels", type=int, default=3, help="of images for a network by name: 3 or 1")


def load_network(model: str, options: Namespace) -> ModelBundle:
    """Load a checkpoint's network, or one by name as :func:`add_network_options` says."""
    shape = options.channels, options.size, options.size
    return ModelBundle.load(model, options.classes, shape, options.weights)


def check_runs(network: nn.Module, image_shape: tuple[int, int, int], name: str) -> None:
    """Raise ``ValueError`` if a network does not run on images of a shape, such as too small ones.

    The network is run once, in evaluation mode, and is afterwards in the mode that it was in.
    """
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *image_shape))
    # torchvision's vision transformers assert their size.
    except (AssertionError, RuntimeError, ValueError) as error:
        channels, height, width = image_shape
        raise ValueError(
            f"{name} does not run on images of {channels} channels and {height} x {width} pixels "
            f"({error}); give other channels, or the size that the network needs (--data.size)"
        ) from error
    finally:
        network.train(training)


@dataclass(frozen=True)
class ModelBundle:
    """A network, and what one must know to use it.

    Attributes
    ----------
    network
        From images to logits, in evaluation mode.
    architecture
        The name that it was built by, or, if the method deploys a network of its own, its class
        and that name.
    class_names
        Of each logit.
    image_shape
        ``(C, H, W)``.
    task
        ``"multiclass"`` or ``"multilabel"``.
    inputs
        Makes the network's input of a batch: its images, unless the method needs masks as well.
    needs_every_mask
        Whether it needs the mask of each image.
    """

    network: nn.Module
    architecture: str
    class_names: Sequence[str]
    image_shape: tuple[int, int, int]
    task: str
    inputs: Callable[[Batch], Tensor]
    needs_every_mask: bool = False

    @classmethod
    def from_checkpoint(cls, path: Path) -> ModelBundle:
        """Read a checkpoint of ``faster-isnet fit``."""
        return cls._of(ImageClassifier.load_deployed(path))

    @classmethod
    def load(
        cls, model: str, classes: int, image_shape: tuple[int, int, int], weights: Path | None
    ) -> ModelBundle:
        """Read a checkpoint, or the best one of a run's folder, or build a network by its name.

        Raises
        ------
        OSError
            If it is a path of no file, or of a folder that is no run's.
        ValueError
            If there are weights beside a checkpoint; if a name is unknown.
        """
        path = Path(model)
        if path.is_dir() and model not in backbone_names():
            path = best_checkpoint(path)
        if path.is_file():
            if weights is None:
                return cls.from_checkpoint(path)
            raise ValueError(
                f"--weights {weights} is for a network by name, such as resnet50, but {model!r} is "
                "a checkpoint, which has its own; leave one out"
            )
        if not model.startswith(TIMM) and (path.suffix or path.name != model):
            raise FileNotFoundError(
                f"there is no file {model!r}; give a checkpoint of faster-isnet fit, a run's "
                "folder, or a network's name: resnet50, timm:…"
            )
        return cls.by_name(model, classes, image_shape, weights)

    @classmethod
    def by_name(
        cls, name: str, classes: int, image_shape: tuple[int, int, int], weights: Path | None
    ) -> ModelBundle:
        """Build a network, with weights from a file or its own."""
        check_range("size", min(image_shape[1:]), 1)
        lit = ImageClassifier(
            [str(number) for number in range(classes)],
            image_shape,
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
            lit.architecture,
            lit.class_names,
            lit.image_shape,
            lit.method.task,
            lit.method.inputs,
            lit.method.needs_every_mask,
        )

    def check_takes_images_alone(self, command: str) -> None:
        """Raise ``ValueError`` if the network needs masks, which a command has none of."""
        if self.needs_every_mask:
            raise ValueError(
                "the network was trained on the foreground of images alone, and "
                f"{command} has no masks to cut it out; evaluate it on images with masks "
                "(faster-isnet test), or train one that takes images as they are: --method "
                "segment-classify, --method isnet"
            )

    def prepare(self, path: Path) -> Tensor:
        """Return an image as the network takes it, ``[C, H, W]`` in [0, 1]."""
        channels, *size = self.image_shape
        return fit_image(read_image(path), size, channels)
