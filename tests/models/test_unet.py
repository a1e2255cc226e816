"""U-Nets, decoders and their loss take images of any size and channels, with and without masks."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from faster_isnet import NO_MASK
from faster_isnet.models.unet import (
    MaskDecoder,
    build_unet,
    mask_logits,
    segmentation_loss,
    smp,
)

ENCODER = "tu-mobilenetv3_small_050"  # a fast one


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 64), (33, 50)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_size_and_channels(size: tuple[int, int], channels: int) -> None:
    logits = mask_logits(build_unet(ENCODER).eval(), torch.rand(2, channels, *size))
    assert logits.shape == (2, 1, *size)


def test_grey_images_are_segmented_as_their_colour_image() -> None:
    network, grey = build_unet(ENCODER).eval(), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(
        mask_logits(network, grey), mask_logits(network, grey.expand(-1, 3, -1, -1))
    )


def test_the_exposure_of_an_image_changes_nothing() -> None:
    network, images = build_unet(ENCODER).eval(), torch.rand(2, 3, 32, 32)
    darker = mask_logits(network, 0.5 * images + 0.1)
    torch.testing.assert_close(mask_logits(network, images), darker, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("blocks", range(1, 8))
def test_a_decoder_of_any_number_of_layers(blocks: int) -> None:
    layers = [torch.rand(2, 4 + i, 40 >> i, 24 >> i) for i in range(min(blocks, 4))]
    layers += [torch.rand(2, 9, 2, 1)] * (blocks - len(layers))
    decoder = MaskDecoder([layer.shape[1] for layer in layers])
    logits = decoder(torch.rand(2, 3, 50, 30), layers)
    assert logits.shape == (2, 1, 50, 30)
    logits.sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_a_decoder_reads_each_of_its_layers() -> None:
    layers = [torch.rand(2, 4, 16 >> i, 16 >> i, requires_grad=True) for i in range(3)]
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    logits = MaskDecoder([4, 4, 4])(images, layers)
    gradients = torch.autograd.grad(logits.square().sum(), [*layers, images], allow_unused=True)
    assert all(g is not None and g.abs().sum() > 0 for g in gradients[:3])
    assert gradients[3] is None


def test_the_loss_is_cross_entropy_and_dice() -> None:
    logits, masks = torch.randn(3, 1, 8, 8), (torch.rand(3, 1, 8, 8) < 0.4).float()
    p = logits.sigmoid()
    dice = 1 - 2 * (p * masks).sum() / (p.sum() + masks.sum())
    expected = F.binary_cross_entropy_with_logits(logits, masks) + dice
    torch.testing.assert_close(segmentation_loss(logits, masks), expected)


def test_samples_without_a_mask_are_left_out_of_the_loss() -> None:
    logits, masks = torch.randn(4, 1, 8, 8), (torch.rand(4, 1, 8, 8) < 0.4).float()
    masks[1::2] = NO_MASK
    logits.requires_grad_()
    loss = segmentation_loss(logits, masks)
    torch.testing.assert_close(loss, segmentation_loss(logits[::2], masks[::2]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[1::2] == 0).all()
    assert (gradient[::2] != 0).any()


def test_without_any_mask_the_loss_and_its_gradient_are_0() -> None:
    logits = torch.randn(2, 1, 8, 8, requires_grad=True)
    loss = segmentation_loss(logits, torch.full_like(logits, NO_MASK))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert (gradient == 0).all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, masks = 8 * torch.randn(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    half = segmentation_loss(logits.bfloat16(), masks)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, segmentation_loss(logits.bfloat16().float(), masks))


def test_the_package_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'faster-isnet\[segment\]'"):
        smp()
