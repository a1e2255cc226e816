"""The classifier that the commands train: built from names, so that a file can describe it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn
from typing_extensions import Self

from faster_isnet.common.checks import TASKS, check_choice
from faster_isnet.common.recipes import ARGUMENTS, CLASS, build
from faster_isnet.methods import ISNetMethod, Method, Standard
from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.models import build_backbone
from faster_isnet.models.input_channels import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
)
from faster_isnet.models.weight_files import naming_damage, read_checkpoint
from faster_isnet.training.hub import WEIGHTS, fetch, is_on_hub, read_uploaded
from faster_isnet.training.lit_classifier import LitClassifier
from faster_isnet.training.options_of_0_1 import split_model_options
from faster_isnet.training.schedules import OptimizerFactory, OptimizerName

_PRETRAINED_LEARNING_RATE = 1e-3
_OF_TRAINING = ("method", "optimizer", "schedule")


class ImageClassifier(LitClassifier):
    """A classifier of images and the method that it is trained by, made of names and numbers.

    A YAML file can describe it and a checkpoint can build it again. To train a network that is
    built in Python, use :class:`~faster_isnet.LitISNet` or
    :class:`~faster_isnet.training.lit_classifier.LitClassifier`.

    Parameters
    ----------
    class_names
        A name for each logit, two or more.
    image_shape
        ``(C, H, W)`` of the images that it is trained on: the network reads C channels, 3 or 1 (of
        which pretrained weights are summed, see :func:`~faster_isnet.models.build_backbone`).
    backbone
        Name of the network, see :func:`~faster_isnet.models.build_backbone`.
    pretrained
        Start from ImageNet weights, which are downloaded on first use.
    normalise
        Normalise images within the model, as ImageNet's, so that it takes images in [0, 1] all the
        same; grey ones by the averages of the channels' means and standard deviations. By default
        if it is pretrained.
    dropout
        Before the head, in [0, 1).
    method
        How it is trained; ``None`` for :class:`~faster_isnet.methods.ISNetMethod` with its
        defaults.
    task
        ``"multiclass"`` or ``"multilabel"``; the classification loss of the method is set to it.
        ``None`` leaves it as it is.
    optimizer, learning_rate, **training
        See :class:`~faster_isnet.training.lit_classifier.LitClassifier`; here the learning rate of
        an optimiser by name is 0.001 for pretrained weights: they are adapted, not learnt.

    Attributes
    ----------
    deploys_the_classifier : bool
        Whether the deployed network is the classifier itself, and takes images as they are.

    Raises
    ------
    TypeError, ValueError
        As the classes named above do.

    Examples
    --------
    >>> from faster_isnet.methods import Standard
    >>> lit = ImageClassifier(["cat", "dog"], (3, 32, 32), backbone="convnet", method=Standard())
    >>> lit(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        class_names: list[str],
        image_shape: tuple[int, int, int],
        backbone: str = "resnet18",
        pretrained: bool = False,
        normalise: bool | None = None,
        dropout: float = 0.0,
        method: Method | None = None,
        task: str | None = None,
        optimizer: OptimizerName | OptimizerFactory = "adamw",
        learning_rate: float | None = None,
        **training: Any,
    ) -> None:
        channels, height, width = image_shape  # which a file has as a list
        model = build_backbone(
            backbone, len(class_names), pretrained=pretrained, dropout=dropout, channels=channels
        )
        self._normalises = pretrained if normalise is None else normalise
        if self._normalises:
            parts = OrderedDict(normalise=Normalise.as_imagenet(channels), network=model)
            model = nn.Sequential(parts)
        method = ISNetMethod() if method is None else method
        if task is not None:
            method.task = check_choice("task", task, TASKS)
        shape = method.image_shape = (channels, height, width)
        if learning_rate is None and pretrained and isinstance(optimizer, str):
            learning_rate = _PRETRAINED_LEARNING_RATE
        super().__init__(
            model, method, optimizer=optimizer, learning_rate=learning_rate, **training
        )
        self.class_names, self.backbone_name = list(class_names), backbone
        self._dropout = dropout
        self.image_shape = shape
        takes_images = type(method).inputs is Method.inputs
        self.deploys_the_classifier = takes_images and self.deployed is model

    @property
    def architecture(self) -> str:
        """Name of the deployed network: the backbone's, or what the method has made of it."""
        if self.deploys_the_classifier:
            return self.backbone_name
        return f"{type(self.deployed).__name__} of {self.backbone_name}"

    def built_by(self) -> dict[str, Any]:
        """Return what the deployed network is built with again, beside classes and image shape.

        Raises
        ------
        ValueError
            If it is not the classifier itself, but what the method has made of it.
        """
        if not self.deploys_the_classifier:
            raise ValueError(
                f"{self.architecture} is no backbone by its name, and cannot be built again from "
                "names and numbers; faster-isnet export --formats onnx writes it as it is"
            )
        return {
            "backbone": self.backbone_name,
            "dropout": self._dropout,
            "normalise": self._normalises,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the classifier's weights are, for those who do not know the method."""
        super().on_save_checkpoint(checkpoint)
        if self.deploys_the_classifier:
            deployed = self.deployed
            names = [name for name, module in self.named_modules() if module is deployed]
            checkpoint["classifier_at"] = names[0]

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments; built again it takes its weights from a file."""
        arguments = super().recipe_arguments()
        return arguments | {
            "class_names": list(self.class_names),  # their order may be of a checkpoint
            "pretrained": False,
            "normalise": self._normalises,
            "learning_rate": self.learning_rate,
            "method": self.method,
            "task": self.method.task,
        }

    @classmethod
    def load_deployed(cls, checkpoint_path: str | Path) -> Self:
        """Read a checkpoint to use its network, whichever method it was trained by.

        ``"hub:ORG/NAME"`` is fetched from the Hugging Face Hub, see
        :func:`~faster_isnet.training.hub.fetch`.

        The method is not built where the network that it deploys is the classifier, so one that is
        defined elsewhere need not be imported.

        Raises
        ------
        OSError
            If there is no such file, or it cannot be fetched.
        ValueError
            If the checkpoint is none of ``faster-isnet fit``, or as :meth:`load_from_checkpoint`
            and :meth:`load_uploaded` do.
        """
        if is_on_hub(checkpoint_path):
            return cls.load_uploaded(fetch(str(checkpoint_path)).folder)
        content = read_checkpoint(checkpoint_path)
        with naming_damage(checkpoint_path):
            prefix = content.get("classifier_at", "net.backbone" if "cuts" in content else None)
            if prefix is None:
                return cls.load_from_checkpoint(checkpoint_path)
            # What it was trained by does not matter, so no warning says that it is not kept.
            arguments = cls._arguments_of(content, dict.fromkeys(_OF_TRAINING))
            made = cls(**(arguments | {"method": Standard(), "task": arguments.get("task")}))
            weights = {
                key.removeprefix(f"{prefix}."): value
                for key, value in content["state_dict"].items()
                if key.startswith(f"{prefix}.")
            }
            made.deployed.load_state_dict(weights)
            return made

    @classmethod
    def load_uploaded(cls, folder: Path) -> Self:
        """Read what ``faster-isnet push`` has written: a JSON and a safetensors file.

        Raises
        ------
        ImportError
            If the network is of timm, and that is not installed.
        OSError
            If there are no such files.
        ValueError
            If the description is none, the weights do not fit, or the network that is built gives
            other logits than the one that was uploaded.
        """
        described = read_uploaded(folder)
        made = cls(**described["arguments"], method=Standard())
        network, path = made.deployed.eval(), folder / WEIGHTS
        try:
            load_model(network, path)
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{str(path)!r} has no weights in safetensors of {made.architecture}: {error}"
            ) from error
        example = described["example"]
        with torch.no_grad():
            found = network(torch.full((1, *made.image_shape), example["all_pixels"]))
        expected = torch.tensor([example["logits"]])
        if found.shape != expected.shape or not torch.allclose(found, expected, 1e-3, 1e-3):
            raise ValueError(
                f"{made.architecture} of {str(folder)!r} is built otherwise here than where it was "
                f"uploaded: the logits of the example are {found.tolist()}, not "
                f"{expected.tolist()}; install the versions that model.json names"
            )
        return made

    @classmethod
    def _arguments_of(cls, content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        options = content.get("hyper_parameters")
        if "recipe" in content or not options:
            return _without_download(super()._arguments_of(content, given))
        model, method = split_model_options(options)
        loss = {CLASS: f"{ISNetLoss.__module__}.ISNetLoss", ARGUMENTS: method.pop("loss")}
        described = {
            CLASS: f"{ISNetMethod.__module__}.ISNetMethod",
            ARGUMENTS: {**method, "loss": loss},
        }
        model = {name: value for name, value in model.items() if not name.startswith("_")}
        kept = {"method": build(described), **_without_download(model)}
        return {name: value for name, value in kept.items() if name not in given}


def _without_download(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of a checkpoint, whose weights need no others from the network."""
    if not arguments.get("pretrained"):
        return arguments
    normalise = arguments.get("normalise")
    return arguments | {
        "pretrained": False,
        "normalise": True if normalise is None else normalise,
    }


class Normalise(nn.Module):
    """(x − mean) / std by channel, for images ``[B, C, H, W]``."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @classmethod
    def as_imagenet(cls, channels: int) -> Self:
        """Normalise as ImageNet's images, those of one channel by averages over the three."""
        grey = [GREY_MEAN], [GREY_STD]
        return cls(*(grey if channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, normalised."""
        return (images - self.mean) / self.std
