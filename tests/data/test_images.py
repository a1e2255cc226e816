from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import png
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from faster_isnet.data.images import read_image

quick = settings(max_examples=20)
sides = st.integers(1, 9)
bits = st.sampled_from([np.uint8, np.uint16])


@st.composite
def pictures(draw, channels=(1, 3)):
    """``[H, W]`` or ``[H, W, 3]``, of 8 or 16 bits."""
    shape = (draw(sides), draw(sides), draw(st.sampled_from(channels)))
    picture = draw(hnp.arrays(draw(bits), shape))
    return picture[..., 0] if shape[2] == 1 else picture


def expected(picture: np.ndarray) -> torch.Tensor:
    planes = picture[None] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)
    return torch.from_numpy((planes / np.iinfo(picture.dtype).max).astype(np.float32))


def write_png(path: Path, picture: np.ndarray) -> None:
    """By pypng, which alone of what is here writes 16 bits in colour."""
    height, width = picture.shape[:2]
    writer = png.Writer(
        width,
        height,
        greyscale=picture.ndim == 2 or picture.shape[2] == 2,
        alpha=picture.ndim == 3 and picture.shape[2] in (2, 4),
        bitdepth=8 * picture.dtype.itemsize,
    )
    with path.open("wb") as file:
        writer.write(file, picture.reshape(height, -1).tolist())


def gradient(height: int = 6, width: int = 8) -> np.ndarray:
    return np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)


class TestRoundTrip:
    @quick
    @given(picture=pictures())
    def test_png(self, tmp_path_factory, picture):
        path = tmp_path_factory.mktemp("png") / "picture.png"
        write_png(path, picture)
        assert torch.allclose(read_image(path), expected(picture), atol=1e-7)

    @quick
    @given(picture=pictures(), big_endian=st.booleans(), planar=st.booleans())
    def test_tiff(self, tmp_path_factory, picture, big_endian, planar):
        path = tmp_path_factory.mktemp("tiff") / "picture.tif"
        options = {"photometric": "minisblack"}
        if picture.ndim == 3:
            options = {"photometric": "rgb", "planarconfig": "separate" if planar else "contig"}
        stored = np.moveaxis(picture, -1, 0) if picture.ndim == 3 and planar else picture
        tifffile.imwrite(path, stored, byteorder=">" if big_endian else "<", **options)
        assert torch.allclose(read_image(path), expected(picture), atol=1e-7)

    @pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
    def test_compressed_tiff(self, tmp_path, compression):
        Image.fromarray(gradient()).save(tmp_path / "a.tif", compression=compression)
        assert torch.equal(read_image(tmp_path / "a.tif"), expected(gradient()))

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    def test_jpeg(self, tmp_path, mode):
        Image.fromarray(gradient()).convert("RGB").convert(mode).save(
            tmp_path / "a.jpg", quality=100
        )
        image = read_image(tmp_path / "a.jpg")
        assert image.shape == (1 if mode == "L" else 3, 6, 8)
        assert (image - expected(gradient())).abs().max() < 0.03

    def test_floats_in_tiff(self, tmp_path):
        values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
        tifffile.imwrite(tmp_path / "a.tif", values)
        assert torch.equal(read_image(tmp_path / "a.tif")[0], torch.from_numpy(values))


