"""Boxes, masks and points that say where objects are, and what is drawn of them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from faster_isnet.cli import main
from faster_isnet.data import Foreground, Sample, read_mask
from faster_isnet.segmentation import (
    Hint,
    ObjectBox,
    ObjectPoint,
    hinted_segmenter,
    predict_masks,
    pretrained_segmenter,
    read_hints,
)

SIZE = 60, 80  # rows, columns


def picture(number: int) -> np.ndarray:
    """A red disc on noise."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(60, 90, (*SIZE, 3))
    pixels[disc()] = (200, 40, 40)
    return pixels.astype(np.uint8)


def disc() -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - 30) ** 2 + (columns - 45) ** 2 < 14**2


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    return folder


def table(folder: Path, text: str) -> Path:
    path = folder / "hints.csv"
    path.write_text(text)
    return path


def test_a_row_is_an_object_and_images_without_one_have_no_hint(photos: Path) -> None:
    text = "image,x0,y0,x1,y1\nphotos/0.png,0,0,2,3\nphotos/0.png,5,0,6,1\nphotos/1.png,1,1,2,2\n"
    images = sorted(photos.iterdir())
    hints = read_hints(images, table(photos.parent, text))
    assert list(hints) == images[:2]
    region = hints[images[0]].region(SIZE)
    assert region.sum() == 2 * 3 + 1
    assert region[0, :3, :2].all()
    assert region[0, 0, 5] == 1


def test_a_folder_or_a_table_of_masks_is_read_as_masks_are(photos: Path) -> None:
    drawn = photos.with_name("drawn")
    drawn.mkdir()
    labels = np.zeros(SIZE, dtype=np.uint8)
    labels[3:9, 4:14], labels[20:30, 50:60], labels[0, 0] = 2, 2, 1
    Image.fromarray(labels).save(drawn / "1.png")
    images = sorted(photos.iterdir())
    text = "image,mask\nphotos/1.png,drawn/1.png\nphotos/2.png,\n"
    for boxes in (drawn, table(photos.parent, text)):
        with pytest.raises(ValueError, match="name those of the foreground"):
            read_hints(images, boxes)[images[1]].region(SIZE)
        (hint,) = read_hints(images, boxes, foreground=Foreground((2,))).values()
        assert hint.region(SIZE).sum() == 160
        objects = [each.box[:4] for each in hint.objects(SIZE) if each.box]
        assert objects == [(4, 3, 14, 9), (50, 20, 60, 30)]


def test_points_belong_to_the_box_they_lie_in() -> None:
    boxes = ObjectBox(0, 0, 10, 10), ObjectBox(20, 20, 40, 40)
    points = ObjectPoint(5, 5, 1), ObjectPoint(30, 30, 0)
    one, other = Hint(boxes, points).objects(SIZE)
    assert (one.points, other.points) == (points[:1], points[1:])
    (alone,) = Hint(points=points).objects(SIZE)
    assert alone == (None, points)
    with pytest.raises(ValueError, match="lies in no box"):
        Hint(boxes, (ObjectPoint(15, 15, 1),)).objects(SIZE)
    with pytest.raises(ValueError, match=r"all points .* are background; add one"):
        Hint(points=points[1:]).objects(SIZE)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("x0,y0,x1,y1", "photos/0.png,1,2,NaN,4", r"row 1 of .*hints\.csv' has the box .*'NaN'"),
        ("x0,y0,x1,y1", "photos/0.png,5,2,5,4", r"row 1 .*not beyond its left.*not width"),
        ("x0,y0,x1,y1", "photos/9.png,5,2,6,4", r"row 1 .*9\.png', which does not exist; correct"),
        ("x,y,label", "photos/0.png,5,2,2", r"row 1 .* has the point .*the label 1 in"),
        ("x0,y0,w,h", "photos/0.png,5,2,5,4", r"has no column 'x1'.*needs image,x0,y0,x1,y1"),
    ],
)
def test_a_wrong_cell_is_named(photos: Path, header: str, row: str, message: str) -> None:
    path = table(photos.parent, f"image,{header}\n{row}\n")
    given = {"points": path} if "label" in header else {"boxes": path}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_hints(sorted(photos.iterdir()), **given)


@pytest.mark.parametrize(
    "box", [(-5, 0, 20, 20), (0, 0, 82, 20), (0, 0, 20, 62), (81, 1, 81.5, 3), (0, -3, 9, -1)]
)
def test_what_is_outside_of_the_image_is_named(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"a box has .*, outside of its image of 80 x 60 pixels"):
        Hint((ObjectBox(*box),)).region(SIZE)
    assert Hint((ObjectBox(-0.5, 0, 80.6, 60),)).region(SIZE).all()  # rounding


