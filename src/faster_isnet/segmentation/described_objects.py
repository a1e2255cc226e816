"""Segment what a text describes, with CLIPSeg, which others trained on pictures and phrases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faster_isnet.segmentation.segmenter import Segmenter, resized
from faster_isnet.segmentation.shapes import OF_OBJECTS

CLIPSEG = "CIDAS/clipseg-rd64-refined"
"""Its name on the Hugging Face hub (603 MB, Apache-2.0)."""
REVISIONS = {CLIPSEG: "325a839908143a34b409ae6f2910fa015ea390e6"}
"""Of networks that are downloaded, the commit whose files are meant: by its hash."""
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
        Name of a CLIPSeg on the Hugging Face hub, by default :data:`CLIPSEG` at a fixed commit; of
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
        if network is not None and weights is not None:
            raise ValueError(f"network {network!r} and weights {str(weights)!r}: leave out one")
        self._model, self._processor = _load(network or CLIPSEG, weights, download)
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


def _load(name: str, weights: str | Path | None, download: bool) -> tuple[Any, Any]:
    """Return CLIPSeg and what prepares its images and texts."""
    if weights is not None:
        _check_folder(Path(weights))
    try:
        from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor
    except ImportError as error:
        raise ImportError(
            "segmenting by a text needs transformers: pip install 'faster-isnet[prompt]'"
        ) from error
    source = name if weights is None else str(weights)
    options = {"local_files_only": not download, "revision": REVISIONS.get(source, "main")}
    network: Any = CLIPSegForImageSegmentation
    processor: Any = CLIPSegProcessor
    try:
        model, found = network.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, **options
        )
        if lacking := [*found["missing_keys"], *found["mismatched_keys"]]:
            raise ValueError(
                f"{source!r} lacks {len(lacking)} weights of a CLIPSeg, such as {lacking[0]}; "
                "name another"
            )
        return model.eval(), processor.from_pretrained(source, **options)
    except OSError as error:
        if download or weights is not None:
            raise
        raise FileNotFoundError(
            f"the weights of {name} are not on this machine; download them (--download), or name "
            "a folder with them (--weights)"
        ) from error


def _check_folder(folder: Path) -> None:
    """Check that a folder says that it is a CLIPSeg's."""
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(
            f"there is no config.json in {str(folder)!r}; name the folder of a CLIPSeg"
        )
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if kind != "clipseg":
        raise ValueError(f"{str(folder)!r} holds a network of the type {kind!r}, not a CLIPSeg")
