from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from faster_isnet.data import add_mask_folder, list_images, read_mask
from faster_isnet.data.samples import Sample
from faster_isnet.segmentation import SegmenterSettings, TrainedSegmenter, predict_masks
from faster_isnet.segmentation.shapes import Shape, ShapeRanges


class Bright(nn.Module):
    """Finds what is brighter than the mean."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((), 5.0))  # it is sure of what it finds

    def forward(self, images):
        return self.scale * images.mean(1, keepdim=True)


def segmenter(components: int = 2) -> TrainedSegmenter:
    seen = ShapeRanges((0.05, 0.2), (1, 2), (0.4, 0.6), (0.4, 0.6))
    return TrainedSegmenter(Bright(), SegmenterSettings(size=64, components=components), seen)


def picture(*squares: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """White squares (top, left, side) on black."""
    pixels = np.zeros(size, dtype=np.uint8)
    for top, left, side in squares:
        pixels[top : top + side, left : left + side] = 255
    return pixels


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


MIDDLE = (24, 24, 16)


def test_masks_and_table(tmp_path):
    hole = picture(MIDDLE)
    hole[30, 30] = 0
    images = [
        write(tmp_path / "images/a/1.png", hole),
        write(tmp_path / "images/b/1.tif", picture((10, 10, 5), (40, 40, 20))),
        write(tmp_path / "images/b/2.png", picture()),
    ]
    out = tmp_path / "masks"
    table = predict_masks(segmenter(), images, out)
    assert table["image"].tolist() == [str(image) for image in images]
    assert table["mask"].tolist() == ["a/1.png", "b/1.png", "b/2.png"]
    assert table["plausible"].tolist() == [True, False, False]
    assert table["components"].tolist() == [1, 2, 0]
    assert table["area"].tolist() == [16**2 / 64**2, (5**2 + 20**2) / 64**2, 0]
    reasons = table["reason"].tolist()
    assert reasons[0] == ""
    assert reasons[1].startswith("centre's row 0.7")
    assert reasons[2] == "nothing was found"
    assert np.array_equal(np.asarray(Image.open(out / "a/1.png")), picture(MIDDLE))
    assert np.array_equal(np.asarray(Image.open(out / "b/2.png")), picture())
    read = pd.read_csv(out / "masks.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(read, table)


def test_the_folder_is_one_that_data_are_read_with(tmp_path):
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        write(tmp_path / "images" / name, picture(MIDDLE))
    images = list_images(tmp_path / "images")
    predict_masks(segmenter(), images[1:], tmp_path / "masks", root=tmp_path / "images")
    samples = add_mask_folder(
        [Sample(image) for image in images], tmp_path / "images", tmp_path / "masks"
    )
    assert [sample.mask is not None for sample in samples] == [False, True, True]
    assert samples[1].read_mask((64, 64)).sum() == 16**2


@pytest.mark.parametrize("size", [(64, 64), (150, 90), (40, 200)])
@pytest.mark.parametrize("channels", [1, 3])
def test_masks_have_the_images_own_size(tmp_path, size, channels):
    height, width = size
    pixels = np.zeros(size, dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 200
    image = write(tmp_path / "1.png", pixels if channels == 1 else np.stack([pixels] * 3, 2))
    predict_masks(segmenter(), [image], tmp_path / "masks")
    mask = read_mask(tmp_path / "masks/1.png")
    assert mask.shape == (1, *size)
    found, drawn = mask[0].numpy() > 0, pixels > 0
    assert (found & drawn).sum() / (found | drawn).sum() > 0.7  # but for the blurred outline


def test_exposure_does_not_matter(tmp_path):
    pixels = picture(MIDDLE) // 255
    image = [write(tmp_path / f"{i}.png", 40 + pixels * i) for i in (10, 200)]
    predict_masks(segmenter(), image, tmp_path / "masks")
    one, other = (read_mask(tmp_path / "masks" / path.name) for path in image)
    assert torch.equal(one, other)
    assert one.sum() == 16**2


@pytest.mark.parametrize(("given", "kept"), [(None, 2), (1, 1), (3, 3), (9, 3)])
def test_components(tmp_path, given, kept):
    image = write(tmp_path / "1.png", picture((2, 2, 6), (20, 20, 8), (40, 40, 10)))
    table = predict_masks(segmenter(components=2), [image], tmp_path / "masks", given)
    sides = [10, 8, 6][:kept]
    assert table["components"].tolist() == [kept]
    assert table["area"].tolist() == [sum(side**2 for side in sides) / 64**2]


def test_tolerance(tmp_path):
    image = write(tmp_path / "1.png", picture((16, 16, 30)))  # area 0.22, seen up to 0.2
    for tolerance, plausible in ((0.05, False), (0.15, True)):
        out = tmp_path / str(tolerance)
        table = predict_masks(segmenter(), [image], out, tolerance=tolerance)
        assert table["plausible"].tolist() == [plausible]


class TestUnreadable:
    @pytest.fixture
    def images(self, tmp_path):
        paths = [write(tmp_path / f"images/{name}.png", picture(MIDDLE)) for name in "abc"]
        paths[1].write_bytes(b"no image")
        return [*paths, tmp_path / "images/gone.png"]

    def test_stops_and_keeps_what_is_done(self, images, tmp_path):
        out = tmp_path / "masks"
        with pytest.raises(ValueError, match=r"b\.png' cannot be segmented.*--skip-unreadable"):
            predict_masks(segmenter(), images, out)
        assert sorted(path.name for path in out.iterdir()) == ["a.png", "masks.csv"]
        assert pd.read_csv(out / "masks.csv")["mask"].tolist() == ["a.png"]

    def test_a_missing_one_names_the_option_too(self, images, tmp_path):
        with pytest.raises(ValueError, match=r"gone\.png'.*--skip-unreadable"):
            predict_masks(segmenter(), images[3:], tmp_path / "masks")
        assert not (tmp_path / "masks").exists()

    def test_skipped_ones_are_named(self, images, tmp_path):
        out = tmp_path / "masks"
        table = predict_masks(segmenter(), images, out, skip_unreadable=True)
        assert table["image"].tolist() == [str(image) for image in images]
        assert table["mask"].tolist() == ["a.png", "", "c.png", ""]
        assert table["plausible"].tolist() == [True, False, True, False]
        assert "cannot read" in table["reason"][1]
        assert "there is no file" in table["reason"][3]
        assert not (out / "b.png").exists()
        assert pd.read_csv(out / "masks.csv")["plausible"].tolist() == table["plausible"].tolist()


class TestNothingIsLost:
    def test_existing_masks_are_kept_by_default(self, tmp_path):
        images = [write(tmp_path / f"images/{name}.png", picture(MIDDLE)) for name in "ab"]
        drawn = write(tmp_path / "masks/b.png", picture((0, 0, 9)))
        before = drawn.read_bytes()
        with pytest.raises(FileExistsError, match=r"1 masks exist.*b\.png.*--overwrite"):
            predict_masks(segmenter(), images, drawn.parent)
        assert drawn.read_bytes() == before
        assert list(drawn.parent.iterdir()) == [drawn]
        predict_masks(segmenter(), images, drawn.parent, overwrite=True)
        assert read_mask(drawn).sum() == 16**2

    def test_images_are_never_replaced(self, tmp_path):
        image = write(tmp_path / "1.png", picture(MIDDLE))
        before = image.read_bytes()
        with pytest.raises(ValueError, match=r"would replace images, such as .*1\.png"):
            predict_masks(segmenter(), [image], tmp_path, overwrite=True)
        assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": []}, "there are no images to segment"),
        ({"components": 0}, "components must be a number in [1"),
        ({"tolerance": -1}, "tolerance must be a number in [0"),
        ({"root": "elsewhere"}, "is not in 'elsewhere'; give a root that holds all images"),
    ],
)
def test_arguments(tmp_path, arguments, message):
    image = write(tmp_path / "images/1.png", picture(MIDDLE))
    defaults = {"images": [image], "out": tmp_path / "masks"}
    with pytest.raises(ValueError, match=re.escape(message)):
        predict_masks(segmenter(), **(defaults | arguments))
    assert not (tmp_path / "masks").exists()


def test_two_images_with_one_mask(tmp_path):
    images = [write(tmp_path / f"images/1.{suffix}", picture(MIDDLE)) for suffix in ("png", "jpg")]
    with pytest.raises(ValueError, match=r"1\.png' and .*1\.jpg' would get the same mask"):
        predict_masks(segmenter(), images, tmp_path / "masks")
    with pytest.raises(ValueError, match="name each once"):
        predict_masks(segmenter(), [images[0]] * 2, tmp_path / "masks")


def test_the_table_measures_the_mask_that_was_written(tmp_path):
    rng = np.random.default_rng(0)
    image = write(tmp_path / "1.png", rng.integers(0, 256, (70, 50)).astype(np.uint8))
    (row,) = predict_masks(segmenter(5), [image], tmp_path / "masks").to_dict("records")
    shape = Shape.of(read_mask(tmp_path / "masks/1.png"))
    assert (row["area"], row["components"]) == (shape.area, shape.components)
    of_shape, *of_stability = row["reason"].split("; unsure: ")
    assert of_shape == segmenter().expected.why_implausible(shape, 0.1)
    assert of_stability == (
        []
        if row["stability"] >= 0.8
        else [f"stability {row['stability']:.2f}, expected at least 0.8"]
    )
