"""Images that occur twice: the same pixels, or nearly the same picture."""

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

from faster_isnet.data.samples import Sample

T = TypeVar("T")

_SIDE = 64  # of the image that is hashed
_FREQUENCIES = 16  # of those in each direction that the hash tells of
_BLOCK = 1024  # hashes that are compared with all others at once


def pixel_hash(image: Tensor) -> str:
    """Return a hash that two images share if their pixels are the same, whatever their files."""
    content = hashlib.sha256(str(list(image.shape)).encode())
    content.update(image.contiguous().numpy().tobytes())
    return content.hexdigest()


def perceptual_hash(image: Tensor) -> Tensor:
    """Return which of an image's lowest frequencies are stronger than their median.

    Changes little with size, compression, brightness and contrast (Zauner, "Implementation and
    benchmarking of perceptual image hash functions", 2010, section 3.2.1: pHash, here with 16 x 16
    frequencies, since radiographs are much alike).

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
    """Return the pairs of hashes that differ in few places.

    Parameters
    ----------
    hashes
        Of :func:`perceptual_hash`.
    distance
        The largest share of places in which they may differ, in [0, 1]. Those of different
        people's chest radiographs were seen to differ in 0.21 and more, and those of one picture,
        scaled, compressed or brightened, in less than 0.15.

    Returns
    -------
    list
        Pairs of indices (i, j), i < j.
    """
    if not hashes:
        return []
    signs = torch.stack(list(hashes))
    places = signs.shape[1]
    most = math.floor(places * distance + 1e-9)  # rounding must not take a place away
    pairs = []
    for start in range(0, len(signs), _BLOCK):
        near = (signs[start : start + _BLOCK] @ signs[start:].T >= places - 2 * most).triu(1)
        pairs += [(start + i, start + j) for i, j in near.nonzero().tolist()]
    return pairs


def group_near_duplicates(samples: Iterable[Sample]) -> list[Sample]:
    """Join samples with nearly the same picture into one group, so that no split divides them.

    Parameters
    ----------
    samples
        Groups that they have already are joined as wholes. Those whose images cannot be read stay
        as they are; :func:`~faster_isnet.data.dataset_report.check_samples` names them.

    Returns
    -------
    list
        The samples in the same order. The group of several is named by the first of them.
    """
    samples = list(samples)
    readable, hashes = [], []
    for i, found in enumerate(read_all(samples, lambda s: perceptual_hash(s.read_image()))):
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


def read_all(samples: Sequence[Sample], look: Callable[[Sample], T]) -> list[T | Exception]:
    """Look at all samples, several at once; what cannot be read yields its error instead."""

    def look_or_fail(sample: Sample) -> T | Exception:
        try:
            return look(sample)
        except (ValueError, OSError) as error:
            return error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(look_or_fail, samples))
