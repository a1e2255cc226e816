from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from faster_isnet.common.checks import NO_MASK
from faster_isnet.common.resizing import STRETCHED, Resizing
from faster_isnet.data.dataset import ImageDataset, fit_image, fit_mask
from faster_isnet.data.image_data import ImageData
from faster_isnet.data.planting import PlantedDataset, Planting
from faster_isnet.data.seeded_sampling import SeededIndex
from faster_isnet.data.worse_masks import WorseMasks

h5py = pytest.importorskip("h5py")


def save(path: Path, seed: int, shape: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """40 cats and 20 dogs; half of the cats have a mask."""
    root = tmp_path_factory.mktemp("pets")
    for i in range(60):
        name = f"dog/{i}.png" if i < 20 else f"cat/{i}.png"
        save(root / "images" / name, i)
        if i >= 40:
            mask = np.zeros((12, 16), np.uint8)
            mask[3:9, 4:12] = 255
            path = root / "masks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    return root


def of_folder(folder: Path, **options: object) -> ImageData:
    return ImageData(folder / "images", size=8, batch_size=10, masks=folder / "masks", **options)


def write_table(folder: Path, **columns: list) -> Path:
    path = folder / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def names(data: ImageData, split: str) -> set[str]:
    return {sample.name for sample in data.datasets[split].samples}


class TestFolder:
    def test_what_it_knows_before_it_is_set_up(self, folder):
        data = of_folder(folder)
        assert data.class_names == ["cat", "dog"]
        assert data.num_classes == 2
        assert data.task == "multiclass"
        assert "datasets" not in vars(data)

    def test_batches(self, folder, capsys):
        data = of_folder(folder)
        data.setup("fit")
        assert "20 of 60 images have a mask" in capsys.readouterr().out
        assert {split: len(d) for split, d in data.datasets.items()} == {
            "train": pytest.approx(42, abs=2),
            "val": pytest.approx(9, abs=1),
            "test": pytest.approx(9, abs=1),
        }
        images, labels, masks = next(iter(data.train_dataloader()))
        assert images.shape == (10, 3, 8, 8)
        assert labels.dtype == torch.int64
        assert masks.shape == (10, 1, 8, 8)
        every = torch.cat([batch[2] for batch in data.train_dataloader()])
        assert set(every.unique().tolist()) == {NO_MASK, 0.0, 1.0}
        assert list(data.val_dataloader()) == ["val"]
        assert list(data.test_dataloader()) == ["test"]

    def test_only_training_images_are_shuffled_and_augmented(self, folder):
        data = of_folder(folder)

        def read(loader) -> list[torch.Tensor]:
            return torch.cat([images for images, _, _ in loader])

        val = data.val_dataloader()["val"]
        assert torch.equal(read(val), read(val))
        assert not torch.equal(read(data.train_dataloader()), read(data.train_dataloader()))
        plain = of_folder(folder, augmentation=None)
        rows = [sorted(read(plain.train_dataloader()).flatten(1).tolist()) for _ in range(2)]
        assert rows[0] == rows[1]

    def test_the_seed_decides_the_division_and_torch_the_rest(self, folder):
        def run(seed: int) -> tuple[set[str], torch.Tensor]:
            torch.manual_seed(0)
            data = of_folder(folder, seed=seed)
            return names(data, "test"), next(iter(data.train_dataloader()))[0]

        assert run(0)[0] == run(0)[0] != run(1)[0]
        assert torch.equal(run(0)[1], run(0)[1])

    def test_workers_read_the_same(self, folder):
        one, two = (
            torch.cat([batch[0] for batch in of_folder(folder, workers=n).val_dataloader()["val"]])
            for n in (0, 1)
        )
        assert torch.equal(one, two)

    def test_class_weights(self, folder):
        data = of_folder(folder)
        labels = np.array([sample.label for sample in data.datasets["train"].samples])
        theirs = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
        assert np.allclose(data.class_weights().numpy(), theirs)

    def test_balanced_sampling(self, folder):
        torch.manual_seed(0)
        data = of_folder(folder, balanced=True)
        drawn = torch.cat([batch[1] for _ in range(30) for batch in data.train_dataloader()])
        assert drawn.float().mean().item() == pytest.approx(0.5, abs=0.05)
        assert len(drawn) == 30 * len(data.datasets["train"])

    def test_further_data(self, folder, tmp_path):
        for i in range(4):
            save(tmp_path / "elsewhere" / f"{i}.png", 100 + i)
        table = write_table(
            tmp_path / "elsewhere", image=[f"{i}.png" for i in range(4)], label=["dog"] * 4
        )
        data = of_folder(
            folder,
            test_sources={"elsewhere": table},
            val_sources={"again": folder / "images"},
            allow_duplicates=True,
        )
        assert list(data.test_dataloader()) == ["test", "elsewhere"]
        assert list(data.val_dataloader()) == ["val", "again"]
        elsewhere = data.test_dataloader()["elsewhere"]
        assert [s.name for s in elsewhere.dataset.samples] == [
            str(table.parent / f"{i}.png") for i in range(4)
        ]
        assert torch.cat([labels for _, labels, _ in elsewhere]).tolist() == [1] * 4
        assert len(data.findings.duplicates) == 60  # all that are tested on "again"

    def test_trains(self, folder):
        class Linear(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(192, 2)
                self.seen = Counter()

            def training_step(self, batch, batch_idx):
                logits = self.layer(batch[0].flatten(1))
                return torch.nn.functional.cross_entropy(logits, batch[1])

            def validation_step(self, batch, batch_idx):
                self.seen["val"] += len(batch[0])

            def test_step(self, batch, batch_idx):
                self.seen["test"] += len(batch[0])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), 0.1)

        data, model = of_folder(folder), Linear()
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        assert model.seen == {name: len(data.datasets[name]) for name in ("val", "test")}


