from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from faster_isnet.data.dataset import ImageDataset
from faster_isnet.data.hdf5 import from_hdf5
from faster_isnet.data.masks import Foreground
from faster_isnet.data.sources import choose_foreground

h5py = pytest.importorskip("h5py")

LABELS = np.array([0, 2, 1, 2])


def write(folder: Path, **datasets: np.ndarray) -> Path:
    path = folder / "data.h5"
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def noise(*shape: int, dtype: type = np.float32) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    return (
        values.astype(dtype)
        if dtype is np.float32
        else (values * np.iinfo(dtype).max).astype(dtype)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 3, 5, 6), (4, 5, 6, 3), (4, 1, 5, 6)])
def test_layouts_and_types(tmp_path, shape, dtype):
    images = noise(*shape, dtype=dtype)
    path = write(tmp_path, images=images, labels=LABELS)
    samples, names = from_hdf5(path, split="val")
    assert names == ["0", "1", "2"]
    assert [s.label for s in samples] == LABELS.tolist()
    assert {s.split for s in samples} == {"val"}
    assert samples[0].mask is None
    first = images if len(shape) == 4 else images[:, None]
    first = np.moveaxis(first, -1, 1) if shape[-1] == 3 else first
    scale = 1 if dtype is np.float32 else np.iinfo(dtype).max
    for sample, expected in zip(samples, first, strict=True):
        assert np.allclose(sample.read_image().numpy(), expected / scale, atol=1e-6)


def test_masks_and_names_of_data_sets(tmp_path):
    masks = noise(4, 5, 6) > 0.5
    path = write(tmp_path, x=noise(4, 5, 6), m=masks.astype(np.float64), y=LABELS)
    samples, _ = from_hdf5(path, images="x", masks="m", labels="y")
    read = torch.stack([s.read_mask((5, 6)) for s in samples])
    assert torch.equal(read[:, 0].bool(), torch.from_numpy(masks))


def test_multi_label(tmp_path):
    labels = np.array([[0, 1], [1, 1], [0, 0], [1, 0]])
    samples, names = from_hdf5(write(tmp_path, images=noise(4, 5, 6), labels=labels))
    assert [s.label for s in samples] == [tuple(row) for row in labels.tolist()]
    assert len(names) == 2


def test_a_column_of_labels_is_multiclass(tmp_path):
    samples, names = from_hdf5(write(tmp_path, images=noise(4, 5, 6), labels=LABELS[:, None]))
    assert [s.label for s in samples] == LABELS.tolist()
    assert names == ["0", "1", "2"]


def test_masks_by_their_values(tmp_path):
    labels = np.broadcast_to(np.arange(4)[:, None, None], (4, 5, 6))
    path = write(tmp_path, images=noise(4, 5, 6), masks=labels[:, None], labels=LABELS)
    samples = choose_foreground(from_hdf5(path)[0], Foreground(threshold=1))
    assert [s.read_mask((5, 6)).mean().item() for s in samples] == [0, 0, 1, 1]


def test_workers_read_as_the_process_does(tmp_path):
    path = write(tmp_path, images=noise(4, 5, 6), masks=np.ones((4, 5, 6)), labels=LABELS)
    dataset = ImageDataset(from_hdf5(path)[0], (5, 6))
    dataset[0]  # so that a handle that was kept open would be inherited
    for workers in (0, 2):
        batches = list(DataLoader(dataset, 1, num_workers=workers))
        for (image, _, _), expected in zip(batches, noise(4, 5, 6), strict=True):
            assert torch.allclose(image[0, 0], torch.from_numpy(expected))
    assert len(pickle.dumps(dataset)) < 5000  # the images are not in it


class TestFaults:
    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file .*gone.h5"):
            from_hdf5(tmp_path / "gone.h5")

    def test_not_hdf5(self, tmp_path):
        (tmp_path / "a.h5").write_text("no HDF5")
        with pytest.raises(ValueError, match=r"a.h5' is no HDF5 file .*write it anew"):
            from_hdf5(tmp_path / "a.h5")

    def test_missing_data_set(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"data.h5' has no data set 'labels', only \['images', 'y'\]"
        ):
            from_hdf5(write(tmp_path, images=noise(4, 5, 6), y=LABELS))

    def test_of_different_lengths(self, tmp_path):
        path = write(tmp_path, images=noise(3, 5, 6), labels=LABELS)
        with pytest.raises(
            ValueError, match=r"data.h5' must have one entry .*'images': 3, 'labels': 4"
        ):
            from_hdf5(path)

    @pytest.mark.parametrize(
        "labels", [LABELS - 1, LABELS + 0.5, LABELS * np.nan, np.array([b"a", b"b", b"c", b"d"])]
    )
    def test_labels_that_are_none(self, tmp_path, labels):
        with pytest.raises(ValueError, match=r"data.h5:labels"):
            from_hdf5(write(tmp_path, images=noise(4, 5, 6), labels=labels))

    def test_what_is_no_data_set(self, tmp_path):
        path = write(tmp_path, images=noise(4, 5, 6), labels=LABELS)
        kinds = {
            "single": "is a single value",
            "group": "is a group",
            "soft": "cannot read .*soft",
            "external": "cannot read .*external",
        }
        with h5py.File(path, "a") as file:
            file["single"] = 5
            file.create_group("group")
            file["soft"] = h5py.SoftLink("/nowhere")
            file["external"] = h5py.ExternalLink("gone.h5", "/images")
        for name, said in kinds.items():
            for role in ("images", "labels", "masks"):
                with pytest.raises(ValueError, match=said):
                    from_hdf5(path, **{role: name})

    def test_a_class_beyond_all_numbers_of_entries(self, tmp_path):
        path = write(tmp_path, images=noise(4, 5, 6), labels=np.array([0, 1, 2, 10**7]))
        with pytest.raises(ValueError, match=r"labels' has the class 10000000, but only 4 entries"):
            from_hdf5(path)

    @pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
    def test_masks_that_are_none(self, tmp_path, bad):
        masks = np.full((4, 5, 6), bad)
        path = write(tmp_path, images=noise(4, 5, 6), masks=masks, labels=LABELS)
        with pytest.raises(ValueError, match=r"data.h5:masks\[1\]' holds"):
            from_hdf5(path)[0][1].read_mask((5, 6))

    def test_more_labels_than_classes(self, tmp_path):
        path = write(tmp_path, images=noise(4, 5, 6), labels=LABELS)
        with pytest.raises(ValueError, match=r"labels.*does not fit 2 classes"):
            from_hdf5(path, class_names=["a", "b"])

    def test_images_of_another_shape(self, tmp_path):
        samples, _ = from_hdf5(write(tmp_path, images=noise(4, 5, 6, 2), labels=LABELS))
        with pytest.raises(ValueError, match=r"data.h5:images\[1\]' has the shape \[5, 6, 2\]"):
            samples[1].read_image()

    def test_values_out_of_range(self, tmp_path):
        samples, _ = from_hdf5(write(tmp_path, images=noise(4, 5, 6) * 255, labels=LABELS))
        with pytest.raises(ValueError, match=r"data.h5:images\[0\]'.*scale them to \[0, 1\]"):
            samples[0].read_image()

    def test_without_h5py(self, tmp_path, monkeypatch):
        path = write(tmp_path, images=noise(4, 5, 6), labels=LABELS)
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(ImportError, match=r"data.h5.*pip install 'faster-isnet\[hdf5\]'"):
            from_hdf5(path)
