"""HAM learns to attend to the foreground from masks, where labels alone lead it elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faster_isnet.methods import Batch
from faster_isnet.methods.ham.method import HAM
from faster_isnet.methods.ham.network import HAMNetwork
from faster_isnet.models import convnet

SIDE = 32


@pytest.mark.slow
def test_masks_move_attention_into_the_foreground() -> None:
    """A mark in a corner gives away what faint stripes somewhere else also tell."""
    found = {weight: trained(weight) for weight in (0.0, 0.5)}
    (inside_alone, alone), (inside, masked) = (measured(network) for network in found.values())
    assert inside_alone < 0.4
    assert inside > 0.65
    assert alone < 0.65  # it has learnt nothing but the mark
    assert masked > alone + 0.1


def trained(mask_weight: float) -> HAMNetwork:
    torch.manual_seed(1)
    method = HAM(mask_weight=mask_weight, image_shape=(3, SIDE, SIDE))
    network = method.build(small()).train()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(130):
        losses = method.training_losses(network, striped(32, mark=True))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    return network.eval()


def measured(network: HAMNetwork) -> tuple[float, float]:
    """The share of the true class's map in the foreground, and the accuracy without marks."""
    torch.manual_seed(9)
    images, labels, masks, _ = striped(200, mark=True)
    assert labels is not None
    assert masks is not None
    with torch.no_grad():
        maps = network.attend(images).class_maps[torch.arange(200), labels]
        touched = nn.functional.adaptive_max_pool2d(masks, maps.shape[1:])[:, 0]
        shares = (maps * touched).sum((1, 2)) / maps.sum((1, 2)).clamp(min=1e-6)
        images, labels, *_ = striped(200, mark=False)
        accuracy = (network(images).argmax(1) == labels).float().mean()
    return float(shares.mean()), float(accuracy)


def striped(count: int, mark: bool) -> Batch:
    """Faint stripes in a square of noise, upright or lying, and a red or a green corner."""
    labels = torch.randint(2, (count,))
    images = torch.rand(count, 1, SIDE, SIDE).repeat(1, 3, 1, 1)
    masks = torch.zeros(count, 1, SIDE, SIDE)
    stripes = (torch.arange(12) % 4 < 2).float().expand(12, 12)
    for image, label, mask in zip(images, labels.tolist(), masks, strict=True):
        row, column = torch.randint(6, 16, (2,)).tolist()
        square: Tensor = image[:, row : row + 12, column : column + 12]
        square.copy_(0.75 * square + 0.25 * (stripes.T if label else stripes))
        mask[:, row : row + 12, column : column + 12] = 1
        if mark:
            image[:, :4, :4] = torch.eye(3)[label][:, None, None]
    return Batch(images, labels, masks)


def small() -> nn.Sequential:
    """A classifier whose last maps are a fourth of the image."""
    network = convnet(2, channels=(16, 32, 32))
    del network.block3[-1]
    return network
