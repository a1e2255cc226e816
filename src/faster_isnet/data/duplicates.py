"""Find duplicate images: the same pixels, or nearly the same picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from faster_isnet.common.progress import count_bar
from faster_isnet.data.samples import Sample

Result = TypeVar("Result")

_SIDE = 64  # of the image that is hashed, in pixels
_FREQUENCIES = 16  # lowest ones in each direction, which the hash describes
_BLOCK = 1024  # hashes that are compared with all others in one step


def pixel_hash(image: Tensor) -> str:
    """Compute a hash of the pixels, the same for all file formats and for grey in colour."""
    if bool((image == image[:1]).all()):
        image = image[:1]
    content = hashlib.sha256(str(list(image.shape)).encode())
    content.update(image.contiguous().numpy().tobytes())
    return content.hexdigest()


def perceptual_hash(image: Tensor) -> Tensor:
    """Compute which of an image's lowest frequencies are stronger than their median.

    Changes little with size, compression, brightness and contrast (Zauner, "Implementation and
    benchmarking of perceptual image hash functions", 2010, section 3.2.1: pHash, here with 16 x 16
    frequencies, since radiographs are similar to each other).

    Parameters
    ----------
    image
        ``[C, H, W]``.

    Returns
    -------
    Tensor
        ``[255]`` in {−1, 1}.
    """
    grey = image.mean(0, keepdim=True)[None]
    small = F.interpolate(grey, (_SIDE, _SIDE), mode="bilinear", antialias=True)
    spectrum = torch.from_numpy(dctn(small[0, 0].numpy()))[:_FREQUENCIES, :_FREQUENCIES]
    strengths = spectrum.flatten()[1:]  # the first is the brightness
    return torch.where(strengths > strengths.median(), 1.0, -1.0)


def near_pairs(hashes: Sequence[Tensor], distance: float = 0.15) -> list[tuple[int, int]]:
    """Find the pairs of hashes with a small Hamming distance.

    Parameters
    ----------
    hashes
        Hashes ``[255]`` of :func:`perceptual_hash`.
    distance
        The largest share of elements in which they may differ, in [0, 1]. In measurements, hashes
        of different people's chest radiographs differed in 0.21 and more, and those of one
        picture, scaled, compressed or brightened, in less than 0.15.

    Returns
    -------
    list
        Pairs of indices (i, j), i < j.
    """
    if not hashes:
        return []
    signs = torch.stack(list(hashes))
    length = signs.shape[1]
    most = math.floor(length * distance + 1e-9)  # a rounding error must not exclude a pair
    pairs = []
    for start in range(0, len(signs), _BLOCK):
        near = (signs[start : start + _BLOCK] @ signs[start:].T >= length - 2 * most).triu(1)
        pairs += [(start + i, start + j) for i, j in near.nonzero().tolist()]
    return pairs


def group_near_duplicates(samples: Iterable[Sample]) -> list[Sample]:
    """Put samples with nearly the same picture into one group, so that no split separates them.

    Parameters
    ----------
    samples
        Existing groups are merged as wholes. Samples whose images cannot be read are unchanged;
        :func:`~faster_isnet.data.dataset_report.check_samples` reports them.

    Returns
    -------
    list
        The samples in the same order. A merged group has the name of its first sample.
    """
    samples = list(samples)
    readable, hashes = [], []
    for i, found in enumerate(map_samples(samples, lambda s: perceptual_hash(s.read_image()))):
        if not isinstance(found, Exception):
            readable.append(i)
            hashes.append(found)
    pairs = [(readable[i], readable[j]) for i, j in near_pairs(hashes)]
    first_of: dict[str, int] = {}
    for i, sample in enumerate(samples):
        if sample.group is not None:
            pairs.append((first_of.setdefault(sample.group, i), i))
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(samples),) * 2)
    component = connected_components(graph, directed=False)[1]
    size = np.bincount(component)
    first = {c: i for i, c in reversed(list(enumerate(component)))}
    return [
        replace(sample, group=samples[first[c]].group or samples[first[c]].name)
        if size[c] > 1
        else sample
        for sample, c in zip(samples, component, strict=True)
    ]


def map_samples(
    samples: Sequence[Sample], function: Callable[[Sample], Result]
) -> list[Result | Exception]:
    """Apply a function to samples in threads; return the error if a sample is unreadable."""

    def call(sample: Sample) -> Result | Exception:
        try:
            return function(sample)
        except (ValueError, OSError) as error:
            return error

    results = []
    with ThreadPoolExecutor() as pool, count_bar(len(samples), "image", what="reading") as bar:
        for result in pool.map(call, samples):
            results.append(result)
            bar.update()
    return results
