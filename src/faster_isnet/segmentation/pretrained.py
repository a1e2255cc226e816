"""Choose a segmenter by a name: networks that others have trained, or one that was trained here."""

from __future__ import annotations

from pathlib import Path

from faster_isnet.common.checks import check_choice
from faster_isnet.segmentation.coco_classes import CocoSegmenter
from faster_isnet.segmentation.described_objects import DescribedObjectSegmenter
from faster_isnet.segmentation.grabcut import GrabCutSegmenter
from faster_isnet.segmentation.salient_objects import SalientObjectSegmenter
from faster_isnet.segmentation.sam2 import Sam2Segmenter
from faster_isnet.segmentation.segmenter import HintedSegmenter, Segmenter
from faster_isnet.segmentation.trained_segmenter import load_segmenter

SALIENT, COCO, PROMPT, RUN = "salient", "coco", "prompt", "run"
HINTED = GRABCUT, SAM2 = "grabcut", "sam2"
"""Those that are told where the objects of each image are."""


def pretrained_segmenter(
    name: str = SALIENT,
    network: str | None = None,
    weights: str | Path | None = None,
    download: bool = False,
) -> Segmenter:
    """Load a segmenter that is trained already.

    Their masks have as many connected components as make up 95 % of what was found, and are
    implausible if they cover less than 1 % or more than 80 % of the image or have more than five
    components (but those of ``"run"``, see :func:`~faster_isnet.segmentation.load_segmenter`).

    Parameters
    ----------
    name
        ``"salient"``: the object that an image shows, whatever it is. ``"coco:dog,cat"``: all that
        is of these classes. ``"prompt:a dog, a cat"``: what one of these texts describes, by
        CLIPSeg. ``"run"``: what the segmenter of ``faster-isnet segment fit`` was
        trained to find; its folder is ``weights``.
    network
        Of ``"salient"``: ``"u2netp"`` (the default, 4.6 MB), ``"u2net"`` (176 MB) or
        ``"isnet-general-use"`` (179 MB). Of ``"coco"``: torchvision's name of a DeepLabV3, LR-ASPP
        or Mask R-CNN, by default ``"deeplabv3_mobilenet_v3_large"`` (42 MB, 20 classes), or
        ``"maskrcnn_resnet50_fpn_v2"`` (177 MB, 80 classes) if that does not know a class. Of
        ``"prompt"``: a CLIPSeg of the Hugging Face hub, by default
        ``"CIDAS/clipseg-rd64-refined"`` (603 MB); so of ``"sam2"``, which
        :func:`hinted_segmenter` loads, by default ``"facebook/sam2.1-hiera-tiny"`` (156 MB).
    weights
        The file of the network's weights: ONNX for ``"salient"``, a ``state_dict`` for ``"coco"``,
        a folder for ``"prompt"`` and ``"sam2"``. By default the one that was downloaded before.
    download
        Download the weights if they are not on this machine; their hash is checked, of ``"prompt"``
        the commit is fixed (of the default network).

    Returns
    -------
    Segmenter
        For :func:`~faster_isnet.segmentation.predict_masks`.

    Raises
    ------
    FileNotFoundError
        If the weights are not there and are not to be downloaded.
    ValueError
        If name, network or class are unknown, the weights are of something else, weights are given
        and to be downloaded, ``network`` or ``download`` are given for ``"run"``, or the name is
        one of :func:`hinted_segmenter`.
    OSError
        If the weights cannot be downloaded.
    ImportError
        If a package is missing that the segmenter needs.
    """
    _check_weights(weights, download)
    kind, _, listed = name.partition(":")
    wanted = [each.strip() for each in listed.split(",")]
    if kind == COCO and listed:
        return CocoSegmenter(wanted, network, weights, download)
    if kind == PROMPT and listed:
        return DescribedObjectSegmenter(wanted, network, weights, download)
    if name == SALIENT:
        chosen = {} if network is None else {"network": network}
        return SalientObjectSegmenter(**chosen, weights=weights, download=download)
    if name == RUN:
        return _trained_here(network, weights, download)
    if name in HINTED:
        raise ValueError(
            f"{name!r} has to be told where the objects are: faster-isnet segment auto --with "
            f"{name} --boxes"
        )
    raise ValueError(
        f"there is no segmenter {name!r}; choose {SALIENT}, {COCO}:CLASS (or several: "
        f"{COCO}:dog,cat), {PROMPT}:TEXT, or {RUN}"
    )


def hinted_segmenter(
    name: str,
    network: str | None = None,
    weights: str | Path | None = None,
    download: bool = False,
) -> HintedSegmenter:
    """Load a segmenter that is told where the objects of each image are.

    Parameters
    ----------
    name
        ``"grabcut"``: what differs in its colours from what is around a box or mask; it has no
        weights. ``"sam2"``: the object of a box, a mask or points, by SAM 2.
    network
        Of ``"sam2"``: a SAM 2 of the Hugging Face hub, by default ``"facebook/sam2.1-hiera-tiny"``
        (156 MB).
    weights
        Of ``"sam2"``: a folder. By default the one that was downloaded before.
    download
        Download the weights if they are not on this machine.

    Returns
    -------
    HintedSegmenter
        For :func:`~faster_isnet.segmentation.predict_masks`, with ``hints``.

    Raises
    ------
    FileNotFoundError
        If the weights are not there and are not to be downloaded.
    ValueError
        If the name is unknown, the weights are of something else, weights are given and to be
        downloaded, or ``"grabcut"`` is given any.
    OSError
        If the weights cannot be downloaded.
    ImportError
        If a package is missing that the segmenter needs.
    """
    _check_weights(weights, download)
    if check_choice("segmenter", name, HINTED) == SAM2:
        return Sam2Segmenter(network, weights, download)
    if network is not None or weights is not None or download:
        raise ValueError(
            f"{GRABCUT} has no network and no weights; leave out --network, --weights and "
            "--download"
        )
    return GrabCutSegmenter()


def _check_weights(weights: str | Path | None, download: bool) -> None:
    if weights is not None and download:
        raise ValueError(
            f"the weights are given, {str(weights)!r}, and are to be downloaded; leave out one: "
            "--weights or --download"
        )


def _trained_here(network: str | None, weights: str | Path | None, download: bool) -> Segmenter:
    if network is not None or download:
        raise ValueError(
            f"the segmenter {RUN!r} was trained on this machine and has a network of its own; name "
            "its folder as the weights, and neither a network nor download"
        )
    if weights is None:
        raise ValueError(
            f"{RUN!r} is a segmenter that was trained here; name its folder: --weights FOLDER"
        )
    return load_segmenter(weights)
