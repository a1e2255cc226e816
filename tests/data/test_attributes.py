"""What the background of each image shows, from every kind of data to the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_ATTRIBUTE
from faster_isnet.data.backgrounds import ReplacedBackground
from faster_isnet.data.dataset import ImageDataset
from faster_isnet.data.digits import BIASES, BiasedDigits, BiasedDigitsData
from faster_isnet.data.hdf5 import from_hdf5
from faster_isnet.data.image_data import ImageData
from faster_isnet.data.planting import PlantedDataset, Planting
from faster_isnet.data.sample_tables import from_table
from faster_isnet.data.samples import Sample
from faster_isnet.data.sources import read_samples
from noise_images import Made

SCANNERS = ["philips", "", "ge", "philips", "ge", "siemens"]
NUMBERS = [1, NO_ATTRIBUTE, 0, 1, 0, 2]


def write_table(folder: Path, column: str = "attribute", values: list[str] = SCANNERS) -> Path:
    images = [f"{i}.png" for i in range(len(values))]
    for number, image in enumerate(images):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image)
    splits = ["train", "train", "train", "train", "val", "test"]
    columns = {"image": images, "label": ["cat", "dog"] * 3, "split": splits, column: values}
    path = folder / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def attributes_of(dataset: object) -> list[int]:
    batch = Batch.of(next(iter(DataLoader(dataset, 100))))  # type: ignore[arg-type]
    assert batch.attributes is not None
    assert batch.attributes.dtype == torch.int64
    return batch.attributes.tolist()


def test_a_column_of_a_table_is_read_as_text(tmp_path: Path) -> None:
    samples, _ = from_table(write_table(tmp_path))
    assert [sample.attribute for sample in samples] == [name or None for name in SCANNERS]
    samples, _ = from_table(write_table(tmp_path, "scanner"))
    assert {sample.attribute for sample in samples} == {None}
    samples, _ = read_samples(write_table(tmp_path, "scanner"), fields={"attribute": "scanner"})
    assert [sample.attribute for sample in samples] == [name or None for name in SCANNERS]


@pytest.mark.parametrize(
    ("value", "message"), [("N/A", "may be a missing value"), ("philips\u200b", "differ only in")]
)
def test_names_that_may_be_meant_otherwise_are_refused(
    tmp_path: Path, value: str, message: str
) -> None:
    path = write_table(tmp_path, values=[*SCANNERS[:5], value])
    with pytest.raises(ValueError, match=message):
        from_table(path)


def test_data_number_attributes_by_their_sorted_names_over_all_splits(tmp_path: Path) -> None:
    data = ImageData(write_table(tmp_path), size=8)
    assert data.attribute_names == ["ge", "philips", "siemens"]
    found = [attributes_of(data.datasets[name]) for name in ("train", "val", "test")]
    assert [number for part in found for number in part] == NUMBERS
    assert next(iter(data.train_dataloader()))[3].sum() == sum(NUMBERS[:4])


def test_all_items_of_a_data_module_have_one_length(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        image = Image.fromarray(np.full((9, 9), len(name) + ord(name[0]), np.uint8))
        image.save(tmp_path / "folder" / name / "a.png")
    data = ImageData(table, size=8, test_sources={"elsewhere": tmp_path / "folder"})
    assert attributes_of(data.datasets["elsewhere"]) == [NO_ATTRIBUTE] * 2
    alone = ImageData(tmp_path / "folder", size=8, fractions={"train": 1.0})
    assert alone.attribute_names == []
    assert len(alone.datasets["train"][0]) == 3


def test_a_planted_mark_goes_before_a_column(tmp_path: Path) -> None:
    data = ImageData(write_table(tmp_path), size=40, planting=Planting(size=0.3))
    assert data.attribute_names == ["cat", "dog"]
    for name, expected in {
        "train": [0, 1, 0, 1],
        "val": [0],
        "test-biased": [1],
        "test-deceiving": [0],
    }.items():
        assert attributes_of(data.datasets[name]) == expected
    assert len(data.datasets["test"][0]) == 3  # no mark, and the column is another attribute


def test_names_that_a_data_set_does_not_know_are_refused() -> None:
    samples = [Sample(Path("a.png"), 0, attribute="ge"), Sample(Path("b.png"), 1, attribute="x")]
    with pytest.raises(ValueError, match=r"attributes \['x'\], which are not among .*\['ge'\]"):
        ImageDataset(samples, (8, 8), attributes=["ge"])


@pytest.mark.parametrize("bias", BIASES)
def test_attributes_of_digits_are_the_marks_that_are_seen(bias: str) -> None:
    labels = torch.arange(30) % 10
    digits = BiasedDigits(torch.zeros(30, 28, 28), labels, bias=bias, correlation=0.5)
    seen = []
    for image, *_ in digits:
        amber = [int(image[0, r + 2, c + 2] == 1 and image[2, r + 2, c + 2] == 0)
                 for r, c in digits.slots]  # fmt: skip
        seen.append(amber.index(1) if any(amber) else NO_ATTRIBUTE)
    assert attributes_of(digits) == seen
    assert (bias == "unbiased") == (set(seen) == {NO_ATTRIBUTE})


def test_digits_have_attributes_under_their_names_and_in_batches() -> None:
    data = BiasedDigitsData(train_size=40, val_size=20, test_size=10, correlation=0.0)
    for dataset, loader in (
        (data.datasets["train"], data.train_dataloader()),
        (data.datasets["val"], data.val_dataloader()),
    ):
        labels = torch.stack([item[1] for item in dataset])
        assert not (torch.tensor(attributes_of(dataset)) == labels).any()
        images, labels, _, attributes = next(iter(loader))
        assert attributes.shape == labels.shape == images.shape[:1]
        assert not (attributes == labels).any()


def test_replaced_backgrounds_have_no_attribute() -> None:
    planted = PlantedDataset(Made(4, 2), Planting(), "biased", 2)
    assert len(planted[0]) == 4
    assert len(ReplacedBackground(planted, "zeros", [0, 1, 0, 1])[0]) == 3


@pytest.mark.parametrize(
    "values",
    [np.array([1, -1, 0, 1, 0, 2]), np.array([[1], [-1], [0], [1], [0], [2]])],
    ids=["numbers", "a column"],
)
def test_hdf5_with_numbers(tmp_path: Path, values: np.ndarray) -> None:
    samples = from_hdf5(write_hdf5(tmp_path, attributes=values))[0]
    assert [sample.attribute for sample in samples] == ["1", None, "0", "1", "0", "2"]


def test_hdf5_with_text_and_without(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, scanner=np.array(SCANNERS, dtype="S8"))
    assert from_hdf5(path)[0][0].attribute is None
    samples, _ = read_samples(path, fields={"attributes": "scanner"})
    assert [sample.attribute for sample in samples] == [name or None for name in SCANNERS]
    with pytest.raises(ValueError, match=r"data.h5:/x must be text or integers \[N\], got float"):
        from_hdf5(write_hdf5(tmp_path, x=np.zeros(6)), attributes="x")


def write_hdf5(folder: Path, **datasets: np.ndarray) -> Path:
    h5py = pytest.importorskip("h5py")
    path = folder / "data.h5"
    images = np.zeros((6, 5, 6), np.uint8)
    with h5py.File(path, "w") as file:
        for name, values in {"images": images, "labels": np.arange(6) % 2, **datasets}.items():
            file[name] = values
    return path
