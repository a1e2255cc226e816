"""Read samples from HDF5: data sets of images, masks and labels, one entry for each sample.

The layout is that of the published scripts (P. R. A. S. Bassi, github.com/PedroRASB/ISNet), which
have one file for each split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from faster_isnet.common.checks import NO_ATTRIBUTE
from faster_isnet.common.files import check_file
from faster_isnet.data.dicom import Pixels
from faster_isnet.data.images import unit_tensor
from faster_isnet.data.masks import EITHER_OF_TWO, Foreground
from faster_isnet.data.samples import Sample

if TYPE_CHECKING:
    import h5py

_FEW = 1000  # classes that may have gaps, whatever the number of entries
HDF5_SUFFIXES = (".h5", ".hdf5", ".h5py")


@dataclass(frozen=True)
class Hdf5Entry:
    """Read an image or a mask from an HDF5 file.

    The file is opened at each access: processes that share a handle would read wrong data.

    Attributes
    ----------
    path
        The file.
    dataset
        Name of a data set ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]``, C 1 or 3.
    index
        In 0..N − 1.
    foreground
        Of masks: which values are foreground.
    """

    path: Path
    dataset: str
    index: int
    foreground: Foreground = EITHER_OF_TWO

    def __str__(self) -> str:
        """Return the file, the data set and the index."""
        return f"{self.path}:{self.dataset}[{self.index}]"

    def read_image(self) -> Tensor:
        """Read the image, ``[C, H, W]`` float32 in [0, 1]; integers are scaled as in files."""
        return unit_tensor(self._read_pixels(), str(self))

    def read_mask(self, size: tuple[int, int]) -> Tensor:
        """Read the mask, ``[1, H, W]`` in {0, 1}, by the rule for mask files."""
        return self.foreground.mask(self._read_pixels(), str(self))

    def _read_pixels(self) -> Pixels:
        with _open(self.path) as file:
            try:
                pixels: Pixels = np.asarray(file[self.dataset][self.index])
            except (OSError, KeyError, IndexError, RuntimeError) as error:
                raise ValueError(
                    f"cannot read {str(self)!r} ({error}); write the file anew"
                ) from error
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
            pixels = np.moveaxis(pixels, 0, -1)
        if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (1, 3)):
            raise ValueError(
                f"{str(self)!r} has the shape {list(pixels.shape)}; an image must be [H, W], "
                "[C, H, W] or [H, W, C] with 1 or 3 channels"
            )
        return pixels


def from_hdf5(
    path: str | Path,
    split: str | None = None,
    images: str = "images",
    masks: str = "masks",
    labels: str = "labels",
    attributes: str = "attributes",
    class_names: Sequence[str] | None = None,
) -> tuple[list[Sample], list[str]]:
    """Read samples from an HDF5 file; images and masks are read on demand.

    Parameters
    ----------
    path
        The file.
    split
        The split of all its samples.
    images, masks
        Names of data sets ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]``. Masks are
        optional.
    labels
        Name of a data set of class indices ``[N]`` or ``[N, 1]``, or of zeros and ones ``[N, K]``
        for multi-label data.
    attributes
        Name of an optional data set ``[N]`` or ``[N, 1]`` of text or integers: what each image's
        background shows, see :class:`~faster_isnet.data.samples.Sample`. Empty text and −1 stand
        for unknown.
    class_names
        The names of the classes. By default their indices.

    Returns
    -------
    tuple
        The samples, in the file's order, and the names of the classes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an HDF5 file, lacks images or labels, one of them is no data set, their lengths
        differ, or labels or attributes are not of these kinds.
    ImportError
        If h5py is not installed.
    """
    path = Path(path)
    with _open(path) as file:
        optional = [n for n in (masks, attributes) if file.get(n, getlink=True) is not None]
        present = {
            name: _length(file, name, f"{path}:{name}") for name in (images, labels, *optional)
        }
        values = np.asarray(file[labels])
        shown = _attributes(file[attributes]) if attributes in present else [None] * len(values)
    if len(set(present.values())) > 1 or not len(values):
        raise ValueError(
            f"the data sets of {str(path)!r} must have one entry for each sample, got {present}"
        )
    classes, indices = _labels(values, class_names, f"{path}:{labels}")
    samples = [
        Sample(
            Hdf5Entry(path, images, i),
            label=label,
            mask=Hdf5Entry(path, masks, i) if masks in present else None,
            split=split,
            attribute=attribute,
        )
        for i, (label, attribute) in enumerate(zip(indices, shown, strict=True))
    ]
    return samples, classes


def _length(file: Any, name: str, where: str) -> int:
    """Return the number of entries of a data set."""
    link = file.get(name, getlink=True)
    if link is None:
        raise ValueError(
            f"{file.filename!r} has no data set {name!r}, only {sorted(file)}; say which it is"
        )
    try:
        found = file[name]
    except (KeyError, OSError, RuntimeError) as error:  # a link to nowhere, or to itself
        raise ValueError(f"cannot read {where!r} ({error}); write the file anew") from error
    shape = getattr(found, "shape", None)
    if not shape:
        kind = "a single value" if shape == () else f"a {type(found).__name__.lower()}"
        raise ValueError(f"{where!r} is {kind}; it must be a data set with an entry a sample")
    return int(shape[0])


def _labels(
    values: Pixels, class_names: Sequence[str] | None, where: str
) -> tuple[list[str], Sequence[int | tuple[int, ...]]]:
    are_numbers = values.ndim in (1, 2) and values.size > 0 and values.dtype.kind in "biuf"
    if not are_numbers or not np.isfinite(values).all() or (values % 1 != 0).any():
        raise ValueError(
            f"{where!r} must be class indices [N] or zeros and ones [N, K], got "
            f"{values.dtype} {list(values.shape)}"
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # a column of class indices
    if values.ndim == 1 and class_names is None and values.max() >= max(len(values), _FEW):
        raise ValueError(
            f"{where!r} has the class {values.max()}, but only {len(values)} entries; write class "
            "indices that begin with 0, without gaps"
        )
    count = values.shape[1] if values.ndim == 2 else int(values.max()) + 1
    names = [str(i) for i in range(count)] if class_names is None else list(class_names)
    largest = 1 if values.ndim == 2 else len(names) - 1
    if values.min() < 0 or values.max() > largest or (values.ndim == 2 and count != len(names)):
        raise ValueError(
            f"{where!r} is {list(values.shape)} with values from {values.min()} to {values.max()}, "
            f"which does not fit {len(names)} classes; indices begin with 0"
        )
    if values.ndim == 1:
        return names, [int(value) for value in values]
    return names, [tuple(int(value) for value in row) for row in values]


def _attributes(dataset: Any) -> list[str | None]:
    """Read attributes as text, ``None`` where they are not known."""
    values = np.asarray(dataset)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1 or values.dtype.kind not in "biuSO":
        raise ValueError(
            f"{dataset.file.filename}:{dataset.name} must be text or integers [N], got "
            f"{values.dtype} {list(values.shape)}"
        )
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    return [text if text not in ("", str(NO_ATTRIBUTE)) else None for text in texts]


def _open(path: Path) -> h5py.File:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"to read {str(path)!r} install h5py: pip install 'faster-isnet[hdf5]'"
        ) from error
    check_file(path)
    try:
        file: Any = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{str(path)!r} is no HDF5 file ({error}); write it anew") from error
    return file
