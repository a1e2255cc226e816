"""Segment objects of given classes with torchvision's networks, which others trained on COCO."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from faster_isnet.common.checks import check_choice
from faster_isnet.models.downloads import PublishedFile
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.segmentation.segmenter import Segmenter, resized
from faster_isnet.segmentation.shapes import OF_OBJECTS

_CHANNELS = 3
# They know the 20 classes of Pascal VOC, those of instances the 80 of COCO; smallest first.
OF_REGIONS = (
    "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
)
OF_INSTANCES = ("maskrcnn_resnet50_fpn_v2",)
NETWORKS = (*OF_REGIONS, *OF_INSTANCES)
_DEFAULTS = ("deeplabv3_mobilenet_v3_large", "maskrcnn_resnet50_fpn_v2")
_NO_CLASSES = {"__background__", "N/A"}
_CONFIDENT = 0.5  # score from which an instance counts


class CocoSegmenter(Segmenter):
    """Find everything in an image that is of some classes.

    Parameters
    ----------
    classes
        Their names, such as ``["dog", "cat"]``; all of them are foreground.
    network
        torchvision's name of the network: DeepLabV3 and LR-ASPP know the 20 classes of Pascal VOC,
        Mask R-CNN those of COCO. By default ``"deeplabv3_mobilenet_v3_large"`` (42 MB), or
        ``"maskrcnn_resnet50_fpn_v2"`` (177 MB) if that does not know a class.
    weights
        A ``state_dict`` of the network. By default the published one that was downloaded before.
    download
        Download the file if it is not there.

    Raises
    ------
    FileNotFoundError
        If the file is not there and is not to be downloaded.
    ValueError
        If network or class are unknown, or the weights are not the network's.
    """

    def __init__(
        self,
        classes: Sequence[str],
        network: str | None = None,
        weights: str | Path | None = None,
        download: bool = False,
    ) -> None:
        super().__init__(OF_OBJECTS, None)
        name = _network_that_knows(classes) if network is None else network
        published = _weights(name)
        self._indices = [_class_index(published, each) for each in classes]
        if weights is None:
            weights = _published_file(published).find(download)
        model = _build(name, len(published.meta["categories"]))
        self._model = load_backbone_weights(weights, model).eval()
        self._finds_instances = name in OF_INSTANCES
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self._transforms = published.transforms()

    @torch.no_grad()
    def probabilities(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """See :meth:`Segmenter.probabilities`."""
        given = self._transforms(image.expand(_CHANNELS, -1, -1)).to(self._device)
        find = self._instances if self._finds_instances else self._regions
        found = find(given).float().cpu()[None]
        return resized(found, image, size).clamp(0, 1)

    def _regions(self, image: Tensor) -> Tensor:
        """Return the sum of the classes' probabilities, ``[1, h, w]``."""
        shares: Tensor = self._model(image[None])["out"][0].softmax(0)
        return shares[self._indices].sum(0, keepdim=True)

    def _instances(self, image: Tensor) -> Tensor:
        """Return the largest probability of an instance of the classes, ``[1, H, W]``."""
        (found,) = self._model([image])
        wanted = torch.isin(found["labels"], torch.tensor(self._indices, device=self._device))
        masks = found["masks"][wanted & (found["scores"] >= _CONFIDENT)]
        return masks.amax(0) if len(masks) else image.new_zeros(1, *image.shape[1:])


def _network_that_knows(classes: Sequence[str]) -> str:
    """Return the first of the default networks that knows all classes, or the last."""
    for name in _DEFAULTS:
        if set(classes) <= set(_weights(name).meta["categories"]):
            return name
    return _DEFAULTS[-1]


def _weights(name: str) -> WeightsEnum:
    """Return the description of a network's published weights."""
    check_choice("network", name, NETWORKS)
    weights: WeightsEnum = get_model_weights(name).DEFAULT
    return weights


def _class_index(weights: WeightsEnum, name: str) -> int:
    categories = list(weights.meta["categories"])
    check_choice("class", name, [each for each in categories if each not in _NO_CLASSES])
    return categories.index(name)


def _published_file(weights: WeightsEnum) -> PublishedFile:
    """Describe the file as torchvision does: the end of its name is the beginning of its hash."""
    digest = re.search(r"-([0-9a-f]+)\.pth$", weights.url)
    assert digest is not None
    return PublishedFile(weights.url, digest[1])


def _build(name: str, classes: int) -> nn.Module:
    # The published weights of DeepLab have the head that was used in training only.
    head = {"aux_loss": True} if name.startswith("deeplab") else {}
    network: nn.Module = get_model(
        name, weights=None, weights_backbone=None, num_classes=classes, **head
    )
    return network
