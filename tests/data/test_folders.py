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


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("K\u00e4se/\u00fc.png", "Ka\u0308se/u\u0308.png"),
        ("Ka\u0308se/u\u0308.png", "K\u00e4se/\u00fc.png"),
        ("a/Scan.JPG", "a/scan.png"),
        ("a/1.jpg", "a/1_mask.png"),
        ("a/1.jpg", "A/1_Mask.PNG"),
        ("a/1_mask.jpg", "a/1_mask.png"),
    ],
)
def test_names_of_masks_that_are_spelt_otherwise(tmp_path, image, mask):
    images, masks = make(tmp_path / "images", image), make(tmp_path / "masks", mask)
    assert from_folders(images, masks)[0][0].mask == masks / mask


def test_the_same_name_goes_before_a_similar_one(tmp_path):
    images = make(tmp_path / "images", "a/X.png", "a/x.png", "a/y.png")
    masks = make(tmp_path / "masks", "a/X.png", "a/x.png", "a/y.png")
    assert [s.mask.name for s in from_folders(images, masks)[0]] == ["X.png", "x.png", "y.png"]
    (masks / "a/X.png").unlink()
    assert from_folders(images, masks)[0][0].mask is None


def test_what_is_passed_over_is_named(tmp_path, caplog):
    images = make(tmp_path / "images", "a/1.png", "b/1.png", "b/2.png")
    (images / "empty" / "inside").mkdir(parents=True)
    (images / "a" / "scan").write_bytes(b"")
    (images / "a" / "film.gif").write_bytes(b"")
    masks = make(tmp_path / "masks", "a/1.png", "b/1.png", "b/9.png")
    from_folders(images, masks)
    files, folders, orphans = (record.getMessage() for record in caplog.records)
    assert "film.gif" in files
    assert files.endswith("scan")
    assert folders.startswith("1 folders of classes")
    assert folders.endswith("empty")
    assert orphans.startswith("1 of 3 masks")
    assert orphans.endswith("b/9.png")


def test_files_without_a_suffix_are_images_if_they_begin_as_one(tmp_path, caplog):
    for name, kind in (("IM1", "png"), ("IM2", "jpeg"), ("IM3", "tiff")):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 5), 51, np.uint8)).save(tmp_path / "a" / name, format=kind)
    for name in ("IM4", "DICOMDIR"):
        (tmp_path / "a" / name).write_bytes(bytes(128) + b"DICM")
    for name, content in (("README", b"BMP files"), ("LICENSE", b""), ("NOTES", b"II*\0")):
        (tmp_path / "a" / name).write_bytes(content)
    samples, _ = from_folders(tmp_path)
    assert [sample.image.name for sample in samples] == ["IM1", "IM2", "IM3", "IM4"]
    assert [tuple(sample.read_image().shape) for sample in samples[:3]] == [(1, 4, 5)] * 3
    (record,) = caplog.records
    for name in ("DICOMDIR", "README", "LICENSE", "NOTES"):
        assert f"{tmp_path / 'a' / name}" in record.getMessage()


def test_nothing_is_said_of_a_complete_folder(tmp_path, caplog):
    images, masks = (make(tmp_path / kind, "a/x/1.png", "b/.2.png", "b/3.png") for kind in "im")
    for name in ("masks.csv", "review.html"):  # as faster-isnet segment writes them
        (masks / name).write_text("")
    from_folders(images, masks)
    assert not caplog.records


def test_links_are_followed(tmp_path):
    elsewhere = make(tmp_path / "elsewhere", "cat/1.png", "single/2.png")
    images = tmp_path / "images"
    (images / "dog").mkdir(parents=True)
    (images / "cat").symlink_to(elsewhere / "cat")
    (images / "dog" / "2.png").symlink_to(elsewhere / "single" / "2.png")
    (tmp_path / "masks").symlink_to(images)
    samples, names = from_folders(images, tmp_path / "masks")
    assert names == ["cat", "dog"]
    assert [s.image for s in samples] == [images / "cat/1.png", images / "dog/2.png"]
    assert all(s.mask is not None for s in samples)


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
        masks = make(tmp_path / "masks", "a/1_other.png")
        with pytest.raises(ValueError, match=r"none of the 1 masks in .*1_other.png.*1.jpg"):
            from_folders(images, masks)

    def test_most_masks_fit_no_image(self, tmp_path):
        images = make(tmp_path / "images", "a/1.jpg", "a/2.jpg")
        masks = make(tmp_path / "masks", "a/1.png", "b/2.png", "b/3.png")
        with pytest.raises(ValueError, match=r"only 1 of the 3 masks in .*b/2.png.*a/1.jpg"):
            from_folders(images, masks)

    def test_masks_of_images_that_are_not_asked_for_are_no_fault(self, tmp_path, caplog):
        names = [f"a/{i}.png" for i in range(5)]
        images, masks = make(tmp_path / "images", *names), make(tmp_path / "masks", *names)
        found = add_mask_folder([Sample(images / names[0])], images, masks)
        assert found[0].mask == masks / names[0]
        assert not caplog.records

    def test_a_link_to_a_folder_around_it(self, tmp_path):
        root = make(tmp_path, "a/1.png")
        (root / "a" / "again").symlink_to(root)
        with pytest.raises(ValueError, match=r"again' is a link to a folder around it"):
            from_folders(root)

    @pytest.mark.parametrize("names", [["Cat/1.png", "cat/1.png"], ["1/a.png", "01/a.png"]])
    def test_classes_that_differ_only_in_how_they_are_written(self, tmp_path, names):
        with pytest.raises(ValueError, match=r"class folders of .*write them the same"):
            from_folders(make(tmp_path, *names))

    def test_two_masks_of_one_image(self, tmp_path):
        images = make(tmp_path / "images", "a/1.jpg")
        masks = make(tmp_path / "masks", "a/1.png", "a/1.tif")
        with pytest.raises(ValueError, match=r"1.png.* and .*1.tif.*keep one"):
            from_folders(images, masks)
