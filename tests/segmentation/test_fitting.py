from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from faster_isnet.common.environment import machine
from faster_isnet.data import Augmentation, read_image, read_mask
from faster_isnet.data.samples import Sample
from faster_isnet.models.unet import build_unet
from faster_isnet.segmentation import (
    SegmenterSettings,
    fit_segmenter,
    load_segmenter,
    predict_masks,
)
from faster_isnet.segmentation.fitting import _scores, _TrainingPairs, read_pair
from faster_isnet.segmentation.trained_segmenter import DESCRIPTION, WEIGHTS

HEIGHT, WIDTH = 72, 96
BRIEF = SegmenterSettings(size=64, epochs=1, batch_size=4)


def two_blobs(rng: np.random.Generator) -> np.ndarray:
    """A mask of two ellipses, left and right of the middle."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for middle in (0.28, 0.72):
        row, column = HEIGHT * rng.uniform(0.4, 0.6), WIDTH * (middle + rng.uniform(-0.04, 0.04))
        tall, wide = HEIGHT * rng.uniform(0.2, 0.3), WIDTH * rng.uniform(0.1, 0.15)
        mask |= ((rows - row) / tall) ** 2 + ((columns - column) / wide) ** 2 < 1
    return mask


def write_grey(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (255 * np.asarray(pixels, dtype=float)).clip(0, 255)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def write_pairs(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """Write dark blobs on brighter noise, of different exposure, and their masks."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(count):
        mask = two_blobs(rng)
        low, high = rng.uniform(0.1, 0.3), rng.uniform(0.5, 0.9)
        image = np.where(mask, low, high) + rng.normal(0, 0.08, mask.shape)
        name = f"{number:02}.png"
        pairs.append(
            (write_grey(folder / "images" / name, image), write_grey(folder / "masks" / name, mask))
        )
    return pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[tuple[Path, Path]]:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 10)


