"""Tables that are wrong or odd are refused by name and value, or read as they are meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faster_isnet.data import ImageData
from faster_isnet.data.samples import classes_of
from reliability.bad_tables import BAD
from reliability.table_files import (
    BOXED,
    BOXES,
    GROUPED,
    IMAGES,
    MASKED,
    SPLIT,
    THIRDS,
    Build,
    after,
    noise,
    picture,
    square,
    table,
    with_bytes,
    with_file,
)

REFUSED, RIGHT = "refused", "right result"
A_UMLAUT, DECOMPOSED = "\u00e4.png", unicodedata.normalize("NFD", "\u00e4.png")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images whose path says nothing of the case."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(IMAGES):
        picture(folder / f"{i}.png", noise(i, 8, 8, 3))
    return folder


def read(folder: Path, build: Build | str | bytes, **options: Any) -> ImageData:
    """Do what ``fit`` does with data before it trains."""
    content = build(folder) if callable(build) else build
    path = folder / "table.csv"
    if isinstance(content, str):
        content = content.encode()
    if content is not None:
        path.write_bytes(content)
    data = ImageData(**{"source": path, "size": 8, "augmentation": None, **options})
    data.train_dataloader()
    return data


@pytest.mark.parametrize("case", BAD)
def test_refused(folder: Path, case: str, record_property: Any, monkeypatch: Any) -> None:
    build, options, value, cure = BAD[case]
    monkeypatch.chdir(folder)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        read(folder, build, **options)
    text = str(refused.value).replace("\n", " ")
    assert re.search(value, text), text
    assert re.search(cure, text), text
    record_property("outcome", REFUSED)


def split_of(data: ImageData, name: str) -> set[str | None]:
    return {s.split for s in data.findings.samples if Path(s.name).name == name}


def labels_of(data: ImageData) -> dict[str, str]:
    """Return the classes of each image by its name."""
    return {
        Path(s.name).name: "|".join(data.class_names[c] for c in classes_of(s))
        for s in data.findings.samples
    }


def pixels_of(data: ImageData, name: str = "0.png") -> float | None:
    """Return how many pixels of an image are foreground."""
    (sample,) = (s for s in data.findings.samples if Path(s.name).name == name)
    mask = sample.read_mask((8, 8))
    return None if mask is None else float(mask.sum())


BASE = {f"{i}.png": ("cat", "dog")[i % 2] for i in range(IMAGES)}
Check = Callable[[ImageData], bool]


def base(data: ImageData) -> bool:
    return labels_of(data) == BASE


def first(label: str) -> Check:
    return lambda data: labels_of(data) == {**BASE, "0.png": label}


def foreground(pixels: float | None) -> Check:
    return lambda data: base(data) and pixels_of(data) == pixels


def grouped(*groups: str | None) -> Check:
    return lambda data: base(data) and [s.group for s in data.findings.samples] == [*groups]


def mask(pixels: np.ndarray) -> Build:
    return with_file("m.png", pixels, table("0.png,cat,m.png", header=MASKED, rest=","))


# What is written, options, and whether the data are what is meant.
ODD: dict[str, tuple[Build | str | bytes, dict[str, Any], Check]] = {
    "as it should be": (table(), {}, base),
    "utf-8 with a mark": (table().encode("utf-8-sig"), {}, base),
    "windows line ends": (table().replace("\n", "\r\n"), {}, base),
    "line ends of old macs": (table().replace("\n", "\r"), {}, base),
    "no line end at the end": (table().rstrip(), {}, base),
    "empty lines between": (table().replace("\n", "\n\n"), {}, base),
    "all cells quoted": (re.sub(r"([^,\n]+)", r'"\1"', table()), {}, base),
    "a comma at each end": (table("0.png,cat,", header="image,label,", rest=","), {}, base),
    "columns that nobody knows": (
        table("0.png,cat,5", header="image,label,age", rest=",5"),
        {},
        base,
    ),
    "a pandas index": (
        ",image,label\n" + "".join(f"{i},{n},{c}\n" for i, (n, c) in enumerate(BASE.items())),
        *({}, base),
    ),
    "spaces around a label": (table("0.png, cat "), {}, base),
    "a label in two normal forms": (
        table("0.png,K\u00e4se", "1.png,Ka\u0308se", "2.png,Ka\u0308se", "3.png,K\u00e4se"),
        *(
            {"fractions": {"train": 1, "val": 1}},
            lambda d: sorted(d.class_names) == ["K\u00e4se", "cat", "dog"],
        ),
    ),
    "a label of 1e7": (
        table().replace("cat", "10000000").replace("dog", "0"),
        *({}, lambda d: d.class_names == ["0", "10000000"]),
    ),
    "a label that is a formula": (
        table().replace("cat", "=1+1"),
        {},
        lambda d: d.class_names == ["=1+1", "dog"],
    ),
    "a label that ends in a separator": (table("0.png,cat|"), {}, base),
    "two labels in a cell": (table("0.png,dog|cat"), {}, first("cat|dog")),
    "a label twice in a cell": (
        table("0.png,cat|cat", "1.png,cat|dog"),
        {},
        lambda d: labels_of(d) == {**BASE, "1.png": "cat|dog"},
    ),
    "a missing value's name as a class": (
        table().replace("cat", "NA"),
        *({"class_names": ["dog", "NA"]}, lambda d: labels_of(d)["0.png"] == "NA"),
    ),
    "an absolute path": (lambda f: table(f"{f / '0.png'},cat"), {}, base),
    "a path through the folder above": (lambda f: table(f"../{f.name}/0.png,cat"), {}, base),
    "a path with a comma": (
        with_file("a,b.png", noise(99, 8, 8, 3), table('"a,b.png",cat')),
        {},
        lambda d: labels_of(d)["a,b.png"] == "cat",
    ),
    "a path in macOS's normal form": (
        with_file(A_UMLAUT, noise(99, 8, 8, 3), table(f"{DECOMPOSED},cat")),
        *({}, lambda d: labels_of(d)[A_UMLAUT] == "cat"),
    ),
    "a file in macOS's normal form": (
        with_file(DECOMPOSED, noise(99, 8, 8, 3), table(f"{A_UMLAUT},cat")),
        *({}, lambda d: labels_of(d)[DECOMPOSED] == "cat"),
    ),
    "a mask in macOS's normal form": (
        with_file(A_UMLAUT, square(), table(f"0.png,cat,{DECOMPOSED}", header=MASKED, rest=",")),
        *({}, foreground(16)),
    ),
    "an image without a suffix": (
        lambda f: with_bytes("scan", (f / "0.png").read_bytes(), table("scan,cat"))(f),
        *({}, lambda d: labels_of(d)["scan"] == "cat"),
    ),
    "a link to an image": (
        after(lambda f: (f / "link.png").symlink_to(f / "0.png"), table("link.png,cat")),
        *({}, lambda d: labels_of(d)["link.png"] == "cat"),
    ),
    "an image twice in training": (
        f"{SPLIT}\n{THIRDS}0.png,cat,train\n",
        {},
        lambda d: len(d.findings.samples) == 13,
    ),
    "spaces around a split": (
        f"{SPLIT}\n" + THIRDS.replace("train", " train "),
        {},
        lambda d: split_of(d, "0.png") == {"train"},
    ),
    "spaces around a group": (
        table("0.png,cat,p", "1.png,dog, p", header=GROUPED, rest=","),
        *({}, grouped("p", "p", *[None] * 10)),
    ),
    "groups 007 and 7": (
        table("0.png,cat,007", "1.png,dog,7", header=GROUPED, rest=","),
        {},
        grouped("007", "7", *[None] * 10),
    ),
    "a missing group, as pandas writes it": (
        table("0.png,cat,nan", header=GROUPED, rest=",nan"),
        {},
        grouped(*[None] * 12),
    ),
    "a missing mask, as pandas writes it": (
        table("0.png,cat,nan", header=MASKED, rest=",None"),
        {},
        foreground(None),
    ),
    "a mask of 0 and 1": (mask(square(1)), {}, foreground(16)),
    "a mask of one colour": (
        mask(np.stack([square(), square(0), square(0)], 2)),
        {},
        foreground(16),
    ),
    "a mask without foreground": (
        mask(square(0)),
        *(
            {},
            lambda d: (
                foreground(0)(d) and [Path(n).name for n in d.findings.empty_masks] == ["0.png"]
            ),
        ),
    ),
    "a label map with its foreground": (
        mask(np.arange(64, dtype=np.uint8).reshape(8, 8) % 4),
        {"mask_foreground": [1, 3]},
        foreground(32),
    ),
    "two boxes of an image": (
        f"{BOXED}\n0.png,cat,0,0,2,2\n0.png,cat,4,4,2,2\n" + table(rest=",,,,").split("\n", 2)[2],
        *(BOXES, foreground(8)),
    ),
    "a box that reaches outside": (
        table("0.png,cat,6,6,9,9", header=BOXED, rest=",,,,"),
        BOXES,
        foreground(4),
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_right(folder: Path, case: str, record_property: Any, monkeypatch: Any) -> None:
    build, options, is_right = ODD[case]
    monkeypatch.chdir(folder)
    assert is_right(read(folder, build, **options))
    record_property("outcome", RIGHT)
