from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from faster_isnet.data.dataset import Augmentation, ImageDataset
from faster_isnet.data.loaders import image_loader
from faster_isnet.data.read_cache import ReadCache
from faster_isnet.data.samples import Sample
from faster_isnet.data.worse_masks import WorseMasks

SIDE = 16
BYTES = 4 * SIDE * SIDE * (3 + 1)  # of an image and its mask


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(5):
        image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(image)
        Image.fromarray(np.eye(20, 24, number, dtype=np.uint8) * 255).save(mask)
        made.append(Sample(image, number % 2, mask if number else None))
    return made


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the images that were read, in order."""
    names: list[str] = []
    read_image = Sample.read_image

    def counted(sample: Sample) -> torch.Tensor:
        names.append(sample.name)
        return read_image(sample)

    monkeypatch.setattr(Sample, "read_image", counted)
    return names


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
@pytest.mark.parametrize("worse_masks", [None, WorseMasks(grow=0.1, missing=0.3)])
def test_later_epochs_are_the_same_and_read_no_file(samples, reads, augmentation, worse_masks):
    options = (samples, (SIDE, SIDE), 3, 1.0, augmentation, worse_masks)
    kept, read_anew = ImageDataset(*options, cache_gib=1.0), ImageDataset(*options)
    for _ in range(3):
        for index in range(5):
            torch.manual_seed(index)
            expected, expected_mask = read_anew.item_and_exact_mask(index)
            torch.manual_seed(index)
            item, mask = kept.item_and_exact_mask(index)
            torch.testing.assert_close((*item, mask), (*expected, expected_mask), rtol=0, atol=0)
    assert len(reads) == 3 * 5 + 5


def test_items_may_be_changed_in_place(samples):
    dataset = ImageDataset(samples, (SIDE, SIDE), cache_gib=1.0)
    before = [tensor.clone() for tensor in dataset[1]]
    for tensor in dataset[1]:
        tensor.zero_()
    torch.testing.assert_close(list(dataset[1]), before, rtol=0, atol=0)


def test_no_more_is_kept_than_there_is_room(samples, reads):
    dataset = ImageDataset(samples[1:], (SIDE, SIDE), cache_gib=2.5 * BYTES / 2**30)
    for _ in range(3):
        for index in range(4):
            dataset[index]
    assert [reads.count(sample.name) for sample in samples[1:]] == [1, 1, 3, 3]


def test_loading_processes_share_the_room(samples, monkeypatch):
    cache = ReadCache(2.5 * BYTES / 2**30)
    monkeypatch.setattr(
        "faster_isnet.data.read_cache.get_worker_info", lambda: SimpleNamespace(num_workers=2)
    )
    for index in range(4):
        cache.get(index, lambda _: (torch.zeros(3, SIDE, SIDE), [torch.zeros(1, SIDE, SIDE)]))
    assert len(cache) == 1


@pytest.mark.slow  # two processes begin
def test_batches_of_loading_processes_are_the_same(samples):
    epochs = []
    for workers in (0, 1):
        loader = image_loader(ImageDataset(samples, (SIDE, SIDE), cache_gib=1.0), 2, workers)
        epochs += [list(loader), list(loader)]
    for epoch in epochs[1:]:
        torch.testing.assert_close(epoch, epochs[0], rtol=0, atol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copy_for_another_process_starts_empty(copied):
    cache = ReadCache(2.5 * BYTES / 2**30)
    for again in (cache, copied(cache)):
        for index in range(3):
            again.get(index, lambda _: (torch.zeros(3, SIDE, SIDE), [torch.zeros(1, SIDE, SIDE)]))
        assert len(again) == 2


def test_a_negative_room_is_refused(samples):
    with pytest.raises(ValueError, match=r"cache_gib must be .* got -1"):
        ImageDataset(samples, (SIDE, SIDE), cache_gib=-1)
