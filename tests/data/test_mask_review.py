"""Decisions about masks: which samples they are of, and what becomes of these."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from faster_isnet.data import ImageData, MaskReview, Sample
from toy_runs import write_images


def samples(*names: str) -> list[Sample]:
    return [Sample(Path(name), 0, mask=Path("masks", name)) for name in names]


def unmasked(found: list[Sample]) -> list[str]:
    return [sample.name for sample in found if sample.mask is None]


def test_masks_that_are_refused_are_not_used():
    given = samples("data/a.png", "data/b.png", "data/c.png", "data/d.png")
    review = MaskReview({"a.png": "accept", "b.png": "reject", "c.png": "draw"})
    found = review.apply(given)
    assert unmasked(found) == ["data/b.png", "data/c.png"]
    assert [sample.name for sample in found] == [sample.name for sample in given]
    assert review.rejected(found) == {"data/b.png"}


def test_an_image_is_found_by_the_end_of_its_path_in_whole_parts():
    given = samples("data/cats/1.png", "data/dogs/1.png", "data/dogs/11.png")
    assert unmasked(MaskReview({"dogs/1.png": "draw"}).apply(given)) == ["data/dogs/1.png"]
    with pytest.raises(ValueError, match=r"'1.png' of the mask review may be 'data/cats/1.png' or"):
        MaskReview({"1.png": "draw"}).apply(given)
    # The longer end is the more exact one.
    both = MaskReview({"dogs/1.png": "draw", "data/cats/1.png": "accept", "11.png": "accept"})
    assert unmasked(both.apply(given)) == ["data/dogs/1.png"]


def test_a_review_of_other_images_is_an_error_and_of_some_a_warning(caplog):
    with pytest.raises(ValueError, match=r"none of the 1 images .* such as 'b.png'"):
        MaskReview({"b.png": "draw"}).apply(samples("a.png"))
    with caplog.at_level(logging.WARNING):
        MaskReview({"a.png": "draw", "b.png": "draw"}).apply(samples("a.png"))
    assert "1 of the 2 images of the mask review are not among the data, such as 'b.png'" in (
        caplog.text
    )


def test_a_table_is_read_and_checked(tmp_path):
    path = tmp_path / "review.csv"
    path.write_text("image,mask,decision\n'=a.png,'=a.png,draw\n\"a,b.png\",x.png,accept\n")
    assert MaskReview.load(path) == MaskReview({"=a.png": "draw", "a,b.png": "accept"})
    for text, message in (
        ("image,mask\na.png,a.png\n", "has no column 'decision'"),
        ("image,decision\na.png,maybe\n", "unknown decision 'maybe'"),
        ("image,decision\na.png,draw\na.png,reject\n", "two decisions on 'a.png'"),
        ("image,decision\n", "has no rows"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            MaskReview.load(path)
    with pytest.raises(FileNotFoundError, match="no table"):
        MaskReview.load(tmp_path / "none.csv")


def test_rejected_images_are_left_out_of_training_and_keep_no_mask_in_tests(tmp_path, caplog):
    write_images(tmp_path / "images")
    options = {"masks": tmp_path / "masks", "size": 24, "seed": 1}
    whole = ImageData(tmp_path / "images", **options)
    names = {split: [s.name for s in whole.datasets[split].samples] for split in whole.datasets}
    rejected = {split: names[split][:2] for split in names}
    lines = [
        f"{Path(name).relative_to(tmp_path / 'images')},reject"
        for split in names
        for name in rejected[split]
    ]
    path = tmp_path / "review.csv"
    path.write_text("\n".join(["image,decision", *lines]))
    with caplog.at_level(logging.WARNING):
        data = ImageData(tmp_path / "images", **options, mask_review=path)
        now = {split: [s.name for s in data.datasets[split].samples] for split in data.datasets}
    assert now["train"] == names["train"][2:]
    assert now["val"] == names["val"][2:]
    assert now["test"] == names["test"]
    assert set(rejected["test"]) <= set(data.unmasked_images("test"))
    data.unaugmented("train")
    said = f"2 of the {len(names['train'])} images of 'train' are left out"
    assert caplog.text.count(said) == 1
    assert data.record_division() == whole.record_division()
