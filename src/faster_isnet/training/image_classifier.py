"""The Lightning module that the commands train: an ISNet by the names of its parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from faster_isnet.methods.isnet.calibration import Calibration
from faster_isnet.methods.isnet.cuts import AUTO
from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.methods.isnet.network import ISNet, supervised_layers
from faster_isnet.models import build_backbone
from faster_isnet.training.module import LitISNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageClassifier(LitISNet):
    """An ISNet, or the plain classifier beside it, made of names and numbers alone.

    So it can be written down in a YAML file and built again from a checkpoint. Whoever builds
    networks in Python needs :class:`~faster_isnet.LitISNet` only.

    Parameters
    ----------
    class_names
        A name for each logit, two or more.
    image_shape
        ``(C, H, W)`` of the images that it is trained on: a note for whoever uses the checkpoint.
    backbone
        Name of the network, see :func:`~faster_isnet.models.build_backbone`.
    pretrained
        Start from ImageNet weights, which are downloaded on first use.
    normalise
        Normalise images within the model, as ImageNet's, so that it takes images in [0, 1] all the
        same. By default if it is pretrained.
    dropout
        Before the head, in [0, 1).
    variant, deep_supervision, epsilon, ignore_classes
        See :class:`~faster_isnet.ISNet`.
    task, heatmap_weight, gwrp_decay, cut_low, cut_high, class_weights
        See :class:`~faster_isnet.ISNetLoss`. By default C1 and C2 are calibrated.
    calibration
        A file of ``faster-isnet calibrate``, from which C1 and C2 are then taken.
    optimizer, learning_rate, **training
        What :class:`~faster_isnet.LitISNet` takes.

    Raises
    ------
    TypeError, ValueError
        As the classes named above do.

    Examples
    --------
    >>> lit = ImageClassifier(["cat", "dog"], (3, 32, 32), backbone="convnet", heatmap_weight=0.5)
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
        variant: str = "selective",
        deep_supervision: bool | str | list[str] = False,
        epsilon: float = 1e-2,
        ignore_classes: Sequence[int] = (),
        task: str = "multiclass",
        heatmap_weight: float = 0.7,
        gwrp_decay: float = 0.9,
        cut_low: float | str = "auto",
        cut_high: float = 25.0,
        class_weights: list[float] | None = None,
        calibration: str | None = None,
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        **training: Any,
    ) -> None:
        model = build_backbone(backbone, len(class_names), pretrained=pretrained, dropout=dropout)
        layers = supervised_layers(model, deep_supervision)
        normalise = pretrained if normalise is None else normalise
        if normalise:
            parts = OrderedDict(normalise=Normalise(IMAGENET_MEAN, IMAGENET_STD), network=model)
            model, layers = nn.Sequential(parts), [f"network.{name}" for name in layers]
        net = ISNet(model, variant, layers, epsilon=epsilon, ignore_classes=ignore_classes)
        criterion = ISNetLoss(
            heatmap_weight,
            gwrp_decay,
            cut_low=cut_low,
            cut_high=cut_high,
            task=task,
            class_weights=class_weights,
        )
        if calibration is not None:
            criterion.cuts, cut_low = Calibration.load(calibration).cuts, AUTO
        super().__init__(
            net, criterion, optimizer=optimizer, learning_rate=learning_rate, **training
        )
        self.class_names, self.image_shape = list(class_names), image_shape
        self.save_hyperparameters()
        # A checkpoint holds all weights and cuts: to build it again nothing else is needed.
        self.hparams.update(
            pretrained=False, normalise=normalise, calibration=None, cut_low=cut_low
        )


class Normalise(nn.Module):
    """(x − mean) / std by channel, for images ``[B, C, H, W]``."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, normalised."""
        return (images - self.mean) / self.std
