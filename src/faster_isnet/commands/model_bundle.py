"""Hold the network that a command works on, with what is needed to use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.files import file_hash
from faster_isnet.common.resizing import STRETCHED, Resizing
from faster_isnet.data.dataset import fit_image
from faster_isnet.data.images import read_image
from faster_isnet.models.own_networks import is_onnx
from faster_isnet.models.weight_files import weights_hash
from faster_isnet.training.hub import fetch
from faster_isnet.training.image_classifier import ImageClassifier, Normalise

AS_THEY_ARE = "pixels in [0, 1], as they are"


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
            f"({error}); give other channels, or the size that the network needs (--data.size of "
            "fit, otherwise --size)"
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
    differentiable
        Whether it has gradients, so that it can be explained.
    resizing
        How images become ``image_shape``.
    normalisation
        What is done to pixels in [0, 1] before the network, in words.
    file
        That holds the whole network: ONNX, TorchScript.
    code
        The module that built it, where it is the user's.
    revision
        The hash of the commit that it was fetched from; empty if it is from this machine.
    """

    network: nn.Module
    architecture: str
    class_names: Sequence[str]
    image_shape: tuple[int, int, int]
    task: str
    inputs: Callable[[Batch], Tensor]
    needs_every_mask: bool = False
    differentiable: bool = True
    resizing: Resizing = STRETCHED
    normalisation: str = ""
    file: Path | None = None
    code: Path | None = None
    revision: str = ""

    @classmethod
    def from_checkpoint(cls, path: Path) -> ModelBundle:
        """Read a checkpoint of ``faster-isnet fit``."""
        return cls.of(ImageClassifier.load_deployed(path))

    @classmethod
    def from_hub(cls, model: str) -> ModelBundle:
        """Fetch what ``faster-isnet push`` has uploaded, ``"hub:ORG/NAME@REVISION"``."""
        found = fetch(model)
        lit = ImageClassifier.load_uploaded(found.folder)
        return replace(cls.of(lit), revision=found.revision)

    @classmethod
    def of(cls, lit: ImageClassifier) -> ModelBundle:
        """Hold a classifier that was loaded to be used."""
        network = lit.deployed.eval()
        normalises = any(isinstance(module, Normalise) for module in network.modules())
        return cls(
            network,
            lit.architecture,
            lit.class_names,
            lit.image_shape,
            lit.method.task,
            lit.method.inputs,
            lit.method.needs_every_mask,
            normalisation="as ImageNet's images, within the network" if normalises else AS_THEY_ARE,
        )

    @property
    def preprocessing(self) -> str:
        """What is done to an image before it is classified, in words."""
        channels, *size = self.image_shape
        colours = "grey" if channels == 1 else "RGB"
        return f"{colours}, {self.resizing.words(size)}; {self.normalisation}"

    @property
    def sha256(self) -> str:
        """Hash of its weights, or of the file that has them."""
        return weights_hash(self.network) if self.file is None else file_hash(self.file)

    @property
    def names_no_classes(self) -> bool:
        """Whether its classes have nothing but numbers for names."""
        return list(self.class_names) == [str(number) for number in range(len(self.class_names))]

    def check_has_gradients(self, command: str) -> None:
        """Raise ``ValueError`` if a command needs the gradients that the network does not have."""
        if self.differentiable:
            return
        if self.file is None:
            what = f"{self.architecture}, which returns probabilities,"
        else:
            kind = "ONNX" if is_onnx(self.file) else "a program of torch.jit"
            what = f"{self.file}, which is {kind},"
        raise ValueError(
            f"{what} cannot be explained by LRP, so {command} cannot take it; build the network in "
            "PyTorch, to return logits, by its name or package.module:function, with its "
            "state_dict() as --weights; or measure what the background does: faster-isnet audit"
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
        return fit_image(read_image(path), size, channels, self.resizing)
