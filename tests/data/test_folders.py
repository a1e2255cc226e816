from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faster_isnet.data.folders import add_mask_folder, from_folders
from faster_isnet.data.samples import Sample


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 3), 200, np.uint8)).save(path)
    return root


def test_classes_by_folder(tmp_path):
    root = make(tmp_path, "dog/2.png", "cat/a/1.jpg", "cat/.hidden.png", ".trash/cat/3.png")
    (root / "cat" / "notes.txt").write_text("no image")
    samples, names = from_folders(root)
    assert names == ["cat", "dog"]
    assert samples == [Sample(root / "cat/a/1.jpg", 0), Sample(root / "dog/2.png", 1)]


def test_splits_above_the_classes(tmp_path):
    root = make(tmp_path, "train/b/1.png", "train/a/1.png", "test/b/2.png")
    samples, names = from_folders(root)
    assert names == ["a", "b"]
    assert {(s.split, names[s.label]) for s in samples} == {
        ("train", "a"),
        ("train", "b"),
        ("test", "b"),
    }


def test_masks_in_a_parallel_folder(tmp_path):
    images = make(tmp_path / "images", "a/1.jpg", "a/2.jpg", "b/1.tif")
    masks = make(tmp_path / "masks", "a/1.png", "b/1.png")
    samples, _ = from_folders(images, masks)
    assert [s.mask for s in samples] == [masks / "a/1.png", None, masks / "b/1.png"]
    kept = Sample(images / "a/1.jpg", mask=Path("other.png"))
    assert add_mask_folder([kept, *samples[1:]], images, masks)[0].mask == Path("other.png")


def test_indices_of_given_classes(tmp_path):
    root = make(tmp_path, "b/1.png")
    samples, names = from_folders(root, class_names=["c", "b", "a"])
    assert names == ["c", "b", "a"]
    assert samples[0].label == 1


class TestFaults:
    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder .*gone.*correct its name"):
            from_folders(tmp_path / "gone")

    def test_no_images(self, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(ValueError, match=r"no images; their names must end in .png"):
            from_folders(tmp_path)

    @pytest.mark.parametrize("names", [["1.png"], ["train/1.png", "train/a/2.png"]])
    def test_an_image_outside_of_the_classes(self, tmp_path, names):
        with pytest.raises(ValueError, match=r"1.png' lies in no class folder; move it to .*CLASS"):
            from_folders(make(tmp_path, *names))

    def test_splits_beside_classes(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"has \['cat'\] beside the splits \['train'\]; put all"
        ):
            from_folders(make(tmp_path, "train/cat/1.png", "cat/1.png"))

    def test_unknown_class(self, tmp_path):
        with pytest.raises(ValueError, match=r"class of .*dgo.*did you mean 'dog'"):
            from_folders(make(tmp_path, "dgo/1.png"), class_names=["cat", "dog"])

    def test_masks_that_fit_no_image(self, tmp_path):
        images = make(tmp_path / "images", "a/1.jpg")
        masks = make(tmp_path / "masks", "a/1_mask.png")
        with pytest.raises(ValueError, match=r"none of the masks in .*1_mask.png.*1.jpg"):
            from_folders(images, masks)

    def test_two_masks_of_one_image(self, tmp_path):
        images = make(tmp_path / "images", "a/1.jpg")
        masks = make(tmp_path / "masks", "a/1.png", "a/1.tif")
        with pytest.raises(ValueError, match=r"1.png.* and .*1.tif.*keep one"):
            from_folders(images, masks)
