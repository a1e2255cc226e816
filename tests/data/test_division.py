"""A recorded division puts every image where it was, whatever the folder holds later."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faster_isnet.data import Division, ImageData, Sample
from faster_isnet.data.samples import relabel
from faster_isnet.data.splits import Fold

NAMES = ["cat", "dog"]


def write(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 12)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label, name in enumerate(NAMES):
        for number in range(12):
            write(tmp_path / "images" / name / f"{number}.png", 100 * label + number)
    return tmp_path / "images"


def data(folder: Path, division: Path | None = None, **options: object) -> ImageData:
    return ImageData(folder, size=12, division=division, **options)


def record(folder: Path) -> Path:
    path = folder.parent / "division.json"
    data(folder).record_division().save(path)
    return path


def members(of: ImageData, folder: Path) -> dict[str, set[str]]:
    return {
        name: {str(Path(sample.name).relative_to(folder)) for sample in found.samples}
        for name, found in of.datasets.items()
    }


def test_one_more_image_changes_no_split(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before, path = members(data(folder), folder), record(folder)
    write(folder / "cat" / "000.png", 999)
    assert members(data(folder), folder) != before  # the fault that the record is for
    with caplog.at_level(logging.WARNING):
        assert members(data(folder, path), folder) == before
    assert "cat/000.png" in caplog.text
    assert "new_images" in caplog.text


@pytest.mark.parametrize("is_old", [False, True])
def test_a_fold_is_not_that_of_another_division(folder: Path, is_old: bool) -> None:
    path = record(folder)
    if is_old:  # as before there were folds
        content = json.loads(path.read_text())
        del content["settings"]["fold"]
        path.write_text(json.dumps(content))
    data(folder, path).setup()
    with pytest.raises(ValueError, match=r"fold is \{'number': 0, 'of': 2\}, but .* with None"):
        data(folder, path, fold=Fold(0, 2)).setup()


def test_a_record_of_nothing_new_warns_of_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = record(folder)
    data(folder, path).setup()
    assert not caplog.records


def test_validation_images_taken_from_the_training_ones_are_not_said_to_be_moved(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = sorted(folder.rglob("*.png"))
    rows = [
        f"{image},{image.parent.name},{'test' if number % 4 == 0 else 'train'}"
        for number, image in enumerate(images)
    ]
    table = folder.parent / "images.csv"
    table.write_text("\n".join(["image,label,split", *rows]))
    path = folder.parent / "division.json"
    data(table).record_division().save(path)
    found = data(table, path)
    found.setup()
    assert found.datasets["val"].samples
    assert not caplog.records


def test_recorded_images_of_additional_data_are_not_said_to_be_in_another_split(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder.parent / "other" / "cat" / "0.png", 1000)
    additional = {"test_sources": {"other": folder.parent / "other"}}
    path = folder.parent / "division.json"
    data(folder, **additional).record_division().save(path)
    found = data(folder, path, **additional)
    found.setup()
    assert [sample.split for sample in found.datasets["other"].samples] == ["other"]
    assert not caplog.records


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_new_images_go_where_the_user_says(folder: Path, split: str) -> None:
    before, path = members(data(folder), folder), record(folder)
    write(folder / "cat" / "000.png", 999)
    after = members(data(folder, path, new_images=split), folder)
    assert after.pop(split) == before.pop(split) | {"cat/000.png"}
    assert after == before


def test_renumbered_files_are_recognised_by_their_content(folder: Path) -> None:
    """After the first file was deleted and the others moved up, each content keeps its split."""
    before, path = members(data(folder), folder), record(folder)
    (folder / "cat" / "0.png").unlink()
    for number in range(1, 12):
        (folder / "cat" / f"{number}.png").rename(folder / "cat" / f"{number - 1}.png")
    moved = {f"cat/{n}.png": f"cat/{n - 1}.png" for n in range(1, 12)}
    expected = {
        split: {moved.get(name, name) for name in names if name != "cat/0.png"}
        for split, names in before.items()
    }
    assert members(data(folder, path), folder) == expected


def test_changed_and_missing_files_are_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, path = members(data(folder), folder), record(folder)
    changed, missing = sorted(before["test"])[0], sorted(before["train"])[0]
    write(folder / changed, 999)
    (folder / missing).unlink()
    after = members(data(folder, path), folder)
    assert after["test"] == before["test"] - {changed}
    assert after["train"] == before["train"] - {missing}
    assert "with another content than in the run's division (left out): 1" in caplog.text
    assert changed in caplog.text
    assert f"not there any more: 1\n  {missing}" in caplog.text
    assert members(data(folder, path, new_images="train"), folder)["test"] == before["test"]


def test_a_training_image_under_another_name_stays_one(folder: Path) -> None:
    before, path = members(data(folder), folder), record(folder)
    name = sorted(before["train"])[0]
    shutil.move(folder / name, folder / name.replace(".png", "-renamed.png"))
    shutil.move(folder.parent / "images", folder.parent / "elsewhere")
    moved = folder.parent / "elsewhere"
    after = members(data(moved, path, new_images="test"), moved)
    assert after["train"] == before["train"] - {name} | {name.replace(".png", "-renamed.png")}


def test_a_copy_of_a_training_image_in_additional_data_is_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = record(folder)
    trained = sorted(members(data(folder), folder)["train"])[0]
    other = folder.parent / "other"
    for name in NAMES:
        write(other / name / "unseen.png", 555 + len(name) + ord(name[0]))
    shutil.copy(folder / trained, other / "cat" / "copy.png")
    found = data(folder, path, test_sources={"other": other})
    assert {Path(s.name).name for s in found.datasets["other"].samples} == {"unseen.png"}
    assert "that the run was trained on (left out): 1" in caplog.text


def test_the_split_of_the_run_goes_before_that_of_the_table(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = record(folder)
    before = members(data(folder), folder)
    rows = [f"{n},{n.split('/')[0]},test" for names in before.values() for n in sorted(names)]
    table = folder / "table.csv"
    table.write_text("\n".join(["image,label,split", *rows]))
    assert members(data(table, path), folder) == before
    assert "put into another split" in caplog.text


def test_other_labels_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = record(folder)
    (folder / "cat" / "0.png").rename(folder / "dog" / "was-a-cat.png")
    data(folder, path).setup()
    assert "with other labels than in the run's division (today's are used): 1" in caplog.text


def test_other_settings_of_the_split_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="seed is 1, but the run's data were divided with 0"):
        data(folder, record(folder), seed=1).setup()


def test_new_images_without_a_record_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no division is given"):
        data(folder, new_images="test")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "images": 3}'])
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "division.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"division\.json' is no division of a run"):
        Division.load(path)


def test_a_record_is_merged_with_that_of_more_images(folder: Path) -> None:
    path = record(folder)
    old = Division.load(path)
    write(folder / "cat" / "0.png", 999)
    write(folder / "cat" / "000.png", 998)
    merged = data(folder, path, new_images="train").record_division()
    contents = {image.sha256 for images in merged.images.values() for image in images}
    assert len(contents) == 26  # 24, the changed file and the new one
    assert {i.sha256 for images in old.images.values() for i in images} < contents
    merged.save(path)
    assert members(data(folder, path), folder)["train"] >= {"cat/000.png"}


def test_classes_get_the_order_of_the_network(folder: Path) -> None:
    found = data(folder)
    found.match_classes(["dog", "cat"])
    assert found.class_names == ["dog", "cat"]
    for samples in found.datasets.values():
        for sample in samples.samples:
            assert found.class_names[sample.label] == Path(sample.name).parent.name


def test_other_classes_are_refused_with_both_lists(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"\['cat', 'dog'\].*\['cat', 'horse'\]"):
        data(folder).match_classes(["cat", "horse"])


def test_multi_label_samples_are_relabelled() -> None:
    samples = [Sample(Path("a"), (1, 0, 0)), Sample(Path("b"), (0, 1, 1)), Sample(Path("c"))]
    labels = [each.label for each in relabel(samples, ["a", "b", "c"], ["c", "a", "b"])]
    assert labels == [(0, 1, 0), (1, 0, 1), None]
