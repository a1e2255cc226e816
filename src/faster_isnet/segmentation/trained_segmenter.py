"""Apply a segmenter that was trained here, and read and write its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from faster_isnet.common.files import write_atomically
from faster_isnet.data.dataset import fit_image
from faster_isnet.models.unet import CHANNELS, build_unet, mask_logits
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.segmentation.segmenter import Segmenter, resized
from faster_isnet.segmentation.settings import SegmenterSettings
from faster_isnet.segmentation.shapes import ShapeRanges

WEIGHTS, DESCRIPTION = "segmenter.safetensors", "segmenter.json"


class TrainedSegmenter(Segmenter):
    """Predict masks with a network that :func:`~faster_isnet.segmentation.fit_segmenter` trained.

    Parameters
    ----------
    network
        Maps images ``[B, 3, S, S]`` to logits ``[B, 1, S, S]``, in eval mode.
    settings
        The settings of its training.
    seen
        Ranges of the training masks' shapes, after the same cleaning as predicted masks.
    """

    def __init__(self, network: nn.Module, settings: SegmenterSettings, seen: ShapeRanges) -> None:
        super().__init__(seen, settings.components)
        self.network = network
        self.settings = settings

    @torch.no_grad()
    def probabilities(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """See :meth:`Segmenter.probabilities`."""
        device = next(self.network.parameters()).device
        side = self.settings.size
        square = fit_image(image, (side, side), CHANNELS)[None].to(device)
        # Resizing logits instead of masks keeps the outline smooth.
        logits = resized(mask_logits(self.network, square), image, size)
        return logits.float().sigmoid().cpu()


def save_segmenter(
    segmenter: TrainedSegmenter, folder: Path, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``segmenter.safetensors`` and ``segmenter.json`` into a folder.

    Parameters
    ----------
    segmenter
        The segmenter.
    folder
        The folder; created if missing.
    extra
        Additional content of the JSON file.

    Returns
    -------
    dict
        The content of the JSON file.
    """
    text = json.dumps(
        {
            "network": type(segmenter.network).__qualname__,
            "settings": asdict(segmenter.settings),
            "seen": asdict(segmenter.expected),
            **extra,
        },
        indent=2,
    )
    state = {name: value.cpu() for name, value in segmenter.network.state_dict().items()}
    write_atomically(folder / WEIGHTS, save(state))
    write_atomically(folder / DESCRIPTION, f"{text}\n".encode())
    description: dict[str, Any] = json.loads(text)
    return description


def load_segmenter(folder: str | Path) -> TrainedSegmenter:
    """Read a segmenter written by :func:`~faster_isnet.segmentation.fit_segmenter`.

    Parameters
    ----------
    folder
        Contains ``segmenter.safetensors`` and ``segmenter.json``.

    Returns
    -------
    TrainedSegmenter
        In eval mode, on the CPU; ``segmenter.network.to(device)`` moves it.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file cannot be read, or settings and weights do not match.
    ImportError
        If segmentation-models-pytorch is not installed.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {str(folder / name)!r}; name the folder that a segmenter was written "
                "to, or train one first: faster-isnet segment fit"
            )
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        settings = SegmenterSettings.from_dict(description["settings"])
        seen = ShapeRanges(**{name: tuple(ends) for name, ends in description["seen"].items()})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(folder / DESCRIPTION)!r} does not describe a segmenter ({error!r}); train it "
            "anew: faster-isnet segment fit"
        ) from error
    network = load_backbone_weights(folder / WEIGHTS, build_unet(settings.encoder))
    return TrainedSegmenter(network.eval(), settings, seen)
