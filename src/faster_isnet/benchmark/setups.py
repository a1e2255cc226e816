"""What contenders work on: a model, and a batch made up for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from faster_isnet.models import CONVNET, convnet


@dataclass(frozen=True)
class Setup:
    """A model with a batch for it.

    Attributes
    ----------
    model
        In training mode to be trained, else in eval mode. Its parameters require gradients either
        way, as those of a model just loaded do; an explanation computes none of them.
    optimizer
        Of the model: SGD with momentum, :class:`~faster_isnet.LitISNet`'s default, but so slow
        that the steps of a benchmark change nothing.
    images, labels, masks
        ``[B, 3, H, W]`` in [0, 1], ``[B]``, and ``[B, 1, H, W]`` with a quarter of foreground.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    masks: Tensor


def new_setup(
    architecture: str,
    classes: int,
    batch: int,
    size: int,
    *,
    training: bool,
    device: str = "cpu",
    seed: int = 0,
) -> Setup:
    """Return a new network with random weights, and a batch; the same for the same arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(architecture, classes).to(device)
        images = torch.rand(batch, 3, size, size).to(device)
        labels = torch.randint(classes, (batch,)).to(device)
    masks = torch.zeros(batch, 1, size, size, device=device)
    masks[..., size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
    if not training:
        _settle(model, images)
    model.train(training)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7, momentum=0.9)
    return Setup(model, optimizer, images, labels, masks)


def _new_model(architecture: str, classes: int) -> nn.Module:
    if architecture == CONVNET:
        return convnet(classes)
    return torchvision.models.get_model(  # type: ignore[no-any-return]
        architecture, weights=None, num_classes=classes
    )


def _settle(model: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of these images, as training would.

    With those that they start with, the values of a deep network shrink from layer to layer.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