@pytest.fixture(scope="module")
def fitted(pairs, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("fitted")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    description = fit_segmenter(pairs, out, BRIEF)
    assert torch.equal(torch.get_rng_state(), state)  # the seed is the training's own
    return out, description


class TestFit:
    def test_files(self, fitted):
        out, description = fitted
        assert {path.name for path in out.iterdir()} == {WEIGHTS, DESCRIPTION, "held_out.csv"}
        assert json.loads((out / DESCRIPTION).read_text()) == description
        assert description["network"] == "Unet"
        assert description["trained_on"] == 8
        assert description["machine"].items() >= machine().items()
        table = pd.read_csv(out / "held_out.csv", float_precision="round_trip")
        assert table.to_dict("records") == description["held_out"]
        assert description["dice"] == pytest.approx(table["dice"].mean())
        assert description["iou"] == pytest.approx(table["iou"].mean())

    def test_scores_are_those_of_the_masks_that_prediction_writes(self, fitted, tmp_path):
        out, description = fitted
        held_out = description["held_out"]
        predict_masks(load_segmenter(out), [Path(row["image"]) for row in held_out], tmp_path)
        assert len(held_out) == 2
        for row in held_out:
            found = read_mask(tmp_path / Path(row["image"]).name).bool()
            drawn = read_mask(row["mask"]).bool()
            both, either = (found & drawn).sum().item(), (found | drawn).sum().item()
            assert row["dice"] == pytest.approx(2 * both / (found.sum() + drawn.sum()).item())
            assert row["iou"] == pytest.approx(both / either)

    def test_what_was_seen_is_of_the_images_trained_on(self, fitted, pairs):
        _, description = fitted
        held_out = {row["image"] for row in description["held_out"]}
        areas = [
            read_mask(mask).mean(dtype=torch.float64).item()
            for image, mask in pairs
            if str(image) not in held_out
        ]
        assert description["seen"]["area"] == pytest.approx((min(areas), max(areas)))
        assert tuple(description["seen"]["components"]) == (2, 2)

    def test_a_seed_gives_the_same(self, fitted, pairs, tmp_path):
        out, description = fitted
        torch.manual_seed(77)
        again = fit_segmenter(pairs, tmp_path / "again", BRIEF)
        other = fit_segmenter(pairs, tmp_path / "other", replace(BRIEF, seed=1))
        assert again["held_out"] == description["held_out"] != other["held_out"]
        assert (tmp_path / "again" / WEIGHTS).read_bytes() == (out / WEIGHTS).read_bytes()
        assert (tmp_path / "other" / WEIGHTS).read_bytes() != (out / WEIGHTS).read_bytes()

    def test_groups_stay_whole(self, pairs, tmp_path):
        groups = ["a", "a", "b", "b", "c", "c", "d", "d", "e", None]
        description = fit_segmenter(pairs, tmp_path, replace(BRIEF, held_out=0.4), groups)
        held_out = {row["image"] for row in description["held_out"]}
        by_group: dict[str, set[bool]] = {}
        for (image, _), group in zip(pairs, groups, strict=True):
            by_group.setdefault(group, set()).add(str(image) in held_out)
        assert all(len(parts) == 1 for parts in by_group.values())
        assert 3 <= len(held_out) <= 5

    @pytest.mark.slow
    def test_it_learns(self, tmp_path):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            pairs = write_pairs(tmp_path / "pairs", 30)
            settings = SegmenterSettings(size=64, epochs=24)
            description = fit_segmenter(pairs, tmp_path / "out", settings)
        finally:
            torch.set_num_threads(threads)
        assert description["dice"] >= 0.9
        assert description["iou"] >= 0.8
        held_out = [Path(row["image"]) for row in description["held_out"]]
        table = predict_masks(load_segmenter(tmp_path / "out"), held_out, tmp_path / "masks")
        assert table["plausible"].mean() >= 0.8
        background = 0.7 + np.random.default_rng(1).normal(0, 0.08, (HEIGHT, WIDTH))
        blank = write_grey(tmp_path / "blank.png", background)
        table = predict_masks(load_segmenter(tmp_path / "out"), [blank], tmp_path / "masks")
        assert not table["plausible"].any()


def test_nothing_found_where_nothing_is_counts_as_right(fitted, tmp_path):
    segmenter = load_segmenter(fitted[0])
    torch.nn.init.zeros_(segmenter.network.segmentation_head[0].weight)
    torch.nn.init.constant_(segmenter.network.segmentation_head[0].bias, -1)  # it finds nothing
    image = write_grey(tmp_path / "1.png", np.eye(64))
    empty = write_grey(tmp_path / "2.png", np.zeros((64, 64)))
    samples = [Sample(image, mask=mask) for mask in (empty, image)]
    right, wrong = (_scores(segmenter, sample, *read_pair(sample)) for sample in samples)
    assert (right["dice"], right["iou"]) == (1, 1)
    assert (wrong["dice"], wrong["iou"]) == (0, 0)


class TestTrainingPairs:
    def test_image_and_mask_move_together(self, tmp_path):
        """An image that is its own mask stays so, but for the blurred outline."""
        pixels = two_blobs(np.random.default_rng(3)).astype(float)
        path = write_grey(tmp_path / "1.png", pixels)
        strong = Augmentation(rotation=30, translation=0.2, scaling=0.3, brightness=0, contrast=0)
        settings = SegmenterSettings(size=64, augmentation=strong)
        dataset = _TrainingPairs([read_pair(Sample(path, mask=path))], settings)
        masks = []
        for _ in range(20):
            image, mask = dataset[0]
            assert image.shape == (3, 64, 64)
            assert type(image) is type(mask) is torch.Tensor
            assert mask.unique().tolist() == [0, 1]
            assert ((image[:1] > 0.5) == mask.bool()).float().mean() > 0.98
            masks.append(mask)
        assert len(torch.stack(masks).unique(dim=0)) == 20


class TestFitErrors:
    def fails(self, pairs, tmp_path, error, message, **arguments):
        out = tmp_path / "out"
        with pytest.raises(error, match=message):
            fit_segmenter(pairs, out, BRIEF, **arguments)
        assert not out.exists()

    @pytest.mark.parametrize("which", [0, 1])
    def test_unreadable(self, pairs, tmp_path, which):
        """Wherever the broken file is, also among those that are held out."""
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no image")
        for number in range(len(pairs)):
            changed = list(pairs)
            pair = list(pairs[number])
            pair[which] = broken
            changed[number] = tuple(pair)
            self.fails(changed, tmp_path, ValueError, r"cannot read .*broken\.png")

    def test_missing(self, pairs, tmp_path):
        changed = [(pairs[0][0], tmp_path / "gone.png"), *pairs[1:]]
        self.fails(changed, tmp_path, FileNotFoundError, r"no file .*gone\.png")

    def test_sizes_differ(self, pairs, tmp_path):
        mask = write_grey(tmp_path / "small.png", np.ones((10, 12)))
        changed = [(pairs[0][0], mask), *pairs[1:]]
        self.fails(changed, tmp_path, ValueError, r"00\.png' has 72 rows.*small\.png', 10 rows")

    def test_twice(self, pairs, tmp_path):
        self.fails([*pairs, pairs[0]], tmp_path, ValueError, r"00\.png' occurs twice")

    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few(self, pairs, tmp_path, count):
        self.fails(pairs[:count], tmp_path, ValueError, f"^{count} images with masks")

    def test_one_group(self, pairs, tmp_path):
        self.fails(pairs, tmp_path, ValueError, "two groups at least", groups=["a"] * 10)

    def test_groups_of_another_length(self, pairs, tmp_path):
        self.fails(pairs, tmp_path, ValueError, "one for each of 10 pairs, got 1", groups=["a"])

    def test_no_foreground(self, pairs, tmp_path):
        empty = write_grey(tmp_path / "empty.png", np.zeros((HEIGHT, WIDTH)))
        changed = [(image, empty) for image, _ in pairs]
        self.fails(changed, tmp_path, ValueError, "no mask to train on has foreground")

    def test_loss_that_explodes(self, pairs, tmp_path):
        with pytest.raises(FloatingPointError, match=r"learning rate below 1e[+]30"):
            fit_segmenter(pairs, tmp_path / "out", replace(BRIEF, learning_rate=1e30, batch_size=2))
        assert not (tmp_path / "out").exists()

    def test_not_installed(self, pairs, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
        self.fails(pairs, tmp_path, ImportError, re.escape("pip install 'faster-isnet[segment]'"))


class TestNetwork:
    def test_nothing_is_downloaded_unless_asked(self, monkeypatch):
        import huggingface_hub
        import segmentation_models_pytorch.encoders as encoders

        def fail(*args, **kwargs):
            raise AssertionError("it downloads")

        for name in ("hf_hub_download", "load_url"):  # from its place until version 0.5
            monkeypatch.setattr(encoders, name, fail, raising=False)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
        build_unet("resnet18")
        with pytest.raises(AssertionError, match="it downloads"):
            build_unet("resnet18", "imagenet")

    def test_unknown(self):
        with pytest.raises(ValueError, match="did you mean 'resnet18'"):
            build_unet("resnet81")
        with pytest.raises(ValueError, match=r"encoder_weights 'imagnet'.*imagenet"):
            build_unet("resnet18", "imagnet")
        with pytest.raises(ValueError, match="encoder 'tu-resnet81'"):
            build_unet("tu-resnet81")


class TestLoad:
    def test_round_trip(self, fitted):
        out, description = fitted
        segmenter = load_segmenter(out)
        assert segmenter.settings == BRIEF
        assert not segmenter.network.training
        state = load_file(out / WEIGHTS)
        assert all(torch.equal(state[k], v) for k, v in segmenter.network.state_dict().items())
        image = read_image(description["held_out"][0]["image"])
        assert torch.equal(segmenter.mask(image), load_segmenter(out).mask(image))

    @pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
    def test_missing(self, fitted, tmp_path, name):
        other = {WEIGHTS: DESCRIPTION, DESCRIPTION: WEIGHTS}[name]
        (tmp_path / other).write_bytes((fitted[0] / other).read_bytes())
        with pytest.raises(FileNotFoundError, match=f"{re.escape(name)}'; .*segment fit"):
            load_segmenter(tmp_path)

    @pytest.mark.parametrize(
        "content", ["no json", "{}", "[]", '{"settings": {"sise": 3}}', '{"settings": null}']
    )
    def test_another_json(self, fitted, tmp_path, content):
        (tmp_path / WEIGHTS).write_bytes((fitted[0] / WEIGHTS).read_bytes())
        (tmp_path / DESCRIPTION).write_text(content)
        with pytest.raises(ValueError, match=r"segmenter\.json' does not describe a segmenter"):
            load_segmenter(tmp_path)

    def test_other_weights(self, fitted, tmp_path):
        (tmp_path / DESCRIPTION).write_bytes((fitted[0] / DESCRIPTION).read_bytes())
        save_file({"weight": torch.ones(1)}, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=r"segmenter\.safetensors"):
            load_segmenter(tmp_path)
