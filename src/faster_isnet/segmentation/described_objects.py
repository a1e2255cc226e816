"""Segment what a text describes, with CLIPSeg, which others trained on pictures and phrases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from faster_isnet.segmentation.hub_networks import HubNetwork
from faster_isnet.segmentation.segmenter import Segmenter, resized
from faster_isnet.segmentation.shapes import OF_OBJECTS

CLIPSEG = HubNetwork(
    title="CLIPSeg",
    default="CIDAS/clipseg-rd64-refined",  # 603 MB, Apache-2.0
    revision="325a839908143a34b409ae6f2910fa015ea390e6",
    types=("clipseg",),
    network="CLIPSegForImageSegmentation",
    processor="CLIPSegProcessor",
)
_CHANNELS = 3


class DescribedObjectSegmenter(Segmenter):
    """Find everything in an image that one of some texts describes.

    The network is CLIPSeg (Lüddecke and Ecker, CVPR 2022, "Image segmentation using text and image
    prompts"). Nothing has been measured of it here: look at its masks.

    Parameters
    ----------
    prompts
        What to find, such as ``["a butterfly"]``; what any of them describes is foreground. English
        words of photographs are what it was trained on.
    network
        Name of a CLIPSeg on the Hugging Face hub, by default
        ``"CIDAS/clipseg-rd64-refined"`` at a fixed commit; of
        others the newest. Not beside ``weights``.
    weights
        A folder with such a network (``config.json``, ``model.safetensors``, the tokenizer's
        files), as the hub or ``save_pretrained`` writes it. By default the one that was downloaded
        before.
    download
        Download the network if it is not there.

    Raises
    ------
    FileNotFoundError
        If the network is not there and is not to be downloaded.
    ValueError
        If a prompt is empty or too long, if the folder or the network is no CLIPSeg or lacks
        weights, or both are given.
    OSError
        If it cannot be downloaded.
    ImportError
        If transformers is not installed.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        network: str | None = None,
        weights: str | Path | None = None,
        download: bool = False,
    ) -> None:
        if not prompts or not all(prompts):
            raise ValueError(f"what is to be found? A prompt is empty: {list(prompts)}")
        super().__init__(OF_OBJECTS, None)
        self._prompts = list(prompts)
        self._model, self._processor = CLIPSEG.load(network, weights, download)
        most = self._model.config.text_config.max_position_embeddings
        for prompt in self._prompts:
            if (tokens := len(self._processor.tokenizer(prompt)["input_ids"])) > most:
                raise ValueError(f"the prompt {prompt!r} has {tokens} tokens of {most}; shorten it")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)

    @torch.no_grad()
    def probabilities(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """See :meth:`Segmenter.probabilities`."""
        colour = image.expand(_CHANNELS, -1, -1)
        given = self._processor(
            text=self._prompts,
            images=[colour] * len(self._prompts),
            do_rescale=False,  # it is in [0, 1] already
            padding=True,
            return_tensors="pt",
        )
        logits = self._model(**given.to(self._device)).logits.float().cpu()
        found = logits.sigmoid().amax(0)[None, None]
        return resized(found, image, size).clamp(0, 1)
