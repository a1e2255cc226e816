"""Segment the salient object of photographs with a network that others have trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from faster_isnet.common.checks import check_choice
from faster_isnet.common.onnx_session import onnx_session
from faster_isnet.data.dataset import fit_image
from faster_isnet.models.downloads import PublishedFile
from faster_isnet.segmentation.segmenter import Segmenter, resized
from faster_isnet.segmentation.shapes import OF_OBJECTS

_RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/"
_CHANNELS = 3
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Network:
    """Say where a network is published, and what its images are normalised with."""

    file: PublishedFile
    mean: tuple[float, ...]
    std: tuple[float, ...]


# The files and hashes that the package rembg names; licences Apache-2.0.
NETWORKS = {
    "u2netp": _Network(
        PublishedFile(f"{_RELEASE}u2netp.onnx", "8e83ca70e441ab06c318d82300c84806", "md5"),
        *_IMAGENET,
    ),
    "u2net": _Network(
        PublishedFile(f"{_RELEASE}u2net.onnx", "60024c5c889badc19c04ad937298a77b", "md5"),
        *_IMAGENET,
    ),
    "isnet-general-use": _Network(
        PublishedFile(
            f"{_RELEASE}isnet-general-use.onnx", "fc16ebd8b0c10d971d3513d564d01e29", "md5"
        ),
        (0.5, 0.5, 0.5),
        (1.0, 1.0, 1.0),
    ),
}


class SalientObjectSegmenter(Segmenter):
    """Find the object that an image shows, whatever it is.

    Parameters
    ----------
    network
        ``"u2netp"`` (4.6 MB) and ``"u2net"`` (176 MB) are U²-Nets (Qin et al. 2020);
        ``"isnet-general-use"`` (179 MB) is their successor for fine outlines (Qin et al. 2022,
        "Highly accurate dichotomous image segmentation"; no relation to the ISNet of this library).
    weights
        The ONNX file. By default the one that was downloaded before.
    download
        Download the file if it is not there.

    Raises
    ------
    FileNotFoundError
        If the file is not there and is not to be downloaded.
    ValueError
        If the network is unknown, or the file is not the published one.
    ImportError
        If onnxruntime is not installed.
    """

    def __init__(
        self, network: str = "u2netp", weights: str | Path | None = None, download: bool = False
    ) -> None:
        super().__init__(OF_OBJECTS, None)
        self._network = NETWORKS[check_choice("network", network, NETWORKS)]
        if weights is None:
            path = self._network.file.find(download)
        else:
            path = Path(weights)
            self._network.file.check(path)
        self._session = onnx_session(path, on_gpu=True)

    def probabilities(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """See :meth:`Segmenter.probabilities`."""
        (given,) = self._session.get_inputs()
        square = fit_image(image, given.shape[-2:], _CHANNELS)
        brightest = square.max().clamp(min=torch.finfo(square.dtype).eps)
        normalised = transforms.normalize(
            square / brightest, list(self._network.mean), list(self._network.std)
        )
        # The first output is the finest; the others are for training.
        first, *_ = self._session.run(None, {given.name: np.asarray(normalised[None])})
        return resized(torch.from_numpy(first).float(), image, size).clamp(0, 1)
