"""Change the convolution that reads the image: for grey images, and for others' normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY_MEAN = sum(IMAGENET_MEAN) / 3
"""Of grey images, for weights that :func:`read_grey_imagenet` has changed."""
GREY_STD = sum(IMAGENET_STD) / 3


def sum_input_channels(model: nn.Module) -> None:
    """Make a network of colour images read grey ones, in place.

    The weights of the convolution that reads the image are summed over its three input channels. A
    grey image then has the logits that the image repeated in three channels had before.

    Parameters
    ----------
    model
        A network with one convolution of three input channels: the one that reads the image.

    Raises
    ------
    ValueError
        If there is no such convolution, or there are several.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    >>> sum_input_channels(model)
    >>> model(torch.rand(2, 1, 5, 5)).shape
    torch.Size([2, 4, 5, 5])
    """
    first, _ = _first_convolution(model)
    summed = first.weight.detach().sum(1, keepdim=True)
    first.weight = nn.Parameter(summed, requires_grad=first.weight.requires_grad)
    first.in_channels = 1


def read_grey_imagenet(model: nn.Module) -> None:
    """Make a network that takes colours normalised as ImageNet's read grey images, in place.

    Weights are summed as by :func:`sum_input_channels`, after each channel's mean and standard
    deviation are folded into them: a sum alone would change each output of the first convolution by
    a constant. For (x − :data:`GREY_MEAN`) / :data:`GREY_STD`, with the channels' means, the
    network has the logits that it had for the repeated image, normalised by channel, up to
    rounding; but where the convolution pads, zeros stand for another grey than before.

    Parameters
    ----------
    model
        As :func:`sum_input_channels` takes it. The convolution has a bias, or the next module is
        its batch norm.

    Raises
    ------
    ValueError
        If it is no such network.
    """
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    _fold(model, GREY_STD / std, (GREY_MEAN - mean) / std)
    sum_input_channels(model)


def fold_transform_input(model: Any) -> None:
    """Fold what a GoogLeNet or Inception does to images into its weights, in place.

    With ``transform_input``, as with pretrained weights, torchvision's networks first turn images
    normalised as ImageNet's into (x − 0.5) / 0.5, channel by channel. This is no part of a state
    dict, so the network that is built again for the weights of a checkpoint would lack it. In
    evaluation mode Inception computes what it did before, up to rounding, and so does GoogLeNet,
    except within the 3 pixels by which its first convolution pads.

    Parameters
    ----------
    model
        A GoogLeNet or Inception v3 of torchvision. Without ``transform_input`` nothing changes.
    """
    if not model.transform_input:
        return
    black, white = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    shift = model._transform_input(black)
    _fold(model, (model._transform_input(white) - shift).flatten(), shift.flatten())
    model.transform_input = False


def _fold(model: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make a network compute for x what it did for scale · x + shift, by channel ``[3]``."""
    first, following = _first_convolution(model)
    with torch.no_grad():
        weight = first.weight
        shifted = (weight * shift.to(weight)[:, None, None]).sum((1, 2, 3))
        weight *= scale.to(weight)[:, None, None]
        if first.bias is not None:
            first.bias += shifted
        elif isinstance(following, nn.BatchNorm2d) and following.running_mean is not None:
            following.running_mean -= shifted
        else:
            raise ValueError(
                f"the first convolution of {type(model).__name__} has no bias, and no batch norm "
                "follows that could have it; use channels=3"
            )


def _first_convolution(model: nn.Module) -> tuple[nn.Conv2d, nn.Module | None]:
    """Find the convolution of three input channels, and the module that is registered next."""
    modules: Sequence[tuple[str, nn.Module]] = list(model.named_modules())
    found = [
        number
        for number, (_, module) in enumerate(modules)
        if isinstance(module, nn.Conv2d) and module.in_channels == 3
    ]
    if len(found) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(found)} convolutions of three input channels "
            f"({', '.join(modules[number][0] for number in found)}), so it is not known which one "
            "reads the image; use channels=3"
        )
    first = modules[found[0]][1]
    assert isinstance(first, nn.Conv2d)
    return first, next((module for _, module in modules[found[0] + 1 :]), None)