class TestKinds:
    @quick
    @given(picture=pictures(channels=(2, 4)))
    def test_alpha_is_dropped(self, tmp_path_factory, picture):
        path = tmp_path_factory.mktemp("alpha") / "picture.png"
        write_png(path, picture)
        opaque = picture[..., :3] if picture.shape[2] == 4 else picture[..., 0]
        assert torch.allclose(read_image(path), expected(opaque), atol=1e-7)

    def test_palette(self, tmp_path):
        colours = np.random.default_rng(0).choice([0, 51, 255], (5, 4, 3)).astype(np.uint8)
        Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE).save(
            tmp_path / "a.png"
        )
        assert torch.equal(read_image(tmp_path / "a.png"), expected(colours))

    def test_one_bit(self, tmp_path):
        Image.fromarray(np.eye(3, dtype=bool)).save(tmp_path / "a.png")
        assert torch.equal(read_image(tmp_path / "a.png")[0], torch.eye(3))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_white_is_zero(self, tmp_path, dtype):
        picture = np.array([[0, np.iinfo(dtype).max]], dtype=dtype)
        tifffile.imwrite(tmp_path / "a.tif", picture, photometric="miniswhite")
        assert read_image(tmp_path / "a.tif").tolist() == [[[1.0, 0.0]]]

    def test_floats_where_white_is_zero(self, tmp_path):
        values = np.array([[0, 0.25]], np.float32)
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        assert read_image(tmp_path / "a.tif").tolist() == [[[1.0, 0.75]]]

    def test_floats_in_colour(self, tmp_path):
        values = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
        assert torch.equal(read_image(tmp_path / "a.tif"), torch.from_numpy(values).movedim(2, 0))

    @pytest.mark.parametrize("kind", ["webp", "bmp", "jpeg2000"])
    @pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".jp2"])
    def test_the_content_tells_the_format(self, tmp_path, kind, suffix):
        colours = np.repeat(gradient(64, 64)[..., None], 3, 2)
        options = {"lossless": True} if kind == "webp" else {}
        with (tmp_path / f"a{suffix}").open("wb") as file:
            Image.fromarray(colours).save(file, kind, **options)
        assert torch.equal(read_image(tmp_path / f"a{suffix}"), expected(colours))

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path, orientation, suffix):
        # Where the stored top left corner is shown: EXIF 2.32, 4.6.5.
        corner = {
            1: (0, 0),
            2: (0, 1),
            3: (1, 1),
            4: (1, 0),
            5: (0, 0),
            6: (0, 1),
            7: (1, 1),
            8: (1, 0),
        }
        stored = np.zeros((16, 32), dtype=np.uint8)
        stored[:8, :16] = 255
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif)
        image = read_image(tmp_path / f"a{suffix}")[0]
        assert image.shape == ((16, 32) if orientation < 5 else (32, 16))
        row, column = corner[orientation]
        height, width = image.shape
        quarter = image[row * height // 2 :, column * width // 2 :][: height // 2, : width // 2]
        assert quarter.min() > 0.9
        assert image.sum().item() == pytest.approx(quarter.sum().item(), rel=0.01)


class TestFaults:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".dcm"])
    @pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + 40 * b"\0"])
    def test_no_image(self, tmp_path, suffix, content):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read .*broken.*--skip-unreadable") as told:
            read_image(path)
        assert " object at " not in str(told.value)

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
    @pytest.mark.parametrize("part", [0.3, 0.8])
    def test_cut_off(self, tmp_path, suffix, part):
        path = tmp_path / f"cut{suffix}"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
        with pytest.raises(ValueError, match=r"cannot read .*cut.*mend the file"):
            read_image(path)

    def test_cut_off_in_deep_colour(self, tmp_path):
        path = tmp_path / "cut.png"
        write_png(path, np.random.default_rng(0).integers(0, 2**16, (64, 64, 3), dtype=np.uint16))
        path.write_bytes(path.read_bytes()[:9000])
        with pytest.raises(ValueError, match=r"cannot read .*cut"):
            read_image(path)

    @pytest.mark.parametrize("suffix", [".png", ".dcm"])
    def test_missing(self, tmp_path, suffix):
        with pytest.raises(FileNotFoundError, match=r"no file .*gone.*correct its name"):
            read_image(tmp_path / f"gone{suffix}")

    def test_several_pages(self, tmp_path):
        tifffile.imwrite(
            tmp_path / "stack.tif", np.zeros((3, 4, 5), np.uint8), photometric="minisblack"
        )
        with pytest.raises(ValueError, match=r"stack.tif.*several pages; save each"):
            read_image(tmp_path / "stack.tif")

    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
    def test_types_without_a_range(self, tmp_path, dtype):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), dtype))
        with pytest.raises(ValueError, match=r"a.tif.*no natural range; save it as 8 or 16 bit"):
            read_image(tmp_path / "a.tif")

    @pytest.mark.parametrize("value", [1.5, -0.1])
    def test_floats_outside_of_the_range(self, tmp_path, value):
        tifffile.imwrite(tmp_path / "a.tif", np.full((4, 5), value, np.float32))
        with pytest.raises(ValueError, match=r"a.tif.*scale them to \[0, 1\]"):
            read_image(tmp_path / "a.tif")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, tmp_path, value):
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, value]], np.float32))
        with pytest.raises(ValueError, match=r"a.tif' holds NaN or infinite values; replace them"):
            read_image(tmp_path / "a.tif")

    def test_more_channels_than_an_image_has(self, tmp_path):
        for dtype in (np.uint8, np.uint16, np.float32):
            tifffile.imwrite(
                tmp_path / "a.tif",
                np.zeros((6, 7, 5), dtype),
                photometric="rgb",
                planarconfig="contig",
            )
            with pytest.raises(ValueError, match=r"a.tif.*it has 5 channels, but an image has 1"):
                read_image(tmp_path / "a.tif")

    def test_messages_have_no_addresses_in_memory(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"a.png.*none of PNG, JPEG, .*WEBP") as caught:
            read_image(tmp_path / "a.png")
        assert "0x" not in str(caught.value)

    def test_a_pipe_does_not_hang(self, tmp_path):
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a.png' is not a file"):
            read_image(tmp_path / "a.png")

    def test_deep_colour_that_lies_on_its_side(self, tmp_path):
        tag = (274, "H", 1, 6, True)
        tifffile.imwrite(
            tmp_path / "a.tif", np.zeros((4, 5, 3), np.uint16), photometric="rgb", extratags=[tag]
        )
        with pytest.raises(ValueError, match=r"a.tif.*save it upright"):
            read_image(tmp_path / "a.tif")

    def test_without_pydicom(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pydicom", None)
        (tmp_path / "a.dcm").write_bytes(b"")
        with pytest.raises(ImportError, match=r"a.dcm.*pip install 'faster-isnet\[dicom\]'"):
            read_image(tmp_path / "a.dcm")