def test_data_for_a_trained_network(folder):
    data = ImageData(
        {"test": folder / "images"},
        size=8,
        masks=folder / "masks",
        class_names=["dog", "bird", "cat"],
    )
    assert list(data.datasets) == ["test"]
    assert data.class_names == ["dog", "bird", "cat"]
    labels = {Path(s.name).parent.name: s.label for s in data.datasets["test"].samples}
    assert labels == {"dog": 0, "cat": 2}
    assert sum(s.mask is not None for s in data.datasets["test"].samples) == 20


def test_one_label_for_each_image_of_several(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
    table = write_table(tmp_path, image=[f"{i}.png" for i in range(3)], label=["a", "b", ""])
    data = ImageData({"test": table}, size=8, class_names=["b", "a"], task="multilabel")
    assert data.task == "multilabel"
    assert [s.label for s in data.datasets["test"].samples] == [(0, 1), (1, 0), (0, 0)]


class TestPlanting:
    """Marks in the data of a module: where they are, and that nothing else differs."""

    def test_training_is_biased_and_there_are_three_tests(self, folder):
        planting = Planting("texture", size=0.4)
        plain = ImageData(folder / "images", size=32, augmentation=None).datasets
        data = ImageData(folder / "images", size=32, augmentation=None, planting=planting)
        assert list(data.test_dataloader()) == ["test", "test-biased", "test-deceiving"]
        for name, bias in {
            "train": "biased",
            "val": "biased",
            "test": "unbiased",
            "test-biased": "biased",
            "test-deceiving": "deceiving",
        }.items():
            below = plain[name.split("-")[0]]
            expected = PlantedDataset(below, planting, bias, 2)
            found = data.datasets[name]
            assert [s.name for s in found.samples] == [s.name for s in below.samples]
            for i in range(len(below)):
                assert torch.equal(found[i][0], expected[i][0])
        assert not torch.equal(data.datasets["train"][0][0], plain["train"][0][0])

    def test_further_data_stay_as_they_are(self, folder):
        sources = {"elsewhere": folder / "images"}
        data = ImageData(
            folder / "images",
            size=32,
            planting=Planting(size=0.4),
            test_sources=sources,
            allow_duplicates=True,
        )
        assert list(data.test_dataloader())[-1] == "elsewhere"
        assert isinstance(data.datasets["elsewhere"], ImageDataset)

    def test_one_label_each_and_names_of_their_own(self, folder, tmp_path):
        save(tmp_path / "0.png", 0)
        table = write_table(tmp_path, image=["0.png"] * 3, label=["a|b", "a", "b"])
        data = ImageData(
            {"test": table}, size=32, planting=Planting(size=0.4), allow_duplicates=True
        )
        with pytest.raises(ValueError, match="marks need one class per image"):
            data.setup()
        data = ImageData(folder / "images", test_sources={"test-biased": folder / "images"})
        with pytest.raises(ValueError, match="additional data are called 'test-biased'"):
            data.setup()

    @pytest.mark.parametrize("kind", ["shape", "stripes"])
    def test_the_correlation_is_of_training_and_validation_only(self, folder, kind):
        plantings = [Planting(kind, size=0.4, correlation=value) for value in (1.0, 0.0)]
        plain, never = (
            ImageData(folder / "images", size=32, augmentation=None, planting=planting).datasets
            for planting in plantings
        )
        for name in plain:
            of_all = zip(plain[name], never[name], strict=True)
            changed = [not torch.equal(one, other) for (one, *_), (other, *_) in of_all]
            assert changed == [name in ("train", "val")] * len(changed)


class TestWorseMasks:
    """Masks made worse: of which data sets, and that marks are planted by the exact ones."""

    def test_training_and_validation_only(self, folder):
        worse = WorseMasks(grow=0.2)
        sources = {"elsewhere": folder / "images"}
        options = {
            "augmentation": None,
            "test_sources": sources,
            "allow_duplicates": True,
        }
        plain, given = (
            of_folder(folder, worse_masks=masks, **options).datasets for masks in (None, worse)
        )
        for name in plain:
            masks = [
                (one, other)
                for (*_, one), (*_, other) in zip(plain[name], given[name], strict=True)
                if (one != NO_MASK).all()
            ]
            for one, other in masks:
                changed = not torch.equal(one, other)
                assert changed == (name in ("train", "val"))
        assert any((mask == 1).any() for *_, mask in given["train"])

    def test_missing_masks_are_counted_where_they_are_used(self, folder, capsys):
        data = of_folder(folder, worse_masks=WorseMasks(missing=0.5), augmentation=None)
        data.setup()
        assert "made worse on purpose: missing for 50 % of the images" in capsys.readouterr().out
        plain = of_folder(folder).findings
        for split in ("train", "val", "test"):
            there = sum(bool((mask == 1).any()) for *_, mask in data.datasets[split])
            assert there == data.findings.masked(split)
            removed = round(0.5 * plain.masked(split)) if split != "test" else 0
            assert there == plain.masked(split) - removed

    @pytest.mark.parametrize("kind", ["shape", "position", "stripes"])
    def test_marks_are_planted_by_exact_masks(self, folder, kind):
        """The images are those with exact masks, augmented alike; the masks are worse."""
        planting, worse = Planting(kind, size=0.3), WorseMasks(grow=0.2, missing=0.3)
        exact, given = (
            ImageData(
                folder / "images",
                size=32,
                masks=folder / "masks",
                planting=planting,
                worse_masks=masks,
            ).datasets["train"]
            for masks in (None, worse)
        )
        changed = 0
        for number in range(len(exact)):
            index = SeededIndex(number, seed=number)
            (image, _, mask, _), (same, _, worse_mask, _) = exact[index], given[index]
            assert torch.equal(image, same)
            changed += not torch.equal(mask, worse_mask)
        masked = sum(sample.mask is not None for sample in exact.samples)
        assert changed == masked

    def test_draws_are_by_names_in_the_folder(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "copy")
        options = {"worse_masks": WorseMasks(shift=0.4, missing=0.4), "augmentation": None}
        here, there = (of_folder(root, **options) for root in (folder, tmp_path / "copy"))
        for split in ("train", "val"):
            pairs = zip(here.datasets[split], there.datasets[split], strict=True)
            assert all(torch.equal(one, other) for (*_, one), (*_, other) in pairs)


def test_a_multi_label_table_with_groups(tmp_path):
    for i in range(40):
        save(tmp_path / f"{i}.png", i)
    table = write_table(
        tmp_path,
        file=[f"{i}.png" for i in range(40)],
        findings=["a|b" if i % 4 == 0 else "b" if i % 2 else "" for i in range(40)],
        patient=[i // 2 for i in range(40)],
    )
    fields = {"image": "file", "label": "findings", "group": "patient"}
    data = ImageData(table, fields=fields, size=8, balanced=True, batch_size=8)
    assert data.task == "multilabel"
    assert data.class_names == ["a", "b"]
    groups = {split: {s.group for s in d.samples} for split, d in data.datasets.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["val"]
    assert not groups["val"] & groups["test"]
    labels = torch.tensor([s.label for s in data.datasets["train"].samples]).float()
    assert torch.allclose(data.class_weights(), (1 - labels).sum(0) / labels.sum(0))
    assert next(iter(data.train_dataloader()))[1].shape == (8, 2)


def test_hdf5_with_a_file_for_each_split(tmp_path):
    rng = np.random.default_rng(0)
    paths = {}
    for split, count in {"test": 4, "train": 12, "val": 6}.items():
        paths[split] = tmp_path / f"{split}.h5py"
        with h5py.File(paths[split], "w") as file:
            file["images"] = rng.random((count, 9, 9), dtype=np.float32)
            file["masks"] = np.ones((count, 9, 9), np.float32)
            file["labels"] = np.arange(count) % (2 if split == "test" else 3)
    data = ImageData(paths, size=(9, 9), augmentation=None)
    assert data.class_names == ["0", "1", "2"]
    assert {split: len(d) for split, d in data.datasets.items()} == {
        "train": 12,
        "val": 6,
        "test": 4,
    }
    images, _, masks = next(iter(data.test_dataloader()["test"]))
    with h5py.File(paths["test"]) as file:
        assert torch.allclose(images[:, 0], torch.from_numpy(file["images"][:]))
    assert (masks == 1).all()


def test_near_duplicates_stay_together(tmp_path):
    for i in range(30):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", i, (64, 64))
        Image.open(tmp_path / "ab"[i % 2] / f"{i}.png").resize((48, 48)).save(
            tmp_path / "ab"[i % 2] / f"{i}-small.png"
        )
    apart = ImageData(tmp_path, size=8)
    assert apart.findings.near_duplicates
    together = ImageData(tmp_path, size=8, keep_near_duplicates_together=True)
    assert not together.findings.near_duplicates
    assert len(together.findings.samples) == 60


def test_from_yaml(folder):
    parser = ArgumentParser()
    parser.add_class_arguments(ImageData, "data")
    config = parser.parse_string(
        f"""
        data:
          source: {folder / "images"}
          masks: {folder / "masks"}
          size: [8, 12]
          augmentation: {{rotation: 30, brightness: 0}}
          fractions: {{train: 0.5, test: 0.5}}
          test_sources: {{again: {folder / "images"}}}
          allow_duplicates: true
          planting: {{kind: stripes, size: 0.5, amplitude: 0.2, correlation: 0.95}}
          worse_masks: {{grow: 0.2, boxes: true}}
        """
    )
    assert parser.parse_string(parser.dump(config)) == config
    data = parser.instantiate_classes(config).data
    assert data.augmentation.rotation == 30
    assert data.planting == Planting("stripes", 0.5, amplitude=0.2, correlation=0.95)
    assert data.worse_masks == WorseMasks(grow=0.2, boxes=True)
    assert list(data.datasets) == ["train", "test", "again", "test-biased", "test-deceiving"]
    assert next(iter(data.train_dataloader()))[0].shape[2:] == (8, 12)
    off = parser.parse_args(["--data.source=x", "--data.augmentation=null"])
    assert off.data.augmentation is None
    splits = parser.parse_args(['--data.source={"train": "a.h5", "val": "b.h5"}'])
    assert set(splits.data.source) == {"train", "val"}


class TestFaults:
    def test_unreadable_files(self, folder, tmp_path):
        for i in range(20):
            save(tmp_path / "ab"[i % 2] / f"{i}.png", i)
        (tmp_path / "a" / "broken.png").write_text("no image")
        with pytest.raises(ValueError, match=r"(?s)broken.png.*--skip-unreadable"):
            ImageData(tmp_path, size=8).setup()
        data = ImageData(tmp_path, size=8, skip_unreadable=True)
        assert sum(map(len, data.datasets.values())) == 20
        assert list(data.findings.unusable) == [str(tmp_path / "a" / "broken.png")]

    def test_no_such_source(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="gone"):
            ImageData(tmp_path / "gone").setup()
        (tmp_path / "table.xlsx").write_text("")
        with pytest.raises(ValueError, match=r"table.xlsx' is neither a folder nor a file ending"):
            ImageData(tmp_path / "table.xlsx").setup()

    def test_unknown_fields(self, tmp_path):
        with pytest.raises(ValueError, match=r"unknown field 'labels'; did you mean 'label'"):
            ImageData(
                write_table(tmp_path, image=["a"], label=["b"]), fields={"labels": "b"}
            ).setup()

    def test_fields_of_folders(self, folder):
        with pytest.raises(ValueError, match=r"folders have no fields"):
            ImageData(folder / "images", fields={"label": "b"}).setup()

    def test_unlabelled(self, tmp_path):
        for i in range(12):
            save(tmp_path / f"{i}.png", i)
        table = write_table(
            tmp_path, image=[f"{i}.png" for i in range(12)], label=["a", "b", None] * 4
        )
        with pytest.raises(ValueError, match=r"have no label, for example .*\.png"):
            ImageData(table, size=8).setup()

    @pytest.mark.parametrize("option", ["test_sources", "val_sources"])
    def test_further_data_without_a_name_of_their_own(self, folder, option):
        data = of_folder(folder, **{option: {"test": folder / "images"}})
        with pytest.raises(ValueError, match="'test', as other data are; give them another name"):
            data.setup()

    def test_further_data_of_another_task(self, folder, tmp_path):
        path = tmp_path / "other.h5"
        with h5py.File(path, "w") as file:
            file["images"], file["labels"] = np.zeros((3, 8, 8)), np.zeros((3, 2), int)
        data = of_folder(folder, test_sources={"other": path})
        with pytest.raises(ValueError, match=r"other.h5' is multilabel, but .* are multiclass"):
            data.setup()

    def test_masks_for_several_sources(self, folder):
        sources = {"train": folder / "images", "test": folder / "images"}
        data = ImageData(sources, masks=folder / "masks")
        with pytest.raises(ValueError, match="give root, the images' folder"):
            data.setup()

    def test_nothing_to_train_on(self, folder):
        data = ImageData({"test": folder / "images"}, size=8)
        with pytest.raises(ValueError, match="no images to train on, only 'test'"):
            data.train_dataloader()

    @pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": -1}, {"seed": -1}])
    def test_numbers(self, options):
        with pytest.raises(ValueError, match=rf"{next(iter(options))} must be"):
            ImageData("x", **options)


class TestLastBatch:
    """Batch norm cannot be trained on a single sample."""

    @pytest.mark.parametrize(
        ("batch_size", "sizes"),
        [(7, [7] * 6), (41, [41]), (43, [42]), (42, [42]), (1, [1] * 42), (10, [10] * 4 + [2])],
    )
    def test_a_single_sample_is_left_out_of_training(self, folder, batch_size, sizes):
        data = of_folder(folder)
        data.batch_size = batch_size
        data.setup()
        train = len(data.datasets["train"])
        assert train == 42
        assert [len(images) for images, *_ in data.train_dataloader()] == sizes

    def test_all_are_validated_on(self, folder):
        data = of_folder(folder)
        number = len(data.datasets["val"])
        data.batch_size = number - 1
        sizes = [len(images) for images, *_ in data.val_dataloader()["val"]]
        assert sizes == [number - 1, 1]


def test_images_and_masks_are_resized_as_a_network_wants_them(folder: Path) -> None:
    data = of_folder(folder, augmentation=None)
    assert data.datasets["test"].resizing == STRETCHED
    middle = Resizing("center", 0.5)
    data.resize_by(middle)
    test = data.datasets["test"]
    masked = data.findings.with_foreground(test.samples)
    image, _, mask, *_ = test[test.samples.index(masked[0])]
    original = masked[0].read_image()
    assert torch.equal(image, fit_image(original, (8, 8), 3, middle))
    assert torch.equal(mask, fit_mask(masked[0].read_mask((12, 16)), (8, 8), middle))
    assert mask.mean() > 0.9  # of what was 48 of 192 pixels, the middle is shown
