from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import tifffile
from PIL import Image

from faster_isnet.data.dataset_report import Findings, check_samples
from faster_isnet.data.masks import Boxes
from faster_isnet.data.samples import Sample, classes_of
from faster_isnet.data.worse_masks import WorseMasks

CLASSES = ["cat", "dog"]


def save(path: Path, seed: int, shape: tuple[int, int] = (20, 30)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path: Path, value: int = 255, shape: tuple[int, int] = (20, 30)) -> Path:
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


@pytest.fixture
def good(tmp_path) -> list[Sample]:
    images = [save(tmp_path / f"{i}.png", i) for i in range(6)]
    mask = save_mask(tmp_path / "mask.png")
    splits = ["train", "train", "train", "val", "test", "test"]
    return [
        Sample(image, i % 2, mask if i < 4 else None, part)
        for i, (image, part) in enumerate(zip(images, splits, strict=True))
    ]


def test_counts(good):
    findings = check_samples(good, CLASSES)
    assert findings.samples == good
    assert findings.counts == {
        "train": {"cat": 2, "dog": 1},
        "val": {"cat": 0, "dog": 1},
        "test": {"cat": 1, "dog": 1},
    }
    assert findings.without_mask == [good[4].name, good[5].name]
    lines = [line.split() for line in str(findings).splitlines()]
    assert lines == [
        ["train", "val", "test"],
        ["cat", "2", "0", "1"],
        ["dog", "1", "1", "1"],
        ["images", "3", "1", "2"],
        ["4", "of", "6", "images", "have", "a", "mask"],
    ]


def test_masks_that_are_made_worse_are_reported(good):
    findings = check_samples(good, CLASSES)
    worse = WorseMasks(grow=0.1, missing=0.5)
    reported = findings.with_worse_masks(worse, None)
    assert "worse" not in str(findings)
    assert (
        "masks of train and val are made worse on purpose: grown by 0.1 of the side, missing for "
        f"50 % of the images; {len(reported.removed_masks)} are left out"
    ) in str(reported)
    assert findings.masked("train") == 3
    assert reported.masked("train") == 3 - 2  # round(1.5)
    assert reported.masked("test") == findings.masked("test")


def test_multi_label_classes_are_counted(good):
    labelled = [Sample(s.image, (1, 1), split="train") for s in good]
    assert check_samples(labelled, CLASSES).counts == {"train": {"cat": 6, "dog": 6}}


def test_empty_masks_and_missing_labels_are_named(good, tmp_path):
    empty = Sample(save(tmp_path / "e.png", 7), 0, save_mask(tmp_path / "empty.png", 0), "train")
    unlabelled = Sample(save(tmp_path / "u.png", 8), split="train")
    findings = check_samples([*good, empty, unlabelled], CLASSES)
    assert findings.empty_masks == [empty.name]
    assert findings.unlabelled == [unlabelled.name]
    assert "1 with a mask without foreground, which counts as none:\n  " + empty.name in str(
        findings
    )
    assert "1 without a label:\n  " + unlabelled.name in str(findings)
    assert check_samples([unlabelled], []).unlabelled == []


def test_duplicates_across_splits_are_named(good, tmp_path):
    pixels = np.array(Image.open(good[0].image))
    tifffile.imwrite(tmp_path / "same.tif", pixels)
    smaller = Image.open(good[3].image).resize((60, 40), Image.Resampling.BILINEAR)
    smaller.save(tmp_path / "near.png")
    tifffile.imwrite(tmp_path / "within.tif", pixels)
    findings = check_samples(
        [
            *good,
            Sample(tmp_path / "same.tif", 0, split="test"),
            Sample(tmp_path / "near.png", 1, split="train"),
            Sample(tmp_path / "within.tif", 0, split="train"),  # in the first one's own split
        ],
        CLASSES,
        allow_duplicates=True,
    )
    same, within = str(tmp_path / "same.tif"), str(tmp_path / "within.tif")
    assert findings.duplicates == [(good[0].name, same), (same, within)]
    assert findings.near_duplicates == [(good[3].name, str(tmp_path / "near.png"))]
    assert f"2 pairs of different splits with the same pixels:\n  {good[0].name} and" in str(
        findings
    )
    assert f"1 pairs of different splits that look the same:\n  {good[3].name} and" in str(findings)


def test_the_same_pixels_in_two_splits_stop(good, tmp_path):
    tifffile.imwrite(tmp_path / "same.tif", np.array(Image.open(good[0].image)))
    copy = Sample(tmp_path / "same.tif", good[0].label, split="test")
    with pytest.raises(
        ValueError, match=rf"(?s)1 pairs .*{good[0].name} and {copy.name}\n.*--allow-duplicates"
    ):
        check_samples([*good, copy], CLASSES)
    assert check_samples([*good, replace(copy, split="train")], CLASSES).duplicates == []


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_pixels_with_two_labels_stop(good, tmp_path, split, mode):
    Image.open(good[0].image).convert(mode).save(tmp_path / "again.png")
    again = Sample(tmp_path / "again.png", 1, split=split)
    with pytest.raises(
        ValueError, match=rf"(?s)different labels:.*{good[0].name} and {again.name}"
    ):
        check_samples([*good, again], CLASSES)
    findings = check_samples([*good, again], CLASSES, allow_duplicates=True)
    assert findings.contradictions == [(good[0].name, again.name)]
    assert "1 pairs with the same pixels and different labels" in str(findings)


