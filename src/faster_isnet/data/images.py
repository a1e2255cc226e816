"""Read images as float tensors in [0, 1]: PNG, JPEG and TIFF of 8 or 16 bits, and DICOM."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import png
import tifffile
import torch
from PIL import Image, ImageOps
from torch import Tensor

Pixels = npt.NDArray[Any]

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *DICOM_SUFFIXES)

_FORMATS = ("PNG", "JPEG", "TIFF")
_ORIENTATION, _BITS, _PHOTOMETRIC = 274, 258, 262  # TIFF's tags; EXIF shares the first
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # values of the tag _PHOTOMETRIC


def read_image(path: str | Path) -> Tensor:
    """Read an image file.

    Grey images keep one channel, palettes are converted to RGB, alpha is dropped, and EXIF's
    orientation is applied. To DICOM, the modality and VOI transformations (rescale and window, or
    their lookup tables) are applied, and MONOCHROME1 is inverted: larger is always brighter.

    Parameters
    ----------
    path
        A PNG, JPEG or TIFF file with one page, or DICOM (``.dcm``, ``.dicom``) with one frame.

    Returns
    -------
    Tensor
        ``[C, H, W]`` float32 in [0, 1], C 1 or 3. Integers are divided by the largest value of
        their type, so 12 bits stored in 16 are dark. DICOM without a window is scaled from the
        range of the image's values.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, or its values have no defined range (signed integers, floats
        outside of [0, 1]).
    ImportError
        If it is DICOM and pydicom is not installed.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "grey.png")
    >>> Image.fromarray(np.array([[0, 51, 255]], dtype=np.uint8)).save(path)
    >>> read_image(path)
    tensor([[[0.0000, 0.2000, 1.0000]]])
    """
    return unit_tensor(read_pixels(path), str(path))


def read_pixels(path: str | Path) -> Pixels:
    """Read the pixels of an image file, ``[H, W]`` or ``[H, W, 3]``, in the type of the file.

    Otherwise like :func:`read_image`. DICOM is scaled to [0, 1], except for colour images.
    """
    path = Path(path)
    read = _read_dicom if path.suffix.lower() in DICOM_SUFFIXES else _read_picture
    try:
        return read(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no file {str(path)!r}; correct its name, or the folder that it starts from"
        ) from error
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # of any type, from the decoders
        reason = re.sub(r" <_io\.\w+ object at \w+>", "", str(error))  # it is named by its path
        raise ValueError(
            f"cannot read {str(path)!r} ({reason}); mend the file (open it in a viewer and save it "
            "again), or leave it out: --skip-unreadable"
        ) from error


def unit_tensor(pixels: Pixels, where: str) -> Tensor:
    """Scale pixels ``[H, W]`` or ``[H, W, C]`` to float32 ``[C, H, W]`` in [0, 1].

    Parameters
    ----------
    pixels
        Booleans, unsigned integers (divided by their type's largest value) or floats in [0, 1].
    where
        Name of the image for error messages.

    Raises
    ------
    ValueError
        If they are of another type, or floats outside of [0, 1].
    """
    kind = pixels.dtype.kind
    if kind not in "buf":
        raise ValueError(
            f"{where!r} holds {pixels.dtype}, which has no natural range; save it as 8 or 16 bit "
            "unsigned integers, or as floats in [0, 1]"
        )
    unit = torch.from_numpy(pixels.astype(np.float32))
    if kind == "u":
        unit = unit / float(np.iinfo(pixels.dtype).max)
    if kind == "f" and not bool(((unit >= 0) & (unit <= 1)).all()):  # in this form NaN is refused
        raise ValueError(
            f"{where!r} holds floats in [{pixels.min():g}, {pixels.max():g}]; scale them to [0, 1]"
        )
    unit = unit[..., None] if unit.dim() == 2 else unit
    return unit.permute(2, 0, 1).contiguous()


def _read_picture(path: Path) -> Pixels:
    # From memory, since Pillow memory-maps uncompressed TIFF, and then rotates it wrongly.
    content = path.read_bytes()
    with Image.open(BytesIO(content), formats=_FORMATS) as image:
        if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
            raise ValueError("it has several pages; save each as a file of its own")
        if _is_deep_colour(content, image):
            return _read_deep_colour(content, image)
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("LA", "La"):
            upright = upright.convert("L")
        if upright.mode not in ("1", "L", "F") and not upright.mode.startswith("I"):
            upright = upright.convert("RGB")
        pixels = np.asarray(upright)
        if image.format == "PNG" and pixels.dtype == np.int32:
            return pixels.astype(np.uint16)  # older versions of Pillow read 16 bits as int32
        if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
            pixels = pixels.astype(np.uint16)  # in native byte order
            if _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits only
                pixels = np.iinfo(np.uint16).max - pixels
        return pixels


def _tags(image: Image.Image) -> dict[int, Any]:
    return dict(getattr(image, "tag_v2", {}))


def _is_deep_colour(content: bytes, image: Image.Image) -> bool:
    """Return whether an image has several channels of over 8 bits: Pillow reduces them to 8."""
    if image.format == "PNG":
        bits, colour = content[24:26]  # at fixed positions in the PNG header
        return bits == 16 and colour > 0
    bits_by_channel = _tags(image).get(_BITS, (8,))
    return len(bits_by_channel) > 1 and max(bits_by_channel) > 8


def _read_deep_colour(content: bytes, image: Image.Image) -> Pixels:
    if image.getexif().get(_ORIENTATION, 1) != 1:
        raise ValueError("it has 16 bits a channel and lies on its side; save it upright")
    pixels = _read_deep_png(content) if image.format == "PNG" else _read_deep_tiff(content)
    return (
        pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., 0]
    )  # of 2 or 4 channels, the last is alpha


def _read_deep_png(content: bytes) -> Pixels:
    width, height, rows, info = png.Reader(bytes=content).asDirect()
    flat = np.vstack([np.asarray(row, dtype=np.uint16) for row in rows])
    return flat.reshape(height, width, info["planes"])


def _read_deep_tiff(content: bytes) -> Pixels:
    with tifffile.TiffFile(BytesIO(content)) as file:
        page = file.pages.first
        if page.photometric not in (_BLACK_IS_ZERO, _RGB):
            raise ValueError(f"its colours are {page.photometric!r}; save it as RGB")
        pixels: Pixels = page.asarray()
        return np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels


def _read_dicom(path: Path) -> Pixels:
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut
    except ImportError as error:
        raise ImportError(
            f"to read {str(path)!r} install pydicom: pip install 'faster-isnet[dicom]'"
        ) from error
    dataset = pydicom.dcmread(path)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise ValueError("it has several frames; save each as a file of its own")
    pixels: Pixels = dataset.pixel_array
    interpretation = dataset.PhotometricInterpretation
    if interpretation == "PALETTE COLOR":
        return apply_color_lut(pixels, dataset)[..., :3]
    if not interpretation.startswith("MONOCHROME"):
        return pixels  # pydicom has converted it to RGB
    unit = _windowed(pixels, dataset)
    return 1 - unit if interpretation == "MONOCHROME1" else unit


def _windowed(pixels: Pixels, dataset: Any) -> Pixels:
    """Apply the modality and VOI transformations (DICOM PS3.3 C.11.1 and C.11.2), to [0, 1]."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset).astype(np.float64)
    if dataset.get("VOILUTSequence"):
        low, high = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif dataset.get("WindowWidth") is not None:
        # Outputs of pydicom for values far outside of the window are the ends of its range.
        centre, width = (
            np.atleast_1d(np.asarray(dataset[name].value, dtype=np.float64))[0]
            for name in ("WindowCenter", "WindowWidth")
        )
        low, high = apply_voi_lut(centre + np.array([-100, 100]) * width, dataset)
    else:
        low, high = values.min(), values.max()
    unit: Pixels = (values - low) / max(high - low, np.finfo(np.float64).tiny)
    return unit.clip(0, 1)
