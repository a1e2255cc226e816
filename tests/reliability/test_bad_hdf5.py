"""HDF5 files that are wrong or odd are refused by file, data set and cure, or read as meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faster_isnet.data import ImageData
from reliability.hdf5_files import (
    ENTRIES,
    IMAGES,
    LABELS,
    MASKS,
    SIDE,
    Build,
    bytes_of,
    changed,
    chunked,
    compound,
    empty,
    group,
    links,
    noise,
    of_dtype,
    ragged,
    texts,
    with_data,
)

h5py = pytest.importorskip("h5py")
REFUSED, RIGHT = "refused", "right result"


def read(folder: Path, build: Build, **options: Any) -> ImageData:
    """Do what ``fit`` does with data before it trains."""
    path = folder / "data.h5"
    build(path)
    data = ImageData(**{"source": path, "size": SIDE, "augmentation": None, **options})
    data.train_dataloader()
    return data


IS_IT = "must be a data set with an entry a sample"
ANEW = "write (the file|it) anew"
BAD: dict[str, tuple[Build, dict[str, Any], str, str]] = {
    # the file
    "no file": (lambda _: None, {}, "no file .*data.h5", "correct its name"),
    "a folder": (Path.mkdir, {}, "data.h5.*not a file|data.h5' has no images", "name"),
    "a pipe": (os.mkfifo, {}, "data.h5' is not a file", "name one"),
    "an empty file": (lambda p: p.write_bytes(b""), {}, "data.h5' is no HDF5", ANEW),
    "text": (lambda p: p.write_text("image,label\n"), {}, "data.h5' is no HDF5", ANEW),
    "half a file": (bytes_of(lambda raw: raw[: len(raw) // 2]), {}, "data.h5' is no HDF5", ANEW),
    "without its beginning": (bytes_of(lambda raw: raw[100:]), {}, "data.h5' is no HDF5", ANEW),
    "a head of zeros": (
        bytes_of(lambda raw: raw[:8] + bytes(500) + raw[508:]),
        {},
        "data.h5",
        ANEW,
    ),
    "a directory of zeros": (
        bytes_of(lambda raw: raw[:96] + bytes(1000) + raw[1096:]),
        *({}, "data.h5", f"{ANEW}|say which it is"),
    ),
    "nothing inside": (
        with_data(images=None, labels=None),
        {},
        "data.h5' has no data set",
        "say which",
    ),
    # images
    "no images": (
        with_data(images=None, x=IMAGES),
        {},
        "data.h5' has no data set 'images'.*'x'",
        "say which",
    ),
    "images of a single value": (
        with_data(images=5),
        {},
        "data.h5:images' is a single value",
        IS_IT,
    ),
    "images in a group": (with_data(images=group), {}, "data.h5:images' is a group", IS_IT),
    "images of nothing": (with_data(images=empty), {}, "data.h5:images' is", IS_IT),
    "images of no entry": (
        with_data(images=IMAGES[:0], labels=LABELS[:0]),
        {},
        "data.h5' must have one entry",
        "'images': 0",
    ),
    "a soft link to nowhere": (
        with_data(images=links(h5py.SoftLink("/gone"))),
        {},
        "data.h5:images'",
        ANEW,
    ),
    "a link to a file that is gone": (
        with_data(images=links(h5py.ExternalLink("gone.h5", "x"))),
        {},
        "data.h5:images'",
        ANEW,
    ),
    "a link to itself": (
        with_data(images=links(h5py.SoftLink("/images"))),
        {},
        "data.h5:images'",
        ANEW,
    ),
    "an image less": (
        with_data(images=IMAGES[:-1]),
        {},
        "'images': 11, 'labels': 12",
        "one entry for each sample",
    ),
    "images of five dimensions": (
        with_data(images=IMAGES[:, None]),
        {},
        r"data.h5:images\[0\]' has the shape",
        "must be",
    ),
    "images without a side": (
        with_data(images=IMAGES[:, :, 0, 0]),
        {},
        r"data.h5:images\[0\]' has the shape",
        "must be",
    ),
    "images of two channels": (
        with_data(images=IMAGES[..., :2]),
        {},
        r"data.h5:images\[0\]' has the shape",
        "1 or 3",
    ),
    "images of no pixels": (
        with_data(images=IMAGES[:, :0]),
        {},
        r"data.h5:images\[0\]' has the shape",
        "leave it out",
    ),
    "signed images": (
        with_data(images=IMAGES.astype(np.int16)),
        {},
        r"data.h5:images\[0\]' holds int16",
        "unsigned",
    ),
    "complex images": (
        with_data(images=IMAGES.astype(complex)),
        {},
        r"data.h5:images\[0\]' holds complex",
        "unsigned",
    ),
    "images of text": (with_data(images=texts), {}, r"data.h5:images\[0\]'", "must be|save it"),
    "images of records": (
        with_data(images=compound),
        {},
        r"data.h5:images\[0\]'",
        "must be|save it",
    ),
    "images of several lengths": (with_data(images=ragged), {}, r"data.h5:images\[0\]'", "must be"),
    "images up to 255 as floats": (
        with_data(images=IMAGES.astype(np.float32)),
        {},
        r"data.h5:images\[0\]' holds floats in \[",
        r"scale them to \[0, 1\]",
    ),
    "a pixel of nan": (
        with_data(images=changed(of_dtype(np.float32), (5, 0, 0, 0), np.nan)),
        {},
        r"data.h5:images\[5\]' holds NaN",
        "replace them",
    ),
    "a pixel of inf": (
        with_data(images=changed(of_dtype(np.float16), (5, 0, 0, 0), np.inf)),
        {},
        r"data.h5:images\[5\]' holds NaN or inf",
        "replace them",
    ),
    "a damaged chunk": (chunked(lambda raw: bytes(len(raw))), {}, r"data.h5:images\[3\]'", ANEW),
    "a chunk of other bytes": (chunked(lambda raw: raw[::-1]), {}, r"data.h5:images\[3\]'", ANEW),
    "the same image with two labels": (
        with_data(images=changed(IMAGES, 1, IMAGES[0])),
        {},
        r"images\[0\] and .*images\[1\]",
        "Leave out one",
    ),
    # labels
    "no labels": (with_data(labels=None), {}, "data.h5' has no data set 'labels'", "say which"),
    "labels of a single value": (
        with_data(labels=1),
        {},
        "data.h5:labels' is a single value",
        IS_IT,
    ),
    "labels in a group": (with_data(labels=group), {}, "data.h5:labels' is a group", IS_IT),
    "labels of text": (
        with_data(labels=texts),
        {},
        "data.h5:labels' must be class indices",
        "indices",
    ),
    "labels of records": (
        with_data(labels=compound),
        {},
        "data.h5:labels' must be class indices",
        "indices",
    ),
    "labels of three dimensions": (
        with_data(labels=LABELS[:, None, None]),
        {},
        "data.h5:labels' must be",
        "indices",
    ),
    "a label of a half": (
        with_data(labels=changed(LABELS, 3, 0.5, float)),
        {},
        "data.h5:labels' must be.*float",
        "indices",
    ),
    "a label of nan": (
        with_data(labels=changed(LABELS, 3, np.nan, float)),
        {},
        "data.h5:labels' must be.*float",
        "indices",
    ),
    "a label of inf": (
        with_data(labels=changed(LABELS, 3, np.inf, float)),
        {},
        "data.h5:labels' must be.*float",
        "indices",
    ),
    "a label below 0": (
        with_data(labels=changed(LABELS, 3, -1)),
        {},
        "data.h5:labels'.*-1 to 1",
        "begin with 0",
    ),
    "a label of 1e7": (
        with_data(labels=changed(LABELS, 3, 10**7)),
        {},
        "data.h5:labels' has the class 10000000",
        "begin with 0",
    ),
    "a label of 2**63": (
        with_data(labels=changed(LABELS, 3, 2**63, np.uint64)),
        {},
        "data.h5:labels' has the class 9223372036854775808",
        "begin with 0",
    ),
    "a column of 2 for several labels": (
        with_data(labels=changed(np.eye(12, 3, dtype=int), (0, 0), 2)),
        {},
        "data.h5:labels'.*0 to 2",
        "zeros and ones|fit 3",
    ),
    "one class": (with_data(labels=LABELS * 0), {}, "data.h5' has one class", "two classes"),
    "labels for no class": (
        with_data(labels=np.zeros((ENTRIES, 0))),
        {},
        "data.h5:labels'",
        "class indices|zeros and ones",
    ),
    "more names than labels": (
        with_data(labels=np.eye(12, 3)),
        {"class_names": ["a", "b"]},
        "data.h5:labels'.*2 classes",
        "fit",
    ),
    # masks
    "masks in a group": (with_data(masks=group), {}, "data.h5:masks' is a group", IS_IT),
    "a mask less": (with_data(masks=MASKS[:-1]), {}, "'masks': 11", "one entry for each sample"),
    "masks of another size": (
        with_data(masks=MASKS[:, :7]),
        {},
        r"data.h5:images\[0\]' has 8 rows.*data.h5:masks\[0\]'.* 7 rows",
        "draw the mask",
    ),
    "masks of nan": (
        with_data(masks=np.full(MASKS.shape, np.nan)),
        {},
        r"data.h5:masks\[0\]' holds NaN",
        "write 0",
    ),
    "masks below 0": (
        with_data(masks=-MASKS.astype(np.int8)),
        {},
        r"data.h5:masks\[0\]' holds the values -1, 0",
        "mask_foreground",
    ),
    "masks of several values": (
        with_data(masks=MASKS * noise(12, 8, 8)),
        {},
        r"data.h5:masks\[0\]' holds the values",
        "mask_foreground",
    ),
    "masks of text": (with_data(masks=texts), {}, r"data.h5:masks\[0\]'", "must be|save it"),
    "masks of complex numbers": (
        with_data(masks=MASKS * 1j),
        {},
        r"data.h5:masks\[0\]' holds complex",
        "save it|write",
    ),
    # options
    "a field that is none": (
        with_data(),
        {"fields": {"image": "images"}},
        "field 'image'",
        "did you mean 'images'",
    ),
    "a field of another name": (
        with_data(),
        {"fields": {"images": "x"}},
        "data.h5' has no data set 'x'",
        "say which",
    ),
}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose path says nothing of the case."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("case", BAD)
def test_refused(folder: Path, case: str, record_property: Any) -> None:
    build, options, value, cure = BAD[case]
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        read(folder, build, **options)
    text = str(refused.value).replace("\n", " ")
    assert re.search(value, text), text
    assert re.search(cure, text), text
    record_property("outcome", REFUSED)


Check = Callable[[ImageData], bool]


def base(data: ImageData) -> bool:
    samples = data.findings.samples
    images = np.stack([sample.read_image().numpy() for sample in samples])
    right = np.allclose(images, IMAGES.transpose(0, 3, 1, 2) / 255, atol=2e-3)
    return right and [sample.label for sample in samples] == LABELS.tolist()


def masked(*pixels: float) -> Check:
    def check(data: ImageData) -> bool:
        masks = [sample.read_mask((SIDE, SIDE)) for sample in data.findings.samples]
        return base(data) and [float(mask.sum()) for mask in masks if mask is not None] == [*pixels]

    return check


ODD: dict[str, tuple[Build, dict[str, Any], Check]] = {
    "as it should be": (with_data(), {}, base),
    "channels first": (with_data(images=IMAGES.transpose(0, 3, 1, 2)), {}, base),
    "floats": (with_data(images=of_dtype(np.float32)), {}, base),
    "floats of 16 bits": (with_data(images=of_dtype(np.float16)), {}, base),
    "floats of 64 bits": (with_data(images=of_dtype(np.float64)), {}, base),
    "big-endian": (with_data(images=IMAGES.astype(">u2") * 257), {}, base),
    "other names": (
        with_data(images=None, labels=None, x=IMAGES, y=LABELS),
        *({"fields": {"images": "x", "labels": "y"}}, base),
    ),
    "in a group": (
        with_data(**{"images": None, "a/images": IMAGES}),
        *({"fields": {"images": "a/images"}}, base),
    ),
    "a link": (
        with_data(images=None, x=IMAGES, **{"images ": None}),
        {"fields": {"images": "x"}},
        base,
    ),
    "a soft link": (
        with_data(images=None, x=IMAGES, y=links(h5py.SoftLink("/x"))),
        {"fields": {"images": "y"}},
        base,
    ),
    "compressed": (chunked(lambda raw: raw), {}, base),
    "labels as floats": (with_data(labels=LABELS.astype(float)), {}, base),
    "labels as truths": (with_data(labels=LABELS.astype(bool)), {}, base),
    "labels in a column": (with_data(labels=LABELS[:, None]), {}, base),
    "labels of 8 bits": (with_data(labels=LABELS.astype(np.uint8)), {}, base),
    "several labels": (
        with_data(labels=np.stack([LABELS, 1 - LABELS], 1)),
        *({}, lambda d: d.task == "multilabel" and d.findings.samples[1].label == (1, 0)),
    ),
    "a class without images": (
        with_data(labels=LABELS * 2),
        *({}, lambda d: d.class_names == ["0", "1", "2"] and d.findings.counts["train"]["1"] == 0),
    ),
    "masks": (with_data(masks=MASKS), {}, masked(*[16] * 12)),
    "masks of 255": (with_data(masks=MASKS * 255), {}, masked(*[16] * 12)),
    "masks with a channel": (with_data(masks=MASKS[:, None]), {}, masked(*[16] * 12)),
    "masks of truths": (with_data(masks=MASKS > 0), {}, masked(*[16] * 12)),
    "a mask without foreground": (
        with_data(masks=changed(MASKS, 0, 0)),
        *({}, lambda d: masked(0, *[16] * 11)(d) and len(d.findings.empty_masks) == 1),
    ),
    "masks by their values": (
        with_data(masks=MASKS + 2),
        *({"mask_foreground": [3]}, masked(*[16] * 12)),
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_right(folder: Path, case: str, record_property: Any) -> None:
    build, options, is_right = ODD[case]
    assert is_right(read(folder, build, **options))
    record_property("outcome", RIGHT)
