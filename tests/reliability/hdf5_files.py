"""Write HDF5 files for the tests of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
ENTRIES, SIDE = 12, 8
Build = Callable[[Path], object]
LABELS = np.arange(ENTRIES) % 2


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


IMAGES = noise(ENTRIES, SIDE, SIDE, 3)
MASKS = np.zeros((ENTRIES, SIDE, SIDE), dtype=np.uint8)
MASKS[:, :4, :4] = 1


def with_data(**datasets: Any) -> Build:
    """Write a good file with other data sets; ``None`` leaves one out."""

    def build(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, values in {"images": IMAGES, "labels": LABELS, **datasets}.items():
                if callable(values):
                    values(file, name)
                elif values is not None:
                    file[name] = values

    return build


def bytes_of(change: Callable[[bytes], bytes]) -> Build:
    """Write a good file, and change its bytes."""

    def build(path: Path) -> None:
        with_data(masks=MASKS)(path)
        path.write_bytes(change(path.read_bytes()))

    return build


def chunked(damage: Callable[[bytes], bytes]) -> Build:
    """Write compressed images with checksums, and damage what is stored of them."""

    def build(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["labels"] = LABELS
            images = file.create_dataset(
                "images",
                data=IMAGES,
                chunks=(1, SIDE, SIDE, 3),
                compression="gzip",
                fletcher32=True,
            )
            chunk = images.id.get_chunk_info(3)
        raw = path.read_bytes()
        end = chunk.byte_offset + chunk.size
        path.write_bytes(
            raw[: chunk.byte_offset] + damage(raw[chunk.byte_offset : end]) + raw[end:]
        )

    return build


def of_dtype(dtype: Any) -> np.ndarray:
    return (IMAGES.astype(np.float64) / 255).astype(dtype)


def changed(array: np.ndarray, index: Any, value: Any, dtype: Any = None) -> np.ndarray:
    array = array.astype(dtype or array.dtype)
    array[index] = value
    return array


def group(file: Any, name: str) -> None:
    file.create_group(name)["0"] = IMAGES[0]


def compound(file: Any, name: str) -> None:
    file[name] = np.zeros(ENTRIES, dtype=[("a", "u1"), ("b", "f4")])


def texts(file: Any, name: str) -> None:
    file.create_dataset(name, data=["cat", "dog"] * 6, dtype=h5py.string_dtype())


def ragged(file: Any, name: str) -> None:
    data = file.create_dataset(name, (ENTRIES,), dtype=h5py.vlen_dtype(np.uint8))
    for i in range(ENTRIES):
        data[i] = IMAGES[i].ravel()


def links(to: Any) -> Callable[[Any, str], None]:
    return lambda file, name: file.__setitem__(name, to)


def empty(file: Any, name: str) -> None:
    file[name] = h5py.Empty("f4")
