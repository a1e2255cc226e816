"""Boxes, masks and points that say where objects are, and what is drawn of them."""

from __future__ import annotations

import json
import logging
import shutil
from importlib import import_module
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
    assert main([*command[:-1], "salient", "--mask_threshold", "9"]) == 2
    assert "--with salient reads no --mask_threshold" in capsys.readouterr().err
    assert main([*command, "--boxes", str(boxes), "--mask_threshold", "9"]) == 2
    assert "are of masks, and --boxes names none" in capsys.readouterr().err


def test_hints_and_segmenters_must_fit(photos: Path) -> None:
    with pytest.raises(ValueError, match="has to be told where the objects are"):
        pretrained_segmenter("sam2")
    pytest.importorskip("cv2")
    segmenter, image = hinted_segmenter("grabcut"), photos / "0.png"
    with pytest.raises(ValueError, match="GrabCut reads boxes or masks, and no points"):
        segmenter.at(Hint(points=(ObjectPoint(1, 1, 1),)))
    with pytest.raises(ValueError, match="of none of the 1 images"):
        predict_masks(segmenter, [image], photos.parent / "out", hints={})


class TestSam2:
    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A small SAM 2 with random weights."""
        transformers = pytest.importorskip("transformers")
        configuration = import_module("transformers.models.sam2.configuration_sam2")
        torch.manual_seed(0)
        backbone = configuration.Sam2HieraDetConfig(
            hidden_size=8,
            num_attention_heads=1,
            image_size=[64, 64],
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 1, 1, 1],
            window_size_per_stage=[8, 4, 4, 2],
            global_attention_blocks=[3],
        )
        vision = transformers.Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        )
        network = transformers.Sam2Model(
            transformers.Sam2Config(
                vision_config=vision,
                prompt_encoder_config=configuration.Sam2PromptEncoderConfig(
                    hidden_size=32, image_size=64, patch_size=16
                ),
                mask_decoder_config=configuration.Sam2MaskDecoderConfig(
                    hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
                ),
            )
        )
        size = {"height": 64, "width": 64}
        folder = tmp_path_factory.mktemp("sam2")
        network.save_pretrained(folder)
        prepared = transformers.Sam2ImageProcessor(size=size)
        transformers.Sam2Processor(prepared).save_pretrained(folder)
        return folder

    IMAGE = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(0))

    def find(
        self, weights: Path, *boxes: ObjectBox, points: tuple[ObjectPoint, ...] = ()
    ) -> Tensor:
        segmenter = hinted_segmenter("sam2", weights=weights)
        return segmenter.at(Hint(boxes, points)).probabilities(self.IMAGE)

    def test_the_best_of_three_masks_is_taken_within_the_box(self, weights: Path) -> None:
        transformers = pytest.importorskip("transformers")
        box = ObjectBox(10, 20, 50, 40)
        found = self.find(weights, box)
        network = transformers.Sam2Model.from_pretrained(weights).eval()
        processor = transformers.Sam2Processor.from_pretrained(weights)
        given = processor(
            images=self.IMAGE / self.IMAGE.max(),
            input_boxes=[[list(box[:4])]],
            do_rescale=False,
            return_tensors="pt",
        )
        sizes = given.pop("original_sizes")
        with torch.no_grad():
            result = network(**given)
        (masks,) = processor.post_process_masks(result.pred_masks, sizes, binarize=False)
        expected = masks[0, result.iou_scores[0, 0].argmax()].sigmoid()
        inside = torch.zeros_like(expected)
        inside[19:41, 8:52] = 1  # by 5 % of its sides larger
        assert torch.allclose(found[0], expected * inside, atol=1e-3)

    def test_several_objects_are_joined_and_points_are_read(self, weights: Path) -> None:
        boxes = ObjectBox(5, 5, 30, 30), ObjectBox(40, 10, 60, 45)
        one, other = (self.find(weights, box) for box in boxes)
        assert torch.allclose(self.find(weights, *boxes), torch.maximum(one, other), atol=1e-5)
        point = ObjectPoint(20, 20, 1)
        alone, beside = (self.find(weights, points=(point, ObjectPoint(60, 40, k))) for k in (0, 1))
        assert not torch.equal(alone, beside)
        assert not torch.equal(self.find(weights, boxes[0], points=(point,)), one)

    def test_the_hubs_folders_are_of_videos_and_others_are_refused(
        self, weights: Path, tmp_path: Path
    ) -> None:
        for file in weights.iterdir():
            shutil.copy(file, tmp_path)
        config = tmp_path / "config.json"
        written = json.loads(config.read_text())
        config.write_text(json.dumps(written | {"model_type": "sam2_video"}))
        box = ObjectBox(5, 5, 30, 30)
        assert torch.equal(self.find(tmp_path, box), self.find(weights, box))
        config.write_text(json.dumps(written | {"model_type": "sam"}))
        with pytest.raises(ValueError, match="of the type 'sam', not a SAM 2"):
            self.find(tmp_path, box)
        with pytest.raises(ValueError, match="leave out one: --weights or --download"):
            hinted_segmenter("sam2", weights=weights, download=True)
