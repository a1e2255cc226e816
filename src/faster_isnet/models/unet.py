"""Build U-Nets, and decoders for other encoders, of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.checks import NO_MASK, check_choice
from faster_isnet.common.precision import at_least_float32

CHANNELS = 3
"""Channels that a U-Net's encoder takes, as pretrained ones need three."""
_WIDTHS = (256, 128, 64, 32, 16)
"""Channels of a decoder's blocks, from the smallest map on: the package's default."""


def smp() -> Any:
    """Import the optional package segmentation_models_pytorch.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise ImportError(
            "U-Nets need segmentation-models-pytorch: pip install 'faster-isnet[segment]' "
            f"({error})"
        ) from error


def build_unet(encoder: str, encoder_weights: str | None = None) -> nn.Module:
    """Build a U-Net from images ``[B, 3, H, W]`` to logits ``[B, 1, H, W]``.

    Parameters
    ----------
    encoder
        Name of the encoder; ``"tu-…"`` are from timm.
    encoder_weights
        ``None`` for random weights, or the name of pretrained weights to download.

    Raises
    ------
    ImportError
        If segmentation-models-pytorch is not installed.
    ValueError
        If encoder or weights are unknown.
    """
    unet = smp().Unet
    if not encoder.startswith("tu-"):
        check_choice("encoder", encoder, smp().encoders.get_encoder_names())
    try:
        network: nn.Module = unet(encoder, encoder_weights=encoder_weights, in_channels=CHANNELS)
    except (KeyError, RuntimeError) as error:  # RuntimeError: unknown model of timm
        raise ValueError(
            f"encoder {encoder!r} with encoder_weights {encoder_weights!r} cannot be built: "
            f"{error.args[0]}"
        ) from error
    return network


def mask_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Compute a U-Net's logits ``[B, 1, H, W]`` of images ``[B, C, H, W]``.

    Each image is normalised to mean 0 and variance 1, for independence of the exposure. If it has
    not three channels, three times their mean is segmented.
    """
    if images.shape[1] != CHANNELS:
        images = images.mean(1, keepdim=True).expand(-1, CHANNELS, -1, -1)
    logits: Tensor = network(F.layer_norm(images, images.shape[1:]))
    return logits


class MaskDecoder(nn.Module):
    """Decode hidden layers of any encoder to the logits of a mask, as a U-Net does.

    The smallest map is upsampled to the size of the one before it and joined with it, and so on up
    to the size of the image; sizes need not be powers of two (nearest-neighbour interpolation).

    Parameters
    ----------
    channels
        Of the hidden layers, from the first to the last.

    Raises
    ------
    ImportError
        If segmentation-models-pytorch is not installed.

    Examples
    --------
    >>> import torch
    >>> layers = [torch.rand(2, 8, 15, 24), torch.rand(2, 16, 7, 12)]
    >>> MaskDecoder([8, 16])(torch.rand(2, 3, 30, 48), layers).shape
    torch.Size([2, 1, 30, 48])
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        package = smp()
        blocks = len(channels)
        widths = (*_WIDTHS[:1] * (blocks - len(_WIDTHS)), *_WIDTHS[-blocks:])
        # The decoder does not read the first of its inputs, the image, but for its size.
        self.blocks = package.decoders.unet.decoder.UnetDecoder(
            encoder_channels=[CHANNELS, *channels], decoder_channels=widths, n_blocks=blocks
        )
        self.head = package.base.SegmentationHead(widths[-1], 1)

    def forward(self, images: Tensor, layers: Sequence[Tensor]) -> Tensor:
        """Return logits ``[B, 1, H, W]``.

        Parameters
        ----------
        images
            ``[B, C, H, W]``, of which the size is read.
        layers
            ``[B, C_l, h, w]`` of each layer, from the first to the last.
        """
        return self.head(self.blocks([images, *layers]))  # type: ignore[no-any-return]


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute binary cross-entropy plus Dice loss of the samples that have a mask, a scalar.

    Both are in float32; the cross-entropy is a mean over pixels, and the Dice loss is of all pixels
    of the batch as one. If no sample has a mask, the loss and its gradient are 0.

    Parameters
    ----------
    logits
        ``[B, 1, H, W]``.
    masks
        ``[B, 1, H, W]`` in {0, 1}, or :data:`~faster_isnet.NO_MASK` everywhere for none.

    Raises
    ------
    ImportError
        If segmentation-models-pytorch is not installed.

    Examples
    --------
    >>> import torch
    >>> masks = torch.tensor([[1.0, 0.0], [NO_MASK, NO_MASK]]).reshape(2, 1, 1, 2)
    >>> segmentation_loss(20 * torch.tensor([1.0, -1.0]).expand(2, 1, 1, 2), masks).item() < 1e-6
    True
    """
    logits = at_least_float32(logits)
    known = (masks != NO_MASK).to(logits)
    targets = masks.to(logits) * known
    entropy = F.binary_cross_entropy_with_logits(logits, targets, known, reduction="sum")
    dice = smp().losses.DiceLoss("binary", from_logits=True, ignore_index=int(NO_MASK))
    loss: Tensor = entropy / known.sum().clamp(min=1) + dice(logits, masks.to(logits))
    return loss
