"""The networks that the published implementation was measured on, and what it computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, ResNet
from torchvision.models.resnet import BasicBlock


def _sequential() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5)),
    )


def _densenet_tiny() -> nn.Module:
    model = DenseNet(
        growth_rate=4, block_config=(2, 3), num_init_features=8, bn_size=2, num_classes=5
    )
    model.features.pool0 = nn.MaxPool2d(2, 2)
    transition = model.features.transition1
    pool = transition.pool
    del transition.pool
    transition.add_module("relu_after_conv", nn.ReLU())
    transition.add_module("pool", pool)
    return model


class _NarrowResNet(ResNet):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = 8, 1, 1, 64
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d(2, 2)
        self.layer1 = self._make_layer(BasicBlock, 8, 1)
        self.layer2 = self._make_layer(BasicBlock, 16, 1, 2)
        self.layer3 = self._make_layer(BasicBlock, 32, 1, 2)
        self.layer4 = self._make_layer(BasicBlock, 64, 1, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(64, 5)


NETWORKS = {
    "sequential": _sequential,
    "densenet_tiny": _densenet_tiny,
    "resnet_basic_narrow": _NarrowResNet,
}


@dataclass(frozen=True)
class Golden:
    """One of the networks that the published implementation was measured on."""

    numbers: dict[str, Tensor]
    model: nn.Module

    def __getitem__(self, key: str) -> Tensor:
        return self.numbers[key]


def load_golden(name: str) -> Golden:
    """Return a network of :data:`NETWORKS` in eval mode, with its numbers."""
    path = Path(__file__).parent / "golden" / f"{name}.npz"
    numbers = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    parameters = {k.removeprefix("param/"): v for k, v in numbers.items() if "param/" in k}
    model = NETWORKS[name]()
    model.load_state_dict(parameters)
    return Golden(numbers, model.eval())
