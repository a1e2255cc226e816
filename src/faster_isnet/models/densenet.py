"""Build the papers' DenseNet."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from faster_isnet.models.heads import check_head, fit_head

DEPTHS = (121, 161, 169, 201, 264)


def densenet(depth: int, classes: int, pretrained: bool = False, dropout: float = 0.0) -> nn.Module:
    """Build the papers' DenseNet: torchvision's, with an additional ReLU in each transition.

    The ReLU, ``features.transition1.relu2`` and so on, is between the transition's convolution
    and its pooling, so that every sequence of linear layers ends with a ReLU, where LRP-Flex
    applies its rule. It has no parameters: the state dict has torchvision's keys, and torchvision's
    weights can be loaded. The ReLU changes the network's function, so weights trained without it
    need fine-tuning.

    Parameters
    ----------
    depth
        121, 161, 169, 201 or 264. 264 is not in torchvision; it has a growth rate of 32 and
        dense blocks of 6, 12, 64 and 48 layers.
    classes
        Number of logits, ≥ 2.
    pretrained
        Start from torchvision's ImageNet weights, with a new classifier head. They are downloaded
        on first use, and need images normalised with ImageNet's statistics. 264 has none.
    dropout
        Dropout probability before the head, in [0, 1); for its effect on state dict keys see
        :func:`~faster_isnet.models.replace_classifier`.

    Returns
    -------
    torchvision.models.DenseNet
        Maps images ``[B, 3, H, W]``, of at least 29 x 29 pixels, to logits ``[B, classes]``.

    Raises
    ------
    TypeError
        If ``classes`` is not an integer, or ``dropout`` not a number.
    ValueError
        If there is no DenseNet of this depth or there are no weights for it, or a number is out of
        range.

    References
    ----------
    Huang et al., "Densely connected convolutional networks", CVPR 2017; the ReLU: Bassi et al.,
    Nature Communications 15, 291 (2024), and IEEE Access 12, 155151-155167 (2024).

    Examples
    --------
    >>> model = densenet(121, classes=3)
    >>> [name for name, _ in model.features.transition1.named_children()]
    ['norm', 'relu', 'conv', 'relu2', 'pool']
    """
    check_head(classes, dropout)
    return fit_head(new_densenet(depth, classes, pretrained), classes, pretrained, dropout)


def new_densenet(depth: int, classes: int, pretrained: bool) -> nn.Module:
    """Build the papers' DenseNet; with pretrained weights it has the 1000 classes of ImageNet."""
    if depth not in DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth!r}")
    if depth == 264 and pretrained:
        raise ValueError(
            "torchvision has no pretrained weights for densenet264; use pretrained=False, or "
            "another depth"
        )
    if depth == 264:
        model = torchvision.models.DenseNet(32, (6, 12, 64, 48), 64, num_classes=classes)
    else:
        options: dict[str, Any] = {"weights": "DEFAULT"} if pretrained else {"num_classes": classes}
        model = torchvision.models.get_model(f"densenet{depth}", **options)
    return add_transition_relus(model)


def add_transition_relus(model: nn.Module) -> nn.Module:
    """Insert a ReLU between convolution and pooling in each transition of a DenseNet, in place."""
    features: Any = model.features
    for name, block in features.named_children():
        if name.startswith("transition"):
            pool = block.pool
            del block.pool  # re-registered below, since modules run in the order of registration
            block.relu2 = nn.ReLU(inplace=True)
            block.pool = pool
    return model
