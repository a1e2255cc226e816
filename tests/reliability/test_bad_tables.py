"""Tables that are wrong or odd are refused by name and value, or read as they are meant."""

from __future__ import annotations

import gzip
import os
import re
import unicodedata
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from faster_isnet.data import ImageData
from faster_isnet.data.samples import classes_of

REFUSED, RIGHT = "refused", "right result"
IMAGES = 12
Build = Callable[[Path], str | bytes | None]


def table(*first: str, header: str = "image,label", rest: str = "") -> str:
    """Return a CSV whose first rows are given; others are the base's, with ``rest`` appended."""
    base = [f"{i}.png,{('cat', 'dog')[i % 2]}{rest}" for i in range(IMAGES)]
    return "\n".join([header, *first, *base[len(first) :]]) + "\n"


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def square(value: int = 255, side: int = 8) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[:4, :4] = value
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(IMAGES):
        picture(tmp_path / f"{i}.png", noise(i, 8, 8, 3))
    return tmp_path


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


def with_file(name: str, pixels: np.ndarray, text: str) -> Build:
    def build(folder: Path) -> str:
        picture(folder / name, pixels)
        return text

    return build


def with_bytes(name: str, content: bytes, text: str) -> Build:
    def build(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return text

    return build


def after(action: Callable[[Path], object], text: str | None) -> Build:
    def build(folder: Path) -> str | None:
        action(folder)
        return text

    return build


def parquet(folder: Path) -> None:
    frame = pd.read_csv(StringIO(table()))
    frame["label"] = [[name] for name in frame["label"]]
    frame.to_parquet(folder / "table.parquet")


HTML = "<html><body><table><tr><td>image</td></tr></table></body></html>"
MASKED = "image,label,mask"
SPLIT = "image,label,split"
GROUPED = "image,label,group"
BOXED = "image,label,x,y,w,h"
BOXES = {"fields": {"boxes": ["x", "y", "w", "h"]}}
THIRDS = "".join(
    f"{i}.png,{('cat', 'dog')[i % 2]},{('train', 'val', 'test')[i // 4]}\n" for i in range(12)
)
A_UMLAUT, DECOMPOSED = "\u00e4.png", unicodedata.normalize("NFD", "\u00e4.png")

# What is written, options, and what the error says: the file and the value, and the cure.
BAD: dict[str, tuple[Build | str | bytes, dict[str, Any], str, str]] = {
    # the file
    "no file": (lambda _: None, {}, "no table .*table.csv", "correct its name"),
    "a folder": (
        after(lambda f: (f / "table.csv").mkdir(), None),
        {},
        "table.csv.*not a file",
        "name",
    ),
    "a pipe": (
        after(lambda f: os.mkfifo(f / "table.csv"), None),
        {},
        "table.csv.*not a file",
        "name",
    ),
    "a link to itself": (
        *(after(lambda f: (f / "table.csv").symlink_to(f / "table.csv"), None), {}),
        *("table.csv", "correct its name"),
    ),
    "an empty file": ("", {}, "table.csv", "save it anew|add some"),
    "empty lines": ("\n\n\n", {}, "table.csv", "save it anew|add some"),
    "a header alone": ("image,label\n", {}, "table.csv.* no rows", "add some"),
    "a picture": (lambda f: (f / "0.png").read_bytes(), {}, "table.csv", "UTF-8"),
    "compressed": (gzip.compress(table().encode()), {}, "table.csv", "UTF-8"),
    "a page": (HTML, {}, "table.csv", "column 'image'|add some"),
    "json": ('{"image": "0.png", "label": "cat"}\n', {}, "table.csv", "add"),
    "utf-16": (table().encode("utf-16"), {}, "table.csv", "UTF-8"),
    "utf-16 without its mark": (table().encode("utf-16-le"), {}, "table.csv", "UTF-8"),
    "latin-1": (table("0.png,K\u00e4se").encode("latin-1"), {}, "table.csv.*0xe4", "UTF-8"),
    "a nul": (table("0.png,c\0at"), {}, "table.csv.*line 2 holds a NUL", "save it anew"),
    "a nul in a path": (table("0\0.png,cat"), {}, "table.csv.*line 2 holds a NUL", "save it anew"),
    "an open quote": (table('"0.png,cat'), {}, "table.csv", "save it anew"),
    "text behind a quote": (table('"0.png"x,cat'), {}, "table.csv", "save it anew"),
    "a huge cell": (table("0.png," + "x" * 200_000), {}, "table.csv", "save it anew"),
    "another suffix": (
        *(after(lambda f: (f / "table.tsv").write_text(table()), None), {"source": "table.tsv"}),
        *("table.tsv", "convert it"),
    ),
    "labels that are lists": (
        after(parquet, None),
        {"source": "table.parquet"},
        "table.parquet.*column 'label'",
        "text or numbers",
    ),
    # the columns
    "tabs": (table().replace(",", "\t"), {}, r"table.csv.*'image\\tlabel'", "commas"),
    "semicolons": (table().replace(",", ";"), {}, "table.csv.*'image;label'", "commas"),
    "no header": (table(header="0.png,cat"), {}, "table.csv.*no column 'image'", "header"),
    "another case": (
        table(header="Image,Label"),
        {},
        "table.csv.*no column 'image'.*'Image'",
        "say which",
    ),
    "no labels": (
        table(header="image,diagnosis"),
        {},
        "table.csv.*no column 'label'.*'diagnosis'",
        "say which",
    ),
    "a column twice": (
        table("0.png,cat,x", header="image,label,label", rest=",x"),
        {},
        "table.csv.*'label', 'label'",
        "a name of its own",
    ),
    "a comment above": (
        "# of 2024\n" + table(),
        {},
        "table.csv.*line 2 has 2 cells.*header 1",
        "quote cells",
    ),
    "a cell more": (table("0.png,cat,x"), {}, "table.csv.*line 2 has 3 cells", "quote cells"),
    "a cell less": (table("0.png"), {}, "table.csv.*line 2 has 1 cells", "quote cells"),
    "spaces as a row": (
        table("0.png,cat", "   "),
        {},
        "table.csv.*line 3 has 1 cells",
        "quote cells",
    ),
    # labels
    "a label is empty": (table("0.png,"), {}, "0.png", "fill it in"),
    "all labels are empty": (
        table().replace("cat", "").replace("dog", ""),
        {},
        "table.csv. has no labels",
        "fill in",
    ),
    "a label is only a separator": (table("0.png,|"), {}, "0.png", "fill it in"),
    "a label of R's missing value": (
        table("0.png,NA"),
        {},
        "row 1 of .*table.csv.*'NA'",
        "leave the cell empty",
    ),
    "a label of a spreadsheet's error": (
        table("0.png,#N/A"),
        {},
        "row 1 of .*table.csv.*'#N/A'",
        "leave the cell empty",
    ),
    "a label of SQL's missing value": (
        table("0.png,NULL"),
        {},
        "row 1 of .*table.csv.*'NULL'",
        "leave the cell empty",
    ),
    "1 and 1.0": (
        table("0.png,1", "1.png,1.0"),
        {},
        "table.csv.*'1' and '1.0'",
        "write them the same",
    ),
    "1 and 01": (
        table("0.png,1", "1.png,01"),
        {},
        "table.csv.*'0?1' and '0?1'",
        "write them the same",
    ),
    "True and true": (
        table("0.png,True", "1.png,true"),
        {},
        "table.csv.*'True' and 'true'",
        "write them the same",
    ),
    "another case in a label": (
        table("0.png,Cat"),
        {},
        "table.csv.*'Cat' and 'cat'",
        "write them the same",
    ),
    "a letter of no width": (
        table("0.png,cat\u200b"),
        {},
        r"table.csv.*'cat.u200b'",
        "write them the same",
    ),
    "two spaces within a label": (
        table("0.png,a cat", "2.png,a  cat"),
        {},
        "table.csv.*'a  cat'",
        "write them the same",
    ),
    "a class of one image": (table("0.png,bird"), {}, "'bird'.*0.png", "add samples"),
    "labels that are names of images": (
        "image,label\n" + "".join(f"{i}.png,{i}.png\n" for i in range(12)),
        *({}, "class '[0-9]+.png'", "add samples"),
    ),
    "one class": (table().replace("dog", "cat"), {}, "table.csv.*'cat'", "two classes"),
    "a class that others lack": (
        table("0.png,bird"),
        {"class_names": ["cat", "dog"]},
        "row 1 of .*table.csv.*'bird'",
        "Known: 'cat', 'dog'",
    ),
    "labels of 0, 1 and 2": (
        table("0.png,2,0", header="image,cat,dog")
        .replace(",cat", ",1,0")
        .replace("g,dog", "g,0,1")
        .replace("image,1,0", "image,cat"),
        {"fields": {"label": ["cat", "dog"]}},
        *("row 1 of .*table.csv.*'2' for 'cat'", "0 or 1"),
    ),
    # images
    "no path": (table(",cat"), {}, "image in row 1 of .*table.csv", "fill the cell"),
    "a path that pandas found missing": (
        table("nan,cat"),
        {},
        "image in row 1 of .*table.csv",
        "fill the cell",
    ),
    "no image": (table("gone.png,cat"), {}, "gone.png", "correct its name"),
    "an image in another case": (table("0.PNG,cat"), {}, "0.PNG", "correct its name"),
    "a path with a space": (table(" 0.png,cat"), {}, " 0.png", "correct its name"),
    "a path with backslashes": (table("sub\\0.png,cat"), {}, r"sub\\\\0.png", "correct its name"),
    "a path from home": (table("~/0.png,cat"), {}, "~/0.png", "correct its name"),
    "an address": (
        table("https://example.org/0.png,cat"),
        {},
        "example.org/0.png",
        "correct its name",
    ),
    "a path of 5000 letters": (table("x" * 5000 + ".png,cat"), {}, "xxx", "correct its name"),
    "a folder for an image": (
        after(lambda f: (f / "d.png").mkdir(), table("d.png,cat")),
        {},
        "d.png' is not a file",
        "name one",
    ),
    "a pipe for an image": (
        after(lambda f: os.mkfifo(f / "p.png"), table("p.png,cat")),
        {},
        "p.png' is not a file",
        "name one",
    ),
    "an empty image": (with_bytes("e.png", b"", table("e.png,cat")), {}, "e.png", "mend the file"),
    "half of an image": (
        lambda f: with_bytes("h.png", (f / "0.png").read_bytes()[:120], table("h.png,cat"))(f),
        *({}, "h.png", "mend the file"),
    ),
    "a table for an image": (table("table.csv,cat"), {}, "table.csv", "mend the file"),
    "an image twice with two labels": (
        table("1.png,cat"),
        {},
        "1.png and .*1.png",
        "Leave out one",
    ),
    "an image in two splits by two paths": (
        *(f"{SPLIT}\n{THIRDS}./0.png,cat,test\n", {}),
        *("0.png and .*0.png|0.png", "Leave out one"),
    ),
    # splits and groups
    "an unknown split": (
        table("0.png,cat,training", header=SPLIT, rest=","),
        {},
        "row 1 of .*table.csv.*'training'",
        "did you mean 'train'",
    ),
    "a split in another case": (
        table("0.png,cat,Train", header=SPLIT, rest=","),
        {},
        "row 1 of .*table.csv.*'Train'",
        "did you mean 'train'",
    ),
    "a split that is missing": (
        f"{SPLIT}\n" + THIRDS.replace("0.png,cat,train", "0.png,cat,"),
        {},
        "0.png' has no split",
        "give all a split",
    ),
    "splits without training": (
        f"{SPLIT}\n" + THIRDS.replace("train", "val"),
        {},
        "no images to train on",
        "add",
    ),
    "a group in two splits": (
        "image,label,split,group\n"
        + "".join(f"{row},p{i % 4}\n" for i, row in enumerate(THIRDS.split())),
        *({}, "group 'p0'.*'train' and 'val'.*4.png", "put all of a group into one"),
    ),
    "groups 7 and 7.0": (
        table("0.png,cat,7", "1.png,dog,7.0", header=GROUPED, rest=","),
        {},
        "table.csv.*'7' and '7.0'",
        "write them the same",
    ),
    "a group of R's missing value": (
        table("0.png,cat,NA", header=GROUPED, rest=",NA"),
        {},
        "row 1 of .*table.csv.*'NA'",
        "leave the cell empty",
    ),
    "all in one group": (
        table("0.png,cat,p", header=GROUPED, rest=",p"),
        {},
        "class 'cat'.*0.png",
        "add samples of other groups",
    ),
    # masks and boxes
    "no mask": (
        table("0.png,cat,gone.png", header=MASKED, rest=","),
        {},
        "gone.png",
        "correct its name",
    ),
    "a mask of another size": (
        with_file("m.png", square(side=9), table("0.png,cat,m.png", header=MASKED, rest=",")),
        {},
        "0.png.*8 rows.*m.png.*9 rows",
        "draw the mask",
    ),
    "a label map": (
        with_file(
            "m.png",
            np.arange(64, dtype=np.uint8).reshape(8, 8) % 4,
            table("0.png,cat,m.png", header=MASKED, rest=","),
        ),
        {},
        "m.png.*0, 1, 2, 3",
        "mask_foreground",
    ),
    "the image as its mask": (
        table("0.png,cat,0.png", header=MASKED, rest=","),
        {},
        "mask of .*0.png",
        "mask_threshold",
    ),
    "a folder for a mask": (
        after(lambda f: (f / "m").mkdir(), table("0.png,cat,m", header=MASKED, rest=",")),
        {},
        "mask of .*0.png.*m' is not a file",
        "name one",
    ),
    "a mask of NaN": (
        after(
            lambda f: tifffile.imwrite(f / "m.tif", np.full((8, 8), np.nan, np.float32)),
            table("0.png,cat,m.tif", header=MASKED, rest=","),
        ),
        *({}, "m.tif.*NaN", "write 0"),
    ),
    "a box outside": (
        table("0.png,cat,90,0,2,2", header=BOXED, rest=",,,,"),
        BOXES,
        "0.png.*x 90",
        "in pixels",
    ),
    "a box without a width": (
        table("0.png,cat,0,0,,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'0', '0', '', '2'",
        "give left, top",
    ),
    "a box of letters": (
        table("0.png,cat,0,0,two,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'two'",
        "give left, top",
    ),
    "a box without end": (
        table("0.png,cat,0,0,inf,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'inf'",
        "give left, top",
    ),
    "a box that turns back": (
        table("0.png,cat,4,4,-2,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'-2'",
        "give left, top",
    ),
    "no such columns of boxes": (table(), BOXES, "table.csv.*no column 'x'", "say which"),
}


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
