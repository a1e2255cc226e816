"""Segment what boxes or points say, with SAM 2, which others trained on images and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faster_isnet.segmentation.hints import Hint, HintedObject, ObjectBox
from faster_isnet.segmentation.hub_networks import HubNetwork
from faster_isnet.segmentation.segmenter import HintedSegmenter, Segmenter, resized
from faster_isnet.segmentation.shapes import OF_OBJECTS

SAM2 = HubNetwork(
    title="SAM 2",
    default="facebook/sam2.1-hiera-tiny",  # 156 MB, Apache-2.0
    revision="main",
    types=("sam2", "sam2_video"),  # the hub's networks of images are within those of videos
    network="Sam2Model",
    processor="Sam2Processor",
)
MARGIN = 0.05
"""By what share of its sides a box is grown on each of them, to which the mask is cropped."""
_CHANNELS = 3


class Sam2Segmenter(HintedSegmenter):
    """Find the objects that boxes or points are of.

    The network is SAM 2 (Ravi et al. 2024, "SAM 2: Segment anything in images and videos"). Of the
    three masks that it proposes for an object the one is taken whose intersection over union it
    predicts to be the highest, and of a box nothing that is farther outside of it than
    :data:`MARGIN`. Nothing has been measured of it here: look at its masks.

    Parameters
    ----------
    network
        Name of a SAM 2 on the Hugging Face hub, by default ``"facebook/sam2.1-hiera-tiny"``, the
        newest of its name. Not beside ``weights``.
    weights
        A folder with such a network (``config.json``, ``model.safetensors`` and the processor's
        files), as the hub or ``save_pretrained`` writes it. By default the one that was downloaded
        before.
    download
        Download the network if it is not there.

    Raises
    ------
    FileNotFoundError, ValueError, OSError, ImportError
        As :meth:`HubNetwork.load`.
    """

    def __init__(
        self,
        network: str | None = None,
        weights: str | Path | None = None,
        download: bool = False,
    ) -> None:
        self._model, self._processor = SAM2.load(network, weights, download)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")

    def at(self, hint: Hint) -> Segmenter:
        """See :meth:`HintedSegmenter.at`."""
        return _Sam2At(self._model, self._processor, hint)


class _Sam2At(Segmenter):
    def __init__(self, model: Any, processor: Any, hint: Hint) -> None:
        super().__init__(OF_OBJECTS, None)
        self._model, self._processor, self._hint = model, processor, hint

    @torch.no_grad()
    def probabilities(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """See :meth:`Segmenter.probabilities`; of several objects the most probable."""
        height, width = image.shape[1:]
        objects = self._hint.objects((height, width))
        found = torch.zeros(1, 1, height, width)
        if not objects:  # the mask is empty
            return resized(found, image, size)
        brightest = image.max().clamp(min=torch.finfo(image.dtype).eps)
        given = self._processor(
            images=(image / brightest).expand(_CHANNELS, -1, -1),
            do_rescale=False,  # it is in [0, 1] already
            return_tensors="pt",
        )
        embeddings = self._model.get_image_embeddings(given["pixel_values"].to(self._model.device))
        for each in objects:
            logits = self._logits(embeddings, each, (height, width))
            probable = resized(logits[None, None], image, None).sigmoid()
            found = torch.maximum(found, probable * _around(each.box, (height, width)))
        return resized(found, image, size).clamp(0, 1)

    def _logits(self, embeddings: Any, found: HintedObject, size: tuple[int, int]) -> Tensor:
        """Return the best mask's logits ``[h, w]``, of the whole image in the network's size."""
        prompts: dict[str, Any] = {}
        if found.box is not None:
            prompts["input_boxes"] = [[list(found.box[:4])]]
        if found.points:
            prompts["input_points"] = [[[[point.x, point.y] for point in found.points]]]
            prompts["input_labels"] = [[[point.label for point in found.points]]]
        prepared = self._processor(original_sizes=[list(size)], return_tensors="pt", **prompts)
        result = self._model(
            image_embeddings=embeddings,
            multimask_output=True,
            **{name: prepared[name].to(self._model.device) for name in prompts},
        )
        best = result.iou_scores[0, 0].argmax()
        logits: Tensor = result.pred_masks[0, 0, best].float().cpu()
        return logits


def _around(box: ObjectBox | None, size: tuple[int, int]) -> Tensor:
    """Return 1 for pixels ``[H, W]`` in a box and its margin, or in all of the image without."""
    if box is None:
        return torch.ones(size)
    rows, columns = (
        ((centres >= start - margin) & (centres <= end + margin)).float()
        for centres, start, end, margin in (
            (torch.arange(size[0]) + 0.5, box.y0, box.y1, MARGIN * (box.y1 - box.y0)),
            (torch.arange(size[1]) + 0.5, box.x0, box.x1, MARGIN * (box.x1 - box.x0)),
        )
    )
    return rows[:, None] * columns
