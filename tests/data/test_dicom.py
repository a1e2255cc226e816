from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faster_isnet.data.images import read_image
from faster_isnet.data.masks import read_mask

pydicom = pytest.importorskip("pydicom")

quick = settings(max_examples=20)
RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16  # 12 bits


def write(path: Path, pixels: np.ndarray = RAMP, bits: int = 12, **elements: object) -> Path:
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_file_without_a_suffix_is_recognised(tmp_path):
    with_suffix, without = write(tmp_path / "a.dcm"), write(tmp_path / "IM000001")
    assert torch.equal(read_image(with_suffix), read_image(without))


@quick
@given(
    centre=st.integers(-500, 3000),
    width=st.integers(2, 4000),
    slope=st.sampled_from([0.5, 1, 2]),
    intercept=st.integers(-1024, 1024),
)
def test_rescale_and_window(tmp_path_factory, centre, width, slope, intercept):
    path = write(
        tmp_path_factory.mktemp("window") / "a.dcm",
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=centre,
        WindowWidth=width,
    )
    # DICOM PS3.3 C.11.2.1.2.1, the linear function, from 0 to 1.
    values = RAMP.astype(float) * slope + intercept
    expected = ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)
    assert np.allclose(read_image(path)[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_functions(tmp_path, function):
    path = write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    x = (RAMP.astype(float) - 2000) / 1000
    expected = (x + 0.5).clip(0, 1) if function == "LINEAR_EXACT" else 1 / (1 + np.exp(-4 * x))
    assert np.allclose(read_image(path)[0].numpy(), expected, atol=1e-5)


def test_of_several_windows_the_first(tmp_path):
    one = write(tmp_path / "one.dcm", WindowCenter=1000, WindowWidth=500)
    two = write(tmp_path / "two.dcm", WindowCenter=[1000, 30], WindowWidth=[500, 60])
    assert torch.equal(read_image(one), read_image(two))


def test_lookup_table(tmp_path):
    item = pydicom.dataset.Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item.LUTData = (4095 - np.arange(4096)).astype("<u2").tobytes()
    path = write(tmp_path / "a.dcm", VOILUTSequence=[item])
    assert np.allclose(read_image(path)[0].numpy(), (4095 - RAMP) / 4095, atol=1e-6)


def test_without_a_window_from_the_smallest_to_the_largest_value(tmp_path):
    path = write(tmp_path / "a.dcm", (RAMP // 2 + 100).astype(np.int16), 16)
    image = read_image(path)
    assert np.allclose(image[0].numpy(), RAMP / RAMP.max(), atol=1e-3)
    flat = read_image(write(tmp_path / "flat.dcm", np.full((4, 4), 7, np.uint16)))
    assert flat.tolist() == torch.zeros(1, 4, 4).tolist()


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2000, "WindowWidth": 1000}])
def test_monochrome1_is_the_inverse(tmp_path, window):
    bright, dark = (
        read_image(
            write(tmp_path / f"{n}.dcm", PhotometricInterpretation=f"MONOCHROME{n}", **window)
        )
        for n in (2, 1)
    )
    assert torch.allclose(bright, 1 - dark)
    assert bright[0, 0, 0] < bright[0, -1, -1]


def test_colour(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = write(
        tmp_path / "a.dcm", pixels, 8, PhotometricInterpretation="RGB", PlanarConfiguration=0
    )
    assert torch.allclose(read_image(path), torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def test_several_frames(tmp_path):
    path = write(tmp_path / "film.dcm", NumberOfFrames=2, PixelData=2 * RAMP.tobytes())
    with pytest.raises(ValueError, match=r"film.dcm.*several frames; save each"):
        read_image(path)


def test_no_pixels(tmp_path):
    path = write(tmp_path / "report.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"cannot read .*report.dcm.*leave it out"):
        read_image(path)


def test_padding_is_no_part_of_the_range(tmp_path):
    padded = np.full((4, 4), -2000, np.int16)
    padded[1:] = np.linspace(0, 100, 12).reshape(3, 4)
    image = read_image(write(tmp_path / "a.dcm", padded, 16, PixelPaddingValue=-2000))[0]
    assert torch.allclose(image[1:], torch.from_numpy(padded[1:] / 100).float(), atol=1e-6)
    assert (image[0] == 0).all()
    limits = {"PixelPaddingValue": -2100, "PixelPaddingRangeLimit": -1900}
    for number in (1, 2):  # black where there is nothing, inverted or not
        kind = f"MONOCHROME{number}"
        path = write(tmp_path / "b.dcm", padded, 16, PhotometricInterpretation=kind, **limits)
        assert (read_image(path)[0, 0] == 0).all()
        assert read_image(path)[0, 1:].max() == 1


@pytest.mark.parametrize("value", [1, 255, 1000])
def test_masks_are_read_as_they_are_stored(tmp_path, value):
    options = {"WindowCenter": 2000, "WindowWidth": 100}  # of which nothing is above the middle
    for mask in (np.eye(4), np.ones((4, 4)), np.zeros((4, 4))):
        path = write(tmp_path / "a.dcm", (mask * value).astype(np.uint16), **options)
        assert torch.equal(read_mask(path)[0], torch.from_numpy(mask).float())


def test_a_mask_that_is_inverted_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(ValueError, match=r"a.dcm.*MONOCHROME1.*save it as MONOCHROME2"):
        read_mask(path)
