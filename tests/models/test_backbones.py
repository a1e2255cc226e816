"""Backbones by name."""

from __future__ import annotations

import pytest
import torch

from faster_isnet.models import backbone_names, build_backbone, convnet


@pytest.mark.parametrize("name", ["convnet", "resnet18", "densenet121", "vgg11_bn", "googlenet"])
def test_a_backbone_maps_images_to_logits_also_in_training(name: str) -> None:
    model = build_backbone(name, classes=7).train()
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 7)


def test_convnet_has_five_convolutions_of_the_widths_asked_for() -> None:
    model = convnet(4, channels=(2, 3, 4, 5, 6))
    widths = [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [2, 3, 4, 5, 6]
    assert model(torch.rand(2, 3, 16, 24)).shape == (2, 4)


def test_names() -> None:
    assert {"convnet", "resnet50", "densenet201", "vgg16_bn"} <= set(backbone_names())
    assert "fcn_resnet50" not in backbone_names()  # no classifier
    with pytest.raises(ValueError, match="unknown backbone 'resnet19'; did you mean 'resnet1"):
        build_backbone("resnet19", 3)
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        build_backbone("resnet18", 1)