def test_rows_of_images_that_are_not_segmented_are_counted(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "image,x0,y0,x1,y1\nphotos/0.png,0,0,2,3\nphotos/1.png,5,0,6,1\n"
    with caplog.at_level(logging.WARNING):
        hints = read_hints([photos / "1.png"], table(photos.parent, text))
    assert list(hints) == [photos / "1.png"]
    assert "1 rows of" in caplog.text


class TestGrabCut:
    @pytest.fixture(autouse=True)
    def _opencv(self) -> None:
        pytest.importorskip("cv2")

    def find(self, region: np.ndarray, tmp_path: Path, image: np.ndarray | None = None) -> Tensor:
        path = tmp_path / "region.png"
        Image.fromarray((region * 255).astype(np.uint8)).save(path)
        pixels = torch.from_numpy(picture(0) if image is None else image)
        given = pixels.permute(2, 0, 1).float() / 255
        hint = Hint(sample=Sample(tmp_path / "image.png", mask=path))
        return hinted_segmenter("grabcut").at(hint).mask(given)

    def test_the_object_is_found_within_the_mask_and_nothing_outside(self, tmp_path: Path) -> None:
        box = np.zeros(SIZE, dtype=bool)
        box[12:50, 25:65] = True
        found = self.find(box, tmp_path)[0].numpy() == 1
        assert (found == disc()).mean() > 0.99
        half = box.copy()
        half[:, 45:] = False  # half of the object
        found = self.find(half, tmp_path)[0].numpy() == 1
        assert found.any()
        assert not (found & ~half).any()

    def test_holes_of_the_mask_stay(self, tmp_path: Path) -> None:
        ring = disc()
        ring[25:36, 40:51] = False
        found = self.find(ring, tmp_path)[0].numpy() == 1
        assert found.any()
        assert not (found & ~ring).any()

    @pytest.mark.parametrize("fill", [False, True])
    def test_without_foreground_or_background_nothing_is_found(
        self, tmp_path: Path, fill: bool
    ) -> None:
        assert not self.find(np.full(SIZE, fill), tmp_path).any()

    def test_it_is_the_same_each_time_and_large_images_are_made_smaller(
        self, tmp_path: Path
    ) -> None:
        box = np.zeros(SIZE, dtype=bool)
        box[12:50, 25:65] = True
        one, other = self.find(box, tmp_path), self.find(box, tmp_path)
        assert torch.equal(one, other)
        large = self.find(
            box.repeat(10, 0).repeat(10, 1), tmp_path, picture(0).repeat(10, 0).repeat(10, 1)
        )
        assert (large[:, 5::10, 5::10] == one).float().mean() > 0.98


def test_the_command_counts_images_without_a_mask(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    # Of the second the box is all of the image; of the third there is none.
    text = "image,x0,y0,x1,y1\nphotos/0.png,25,12,65,50\nphotos/1.png,0,0,80,60\n"
    boxes, out = table(photos.parent, text), photos.with_name("masks")
    command = ["segment", "auto", str(photos), "--out", str(out), "--with", "grabcut"]
    assert main(command) == 2
    assert "where are the objects?" in capsys.readouterr().err
    assert main([*command, "--boxes", str(boxes), "--points", str(boxes)]) == 2
    assert "has no column 'x'" in capsys.readouterr().err
    assert main([*command, "--boxes", str(boxes), "--download", "true"]) == 2
    assert "grabcut has no network and no weights" in capsys.readouterr().err
    assert main([*command, "--boxes", str(boxes)]) == 0
    said = capsys.readouterr().out
    assert "3 images, 0 masks implausible" in said
    assert "1 images have no mask: no box, mask or point says where" in said
    assert "1 images have no mask: nothing was found where" in said
    found = pd.read_csv(out / "masks.csv", keep_default_na=False)
    assert found["mask"].tolist() == ["0.png", "", ""]
    assert [path.name for path in out.glob("*.png")] == ["0.png"]
    assert (read_mask(out / "0.png")[0].numpy() == disc()).mean() > 0.99
    assert main([*command, "--boxes", str(out), "--overwrite"]) == 2
    assert "name another folder: --out" in capsys.readouterr().err
    assert main([*command[:-1], "salient", "--boxes", str(boxes)]) == 2
    assert "--with salient reads no --boxes" in capsys.readouterr().err


def test_hints_and_segmenters_must_fit(photos: Path) -> None:
    with pytest.raises(ValueError, match="has to be told where the objects are"):
        pretrained_segmenter("sam2")
    pytest.importorskip("cv2")
    segmenter, image = hinted_segmenter("grabcut"), photos / "0.png"
    with pytest.raises(ValueError, match="GrabCut reads boxes or masks, and no points"):
        segmenter.at(Hint(points=(ObjectPoint(1, 1, 1),)))
    with pytest.raises(ValueError, match="of none of the 1 images"):
        predict_masks(segmenter, [image], photos.parent / "out", hints={})
