"""Build the U-Net of segmentation-models-pytorch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.checks import check_choice

CHANNELS = 3
"""Channels of input images; grey images are repeated, as pretrained encoders need three."""


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
            "segmenters need segmentation-models-pytorch: pip install 'faster-isnet[segment]' "
            f"({error})"
        ) from error


def build_network(encoder: str, encoder_weights: str | None = None) -> nn.Module:
    """Build a U-Net from images ``[B, 3, S, S]`` to logits ``[B, 1, S, S]``.

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
    """Compute logits ``[B, 1, S, S]`` of images ``[B, 3, S, S]`` in [0, 1].

    Each image is normalised to mean 0 and variance 1, for independence of the exposure.
    """
    logits: Tensor = network(F.layer_norm(images, images.shape[1:]))
    return logits
