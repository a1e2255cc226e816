"""COCO files that are wrong or odd are refused by file, annotation and cure, or read as meant."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from faster_isnet.data.coco import from_coco
from faster_isnet.data.samples import Sample

REFUSED, RIGHT = "refused", "right result"
HEIGHT, WIDTH = 6, 8
LEFT = [[0, 0, 4, 0, 4, 6, 0, 6]]  # 24 pixels
Content = dict[str, Any]
Build = Callable[[Path], bytes | str | None]


def content(**changes: Any) -> Content:
    """Return a file with one annotation, number 77, of the image 5, ``b.png``."""
    return {
        "images": [
            {"id": 4, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 5, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 1, "name": "lung"}],
        "annotations": [{"id": 77, "image_id": 5, "category_id": 1, "segmentation": LEFT}],
        **changes,
    }


def annotated(**shape: Any) -> Content:
    return content(annotations=[{"id": 77, "image_id": 5, "category_id": 1, **shape}])


def segmented(segmentation: Any) -> Content:
    return annotated(segmentation=segmentation)


def image(**changes: Any) -> Content:
    entry = {"id": 5, "file_name": "b.png", "height": HEIGHT, "width": WIDTH, **changes}
    return content(images=[{k: v for k, v in entry.items() if v is not None}])


def runs(counts: Any, size: Any = (HEIGHT, WIDTH)) -> Content:
    return segmented({"size": size, "counts": counts})


def read(folder: Path, written: Content | Build, **options: Any) -> list[Sample]:
    """Do what the check before training does."""
    made = written(folder) if callable(written) else json.dumps(written)
    path = folder / "coco.json"
    if isinstance(made, str):
        made = made.encode()
    if made is not None:
        path.write_bytes(made)
    samples = []
    for name in options.pop("names", ("a.png", "b.png")):
        Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)).save(folder / name)
        samples.append(Sample(folder / name, label=0))
    samples = from_coco(path, samples, **options)
    for sample in samples:
        size = sample.read_image().shape
        sample.read_mask((size[1], size[2]))
    return samples


def text(value: Content | str, encoding: str = "utf-8") -> Build:
    return lambda _: (value if isinstance(value, str) else json.dumps(value)).encode(encoding)


def big_polygon(corners: int) -> list[list[float]]:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return [np.stack([4 + 3 * np.cos(angles), 3 + 2 * np.sin(angles)], 1).ravel().tolist()]


def compressed(pixels: np.ndarray) -> dict[str, Any]:
    found = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


FORMAT = "images with id, file_name"
ITS_ID = "annotation id 77 of .*coco.json', of 'b.png'"
DELETE = "or delete the annotation"
Case = tuple[Content | Build, dict[str, Any], str, str]
BAD: dict[str, Case] = {
    # the file
    "no file": (lambda _: None, {}, "no file .*coco.json", "correct its name"),
    "a folder": (lambda f: (f / "coco.json").mkdir(), {}, "coco.json' is not a file", "name one"),
    "a pipe": (lambda f: os.mkfifo(f / "coco.json"), {}, "coco.json' is not a file", "name one"),
    "an empty file": (text(""), {}, "coco.json", FORMAT),
    "half a file": (text(json.dumps(content())[:150]), {}, "coco.json", FORMAT),
    "utf-16": (text(content(), "utf-16"), {}, "coco.json", FORMAT),
    "latin-1": (text('{"info": "Jürgen"}', "latin-1"), {}, "coco.json", FORMAT),
    "two files in one": (text(json.dumps(content()) * 2), {}, "coco.json.*Extra data", FORMAT),
    "a deep nest": (text("[" * 100_000), {}, "coco.json", FORMAT),
    "a list": (text("[]"), {}, "coco.json", FORMAT),
    "annotations alone": (text(json.dumps(content()["annotations"])), {}, "coco.json", FORMAT),
    "a number of 5000 digits": (text('{"images": ' + "9" * 5000 + "}"), {}, "coco.json", FORMAT),
    # images and categories
    "images by name": (content(images={"a.png": 4}), {}, "coco.json", FORMAT),
    "an image without a name": (image(file_name=None), {}, "coco.json.*file_name", FORMAT),
    "an image of a number for a name": (image(file_name=5), {}, "coco.json.*5", FORMAT),
    "an image without a height": (image(height=None), {}, "coco.json.*height", FORMAT),
    "an image of height nan": (image(height=float("nan")), {}, "coco.json.*(NaN|nan)", FORMAT),
    "an image of height inf": (image(height=float("inf")), {}, "coco.json.*inf", FORMAT),
    "an image of half a row": (image(height=6.5), {}, "coco.json.*6.5", FORMAT),
    "an image of a list as its id": (image(id=[5]), {}, "coco.json", FORMAT),
    "an image with another size": (image(height=7), {}, "b.png.*6 rows.*7 rows", "draw the mask"),
    "rows and columns exchanged": (
        *(image(height=WIDTH, width=HEIGHT), {}),
        *("b.png.*6 rows of 8.*8 rows of 6", "draw the mask"),
    ),
    "an id as text": (
        *(content(annotations=[{"id": 77, "image_id": "5", "segmentation": LEFT}]), {}),
        *("coco.json.*image_id.*'5'", FORMAT),
    ),
    "ids of two types": (
        content(annotations=[{"image_id": i, "segmentation": LEFT} for i in ("9", 9)]),
        *({}, "coco.json.*image_id.*9", FORMAT),
    ),
    "no id of an image": (content(annotations=[{"segmentation": LEFT}]), {}, "image_id", FORMAT),
    "an annotation that is none": (content(annotations=[None]), {}, "coco.json", FORMAT),
    "annotations of a number": (content(annotations=3), {}, "coco.json", FORMAT),
    "categories without a name": (content(categories=[{"id": 1}]), {}, "coco.json.*name", FORMAT),
    "a category that is nowhere": (
        *(content(), {"categories": ["lungs"]}),
        *("category of .*coco.json.*'lungs'", "did you mean 'lung'"),
    ),
    "a category without annotations": (
        content(categories=[{"id": 1, "name": "lung"}, {"id": 2, "name": "heart"}]),
        *({"categories": ["heart"]}, "coco.json' has no annotations", "add some"),
    ),
    "no image of the data": (image(file_name="c.png"), {}, "coco.json.*'c.png'", "correct their"),
    "a path of Windows": (image(file_name="x\\c.png"), {}, r"coco.json.*x\\\\c.png", "correct"),
    # segments
    "a polygon of two corners": (segmented([[0, 0, 4, 4]]), {}, f"{ITS_ID}.*4 numbers", DELETE),
    "a polygon of an odd number": (segmented([[0, 0, 4, 4, 5]]), {}, f"{ITS_ID}.*5 nu", DELETE),
    "corners in pairs": (segmented([[[0, 0], [4, 0], [4, 4]]]), {}, ITS_ID, DELETE),
    "a polygon not in a list": (segmented([0, 0, 4, 0, 4, 4]), {}, ITS_ID, DELETE),
    "a polygon of text": (segmented([["0", "0", "4", "0", "4", "4"]]), {}, ITS_ID, DELETE),
    "a polygon of nothing": (segmented([[None] * 6]), {}, ITS_ID, DELETE),
    "an empty polygon": (segmented([LEFT[0], []]), {}, f"{ITS_ID}.*0 numbers", DELETE),
    "a polygon of 1e300": (segmented([[0, 0, 1e300, 0, 4, 4]]), {}, f"{ITS_ID}.*1e.300", DELETE),
    "a polygon of nan": (segmented([[0, 0, np.nan, 0, 4, 4]]), {}, f"{ITS_ID}.*nan", DELETE),
    "a polygon below 0": (segmented([[-99, 0, 4, 0, 4, 4]]), {}, f"{ITS_ID}.*-99", DELETE),
    "a polygon in percent of it": (
        *(segmented([[0.1, 0.1, 0.5, 0.1, 0.5, 0.9]]), {}),
        *(f"{ITS_ID}.*relative", DELETE),
    ),
    "runs that are too short": (runs([10, 10]), {}, f"{ITS_ID}.*20 pixels.*48", DELETE),
    "runs that are too long": (runs([48, 1]), {}, f"{ITS_ID}.*49 pixels.*48", DELETE),
    "runs of a negative length": (runs([50, -2]), {}, ITS_ID, DELETE),
    "runs of halves": (runs([23.5, 24.5]), {}, ITS_ID, DELETE),
    "runs of truths": (runs([True, 47]), {}, ITS_ID, DELETE),
    "runs of another size": (runs([48], [8, 6]), {}, f"{ITS_ID}.*\\[8, 6\\]", DELETE),
    "runs without a size": (segmented({"counts": [48]}), {}, f"{ITS_ID}.*None", DELETE),
    "runs of 1e12 pixels": (runs([10**12], [10**6, 10**6]), {}, ITS_ID, DELETE),
    "runs of foreign letters": (runs("\x01\x02"), {}, ITS_ID, DELETE),
    "runs that break off": (runs("P"), {}, ITS_ID, DELETE),
    "runs of a million letters": (runs("o" * 1_000_000), {}, ITS_ID, DELETE),
    "a file as a segment": (segmented("b_mask.png"), {}, f"{ITS_ID}.*b_mask", DELETE),
    "a box without a height": (annotated(bbox=[0, 0, 4]), {}, f"{ITS_ID}.*bbox", DELETE),
    "a box by two corners that turns back": (annotated(bbox=[4, 4, -2, 2]), {}, ITS_ID, DELETE),
    "a box of text": (annotated(bbox="0 0 4 4"), {}, f"{ITS_ID}.*0 0 4 4", DELETE),
    "a box of 1e12": (annotated(bbox=[0, 0, 1e12, 4]), {}, f"{ITS_ID}.*1000000000000", DELETE),
    "a box far away": (annotated(bbox=[500, 500, 4, 4]), {}, f"{ITS_ID}.*50", DELETE),
    "neither segment nor box": (annotated(), {}, f"{ITS_ID}.*bbox", DELETE),
    "a crowd without runs": (annotated(iscrowd=1, segmentation=[]), {}, ITS_ID, DELETE),
}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose path says nothing of the case."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("case", BAD)
def test_refused(folder: Path, case: str, record_property: Any) -> None:
    written, options, value, cure = BAD[case]
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        read(folder, written, **options)
    assert re.search(value, str(refused.value)), refused.value
    assert re.search(cure, str(refused.value)), refused.value
    record_property("outcome", REFUSED)


def expected(pixels: slice | tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[pixels] = True
    return mask


HALF = expected((slice(None), slice(0, 4)))
NOTHING = expected(slice(0, 0))
UMLAUT = "\u00e4.png"
ODD: dict[str, tuple[Content | Build, dict[str, Any], np.ndarray | None]] = {
    "as it should be": (content(), {}, HALF),
    "without categories": ({k: v for k, v in content().items() if k != "categories"}, {}, HALF),
    "a mark of utf-8": (text(content(), "utf-8-sig"), {}, HALF),
    "a name with folders": (image(file_name="./b.png"), {}, HALF),
    "a name in macOS's normal form": (
        image(file_name=unicodedata.normalize("NFD", UMLAUT)),
        *({"names": (UMLAUT,)}, HALF),
    ),
    "sizes as floats": (image(height=6.0, width=8.0), {}, HALF),
    "a closed polygon": (segmented([[*LEFT[0], 0, 0]]), {}, HALF),
    "corners against the clock": (segmented([[0, 6, 4, 6, 4, 0, 0, 0]]), {}, HALF),
    "a polygon that reaches outside": (segmented([[-2, -2, 4, -2, 4, 9, -2, 9]]), {}, HALF),
    "a polygon twice": (segmented(LEFT * 2), {}, HALF),
    "runs as a list": (runs([0, 24, 24]), {}, HALF),
    "runs in letters": (segmented(compressed(HALF)), {}, HALF),
    "runs of the background alone": (runs([48]), {}, NOTHING),
    "a polygon of no area": (segmented([[2, 2, 2, 2, 2, 2]]), {}, NOTHING),
    "a polygon beside the image": (segmented([[9, 0, 12, 0, 12, 4]]), {}, NOTHING),
    "runs of length 0": (runs([0, 12, 0, 12, 24]), {}, HALF),
    "a box": (annotated(bbox=[0, 0, 4, 6]), {}, HALF),
    "a box beside an empty segment": (annotated(segmentation=[], bbox=[0, 0, 4, 6]), {}, HALF),
    "a box that reaches outside": (annotated(bbox=[-1, -1, 5, 8]), {}, HALF),
    "an image twice": (
        content(
            images=[
                {"id": i, "file_name": "b.png", "height": HEIGHT, "width": WIDTH} for i in (5, 6)
            ],
            annotations=[
                {"image_id": 5, "segmentation": [[0, 0, 2, 0, 2, 6, 0, 6]]},
                {"image_id": 6, "segmentation": [[2, 0, 4, 0, 4, 6, 2, 6]]},
            ],
        ),
        *({}, HALF),
    ),
    "a polygon of 10,000 corners": (segmented(big_polygon(10_000)), {}, None),
}


@pytest.mark.parametrize("case", ODD)
def test_right(folder: Path, case: str, record_property: Any) -> None:
    written, options, mask = ODD[case]
    *others, last = read(folder, written, **options)
    assert all(sample.mask is None for sample in others)
    found = last.read_mask((HEIGHT, WIDTH))
    assert found is not None
    if mask is None:  # an ellipse with the half-axes 3 and 2
        assert float(found.sum()) == pytest.approx(np.pi * 3 * 2, abs=4)
    else:
        assert np.array_equal(found[0].numpy(), mask)
    record_property("outcome", RIGHT)