def test_groups_that_splits_share_are_counted(good):
    groups = ["p1", "p2", "p2", "p3", "p1", "p2"]
    samples = [replace(s, group=g) for s, g in zip(good, groups, strict=True)]
    findings = check_samples(samples, CLASSES)
    assert findings.shared_groups == {("train", "test"): 2}
    assert "2 groups are in both 'train' and 'test'" in str(findings)
    assert "groups" not in str(check_samples(good, CLASSES))


def test_text_in_time_that_grows_with_the_images_not_with_images_times_classes():
    names = [str(i) for i in range(2000)]
    samples = [
        Sample(Path(f"{i}.png"), tuple(int(c == i) for c in range(2000))) for i in range(200)
    ]
    with patch("faster_isnet.data.dataset_report.classes_of", wraps=classes_of) as counted:
        str(Findings(samples, names))
    assert counted.call_count == len(samples)


@pytest.fixture
def bad(good, tmp_path) -> dict[str, Sample]:
    """A sample for each fault, by the name of the file to blame."""
    image = good[0].image
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "broken_mask.png").write_text("no image")
    small = save_mask(tmp_path / "small_mask.png", shape=(10, 30))
    return {
        "broken.png": Sample(tmp_path / "broken.png", 0),
        "gone.png": Sample(tmp_path / "gone.png", 0),
        "broken_mask.png": Sample(image, 0, tmp_path / "broken_mask.png"),
        "gone_mask.png": Sample(image, 0, tmp_path / "gone_mask.png"),
        "small_mask.png": Sample(image, 0, small),
        "0.png": Sample(image, 0, Boxes(((100, 0, 5, 5),))),
    }


@pytest.mark.parametrize(
    "name",
    ["broken.png", "gone.png", "broken_mask.png", "gone_mask.png", "small_mask.png", "0.png"],
)
def test_what_cannot_be_used_stops_or_is_left_out(good, bad, name):
    samples = [*good, bad[name]]
    with pytest.raises(ValueError, match=rf"(?s)1 of 7 samples .*{name}.*--skip-unreadable"):
        check_samples(samples, CLASSES)
    findings = check_samples(samples, CLASSES, skip_unreadable=True)
    assert findings.samples == good
    assert name in findings.unusable[bad[name].name]
    assert name in str(findings)


def test_sizes_that_misfit_are_named(good, bad):
    with pytest.raises(ValueError, match=r"has 20 rows of 30 pixels, but its mask.* 10 rows of 30"):
        check_samples([bad["small_mask.png"]], CLASSES)


def test_of_many_faults_ten_are_named(good, tmp_path):
    gone = [Sample(tmp_path / f"gone{i}.png", 0) for i in range(25)]
    with pytest.raises(ValueError, match=r"25 of 31 samples") as caught:
        check_samples([*good, *gone], CLASSES)
    assert str(caught.value).count("there is no file") == 10
    assert "… and 15 more" in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "side", "count", "words"),
    [
        (255, 10, 12, None),
        (255, 10, 9, None),
        (0, 10, 12, "12 of 12 masks have foreground on most of the image's border, as inverted"),
        (0, 10, 9, None),  # of so few, most are no rule
        (255, 38, 12, None),
        (255, 1, 12, "12 of 12 masks cover less than 0.1% of the image"),
    ],
)
def test_masks_that_can_hardly_be_right_are_named(
    tmp_path: Path, inside: int, side: int, count: int, words: str | None
) -> None:
    pixels = np.full((40, 40), 255 - inside, np.uint8)
    pixels[1 : 1 + side, 1 : 1 + side] = inside
    if side > 1:
        pixels[1, 1] = 255 - inside  # no rectangle
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    samples = [
        Sample(save(tmp_path / f"{i}.png", i, (40, 40)), i % 2, tmp_path / "mask.png", "train")
        for i in range(count)
    ]
    findings = check_samples(samples, CLASSES)
    if words is None:
        assert not findings.doubtful_masks
        assert "WARNING" not in str(findings)
    else:
        assert findings.doubtful_masks[0].startswith(words)
        assert f"WARNING: {words}" in str(findings)


def test_masks_that_are_boxes_are_named(tmp_path: Path) -> None:
    samples = [
        Sample(save(tmp_path / f"{i}.png", i), i % 2, Boxes(((4, 4, 9, 8),)), "train")
        for i in range(12)
    ]
    assert "WARNING: 12 of 12 masks looked at are rectangles" in str(
        check_samples(samples, CLASSES)
    )


def test_a_few_doubtful_masks_are_none_of_most(tmp_path: Path) -> None:
    inverted = save_mask(tmp_path / "all.png")
    pixels = np.zeros((20, 30), np.uint8)
    pixels[5:9, 5:9] = pixels[7, 3:12] = 255
    Image.fromarray(pixels).save(tmp_path / "right.png")
    masks = [inverted] * 6 + [tmp_path / "right.png"] * 6
    samples = [
        Sample(save(tmp_path / f"{i}.png", i), i % 2, mask, "train") for i, mask in enumerate(masks)
    ]
    assert not check_samples(samples, CLASSES).doubtful_masks
    samples[6] = replace(samples[6], mask=inverted)
    assert "7 of 12 masks" in str(check_samples(samples, CLASSES))
