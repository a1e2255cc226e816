from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from faster_isnet.data.coco import from_coco
from faster_isnet.data.samples import Sample

LEFT = [[0, 0, 2, 0, 2, 4, 0, 4]]
TOP = {"size": [4, 6], "counts": [0, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3]}


def write(folder: Path, **changes: object) -> Path:
    content = {
        "images": [
            {"id": 7, "file_name": "a/1.png", "height": 4, "width": 6},
            {"id": 8, "file_name": "2.png", "height": 4, "width": 6},
        ],
        "categories": [{"id": 1, "name": "lung"}, {"id": 2, "name": "heart"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "segmentation": LEFT},
            {"image_id": 7, "category_id": 2, "segmentation": TOP},
            {"image_id": 8, "category_id": 2, "bbox": [1, 1, 3, 2]},
        ],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content | changes))
    return path


def samples(*names: str) -> list[Sample]:
    return [Sample(Path("/data", name), label=0) for name in names]


def read(sample: Sample) -> torch.Tensor:
    mask = sample.read_mask((4, 6))
    assert mask is not None
    return mask[0]


def test_annotations_of_an_image_are_joined(tmp_path):
    first, second, third = from_coco(write(tmp_path), samples("x/a/1.png", "y/2.png", "b/1.png"))
    expected = torch.zeros(4, 6)
    expected[:, :2] = expected[0] = 1
    assert torch.equal(read(first), expected)
    box = torch.zeros(4, 6)
    box[1:3, 1:4] = 1
    assert torch.equal(read(second), box)
    assert third.mask is None


def test_named_categories_only(tmp_path):
    first, second = from_coco(write(tmp_path), samples("a/1.png", "2.png"), ["lung"])
    expected = torch.zeros(4, 6)
    expected[:, :2] = 1
    assert torch.equal(read(first), expected)
    assert second.mask is None


def test_existing_masks_are_kept(tmp_path):
    mine = Sample(Path("2.png"), mask=Path("mine.png"))
    assert from_coco(write(tmp_path), [mine]) == [mine]


def test_an_image_of_another_size(tmp_path):
    sample = from_coco(write(tmp_path), samples("2.png"))[0]
    with pytest.raises(
        ValueError, match=r"2.png' has 5 rows of 6 pixels, but its mask.* 4 rows of 6"
    ):
        sample.read_mask((5, 6))


def test_merged_files_are_joined(tmp_path):
    path = write(
        tmp_path,
        images=[{"id": i, "file_name": "2.png", "height": 4, "width": 6} for i in (7, 8)],
        categories=[{"id": i, "name": "lung"} for i in (1, 2)],
        annotations=[
            {"image_id": 7, "category_id": 1, "segmentation": LEFT},
            {"image_id": 8, "category_id": 2, "segmentation": TOP},
        ],
    )
    expected = torch.zeros(4, 6)
    expected[:, :2] = expected[0] = 1
    for categories in ([], ["lung"]):
        assert torch.equal(read(from_coco(path, samples("2.png"), categories)[0]), expected)


def test_annotated_images_that_are_no_sample_are_counted(tmp_path, caplog):
    from_coco(write(tmp_path), samples("2.png"))
    assert "1 of 2 annotated images" in caplog.text
    assert "a/1.png" in caplog.text


class TestFaults:
    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file .*gone.json"):
            from_coco(tmp_path / "gone.json", samples("2.png"))

    @pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"images": [{"id": 1}]}'])
    def test_not_coco(self, tmp_path, content):
        path = tmp_path / "broken.json"
        path.write_text(content)
        with pytest.raises(
            ValueError, match=r"cannot read .*broken.json' as COCO.*it needs images"
        ):
            from_coco(path, samples("2.png"))

    def test_annotations_of_no_image(self, tmp_path):
        path = write(tmp_path, annotations=[{"image_id": 9, "segmentation": LEFT}])
        with pytest.raises(ValueError, match=r"coco.json.*image_id \[9\]"):
            from_coco(path, samples("2.png"))

    def test_unknown_category(self, tmp_path):
        with pytest.raises(ValueError, match=r"category of .*coco.json.*did you mean 'lung'"):
            from_coco(write(tmp_path), samples("2.png"), ["lungs"])

    def test_no_annotations(self, tmp_path):
        with pytest.raises(ValueError, match=r"coco.json' has no annotations"):
            from_coco(write(tmp_path, annotations=[]), samples("2.png"))

    def test_of_no_sample(self, tmp_path):
        with pytest.raises(ValueError, match=r"no sample's path ends with .*coco.json.*a/1.png"):
            from_coco(write(tmp_path), samples("b/1.png"))

    def test_of_two_samples(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"'2.png', which both '/data/a/2.png' and '/data/b/2.png'"
        ):
            from_coco(write(tmp_path), samples("a/2.png", "b/2.png"))

    def test_a_broken_segment_names_its_image(self, tmp_path):
        bad = [{"id": 77, "image_id": 8, "segmentation": {"size": [4, 6]}}]
        with pytest.raises(
            ValueError, match=r"annotation id 77 of .*coco.json', of '2.png': not a polygon"
        ):
            from_coco(write(tmp_path, annotations=bad), samples("2.png"))

    @pytest.mark.parametrize(
        "shape",
        [
            {"bbox": [0, 0, 1e12, 1e12]},
            {"bbox": ["0", "0", "2", "2"]},
            {"bbox": [0, 0, 2]},
            {"bbox": [0, 0, 0, 2]},
            {"bbox": [0, 0, float("nan"), 2]},
            {"bbox": [0.1, 0.1, 0.5, 0.5]},
            {"bbox": None},
            {"bbox": 10**400},
            {"bbox": [10**400, 0, 0.5, 1]},
            {},
            {"segmentation": [[0, 0, 1e12, 0, 1e12, 1e12]]},
            {"segmentation": [[0, 0, 10**400, 0, 2, 2]]},
            {"segmentation": [[0, 0, float("inf"), 0, 2, 2]]},
            {"segmentation": [[0, 0, float("nan"), 0, 2, 2]]},
            {"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]]},
            {"segmentation": [[0, 0, 2, 0, 2]]},
            {"segmentation": [[0, 0, 2, 0]]},
            {"segmentation": [[]]},
            {"segmentation": [0, 0, 2, 0, 2, 2]},
            {"segmentation": [["0", "0", "2", "0", "2", "2"]]},
            {"segmentation": [[True, 0, 2, 0, 2, 2]]},
            {"segmentation": [[0, 0, 2, 0, 2, 2], None]},
            {"segmentation": "polygon"},
            {"segmentation": 5},
            {"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}},
            {"segmentation": {"size": [4, 6], "counts": [5, 5]}},
            {"segmentation": {"size": [4, 6], "counts": [25]}},
            {"segmentation": {"size": [4, 6], "counts": [-1, 25]}},
            {"segmentation": {"size": [4, 6], "counts": [24.0]}},
            {"segmentation": {"size": [6, 4], "counts": [24]}},
            {"segmentation": {"size": 4, "counts": [24]}},
            {"segmentation": {"counts": [24]}},
            {"segmentation": {"size": [4, 6], "counts": "\u00e4"}},
            {"segmentation": {"size": [4, 6], "counts": "o"}},
            {"segmentation": {"size": [4, 6], "counts": "0"}},
            {"segmentation": {"size": [4, 6], "counts": ""}},
            {"segmentation": {"size": [4, 6], "counts": 24}},
        ],
    )
    def test_annotations_that_cannot_be_are_named_by_their_id(self, tmp_path, shape):
        path = write(tmp_path, annotations=[{"id": 77, "image_id": 8, **shape}])
        with pytest.raises(ValueError, match=r"annotation id 77 of .*coco.json', of '2.png': "):
            from_coco(path, samples("2.png"))

    @pytest.mark.parametrize("size", [(10**6, 10**6), (0, 4), (-4, -6)])
    def test_sizes_that_no_image_has(self, tmp_path, size):
        image = {"id": 8, "file_name": "2.png", "height": size[0], "width": size[1]}
        with pytest.raises(ValueError, match=rf"coco.json.*height and width are {size[0]} and"):
            from_coco(write(tmp_path, images=[image], annotations=[]), samples("2.png"))

    def test_an_id_of_two_images(self, tmp_path):
        images = [{"id": 8, "file_name": n, "height": 4, "width": 6} for n in ("1.png", "2.png")]
        with pytest.raises(ValueError, match=r"id 8 is that of both '1.png' and '2.png'"):
            from_coco(write(tmp_path, images=images), samples("2.png"))

    def test_an_image_of_two_sizes(self, tmp_path):
        images = [{"id": i, "file_name": "2.png", "height": 4, "width": i} for i in (7, 8)]
        with pytest.raises(ValueError, match=r"'2.png' is there with the sizes \[4, 7\] and"):
            from_coco(write(tmp_path, images=images), samples("2.png"))
