"""Read images as float tensors in [0, 1]: PNG, JPEG, TIFF and others of 8 or 16 bits, and DICOM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import png
import tifffile
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from faster_isnet.common.files import check_file
from faster_isnet.data.dicom import DICOM_SUFFIXES, Pixels, is_dicom, read_dicom, read_stored_dicom

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".jp2"),
    *DICOM_SUFFIXES,
)

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "JPEG2000")
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 258, 262, 339  # TIFF's tags
_TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_CHANNELS = 4  # RGB and alpha
_SIGNED = 2  # a value of the tag _SAMPLE_FORMAT
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # values of the tag _PHOTOMETRIC


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its suffix or, if it has none, by its first bytes.

    The directory of a DICOM medium, ``DICOMDIR``, is not.
    """
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    try:
        if is_dicom(path):
            return True
        with Image.open(path, formats=_FORMATS):
            return True
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # of its decoders
        return False


def read_image(path: str | Path) -> Tensor:
    """Read an image file.

    Grey images keep one channel, palettes are converted to RGB, alpha is dropped, and EXIF's
    orientation is applied. To DICOM, the modality and VOI transformations (rescale and window, or
    their lookup tables) are applied, and MONOCHROME1 is inverted: larger is always brighter.

    Parameters
    ----------
    path
        A PNG, JPEG, TIFF, WebP, BMP or JPEG 2000 file with one page, or DICOM (``.dcm``,
        ``.dicom``, or without a suffix) with one frame.

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
    return _read(Path(path), _read_picture, read_dicom)


def read_stored_pixels(path: str | Path, palette_indices: bool = False) -> Pixels:
    """Read the values of a file as they are stored, for masks.

    Parameters
    ----------
    path
        As in :func:`read_image`.
    palette_indices
        Return the indices of a palette instead of its colours.

    Raises
    ------
    FileNotFoundError, ImportError
        As :func:`read_image` does.
    ValueError
        If the file cannot be read; if its colours are all the same, while its transparency differs;
        or if it is DICOM with inverted values (MONOCHROME1).
    """
    read = partial(_read_mask_picture, palette_indices=palette_indices)
    return _read(Path(path), read, read_stored_dicom)


def _read(
    path: Path, read_picture: Callable[[Path], Pixels], read_dicom: Callable[[Path], Pixels]
) -> Pixels:
    check_file(path, cure="correct its name, or the folder that it starts from")
    try:
        return (read_dicom if is_dicom(path) else read_picture)(path)
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
        If they are of another type, not finite, or floats outside of [0, 1].
    """
    kind = pixels.dtype.kind
    if kind not in "buf":
        raise ValueError(
            f"{where!r} holds {pixels.dtype}, which has no natural range; save it as 8 or 16 bit "
            "unsigned integers, or as floats in [0, 1]"
        )
    if not pixels.size:
        raise ValueError(f"{where!r} has the shape {list(pixels.shape)}, no pixels; leave it out")
    unit = torch.from_numpy(pixels.astype(np.float32))
    if kind == "u":
        unit = unit / float(np.iinfo(pixels.dtype).max)
    if not bool(unit.isfinite().all()):
        raise ValueError(
            f"{where!r} holds NaN or infinite values; replace them by a value that an empty pixel "
            "has, such as 0"
        )
    if kind == "f" and not bool(((unit >= 0) & (unit <= 1)).all()):
        raise ValueError(
            f"{where!r} holds floats in [{pixels.min():g}, {pixels.max():g}]; scale them to [0, 1]"
        )
    unit = unit[..., None] if unit.dim() == 2 else unit
    return unit.permute(2, 0, 1).contiguous()


def _read_picture(path: Path) -> Pixels:
    # From memory, since Pillow memory-maps uncompressed TIFF, and then rotates it wrongly.
    content = path.read_bytes()
    with _opened(content) as image:
        if image is None or _is_deep_colour(content, image):
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
        return _in_declared_type(pixels, image)


def _read_mask_picture(path: Path, palette_indices: bool) -> Pixels:
    content = path.read_bytes()
    with _opened(content) as image:
        if palette_indices and image is not None and image.mode == "P":
            return np.asarray(ImageOps.exif_transpose(image))
        alpha = None if image is None or "A" not in image.getbands() else image.getchannel("A")
        is_transparent = alpha is not None and len(np.unique(np.asarray(alpha))) > 1
    pixels = _read_picture(path)
    if is_transparent and bool((pixels == pixels[:1, :1]).all()):
        raise ValueError("its transparency differs, but not its colours; save it in grey, without")
    return pixels


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image | None]:
    """Open an image; ``None`` for TIFF of a kind that Pillow does not know."""
    try:
        image: Image.Image | None = Image.open(BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        if not content.startswith(_TIFF_BEGINS):
            raise ValueError(f"it is none of {', '.join(_FORMATS)}") from error
        image = None
    with nullcontext() if image is None else image:
        if image is not None and getattr(image, "n_frames", 1) > 1:
            raise ValueError("it has several pages; save each as a file of its own")
        yield image


def _in_declared_type(pixels: Pixels, image: Image.Image) -> Pixels:
    """Correct what Pillow passes over in TIFF: signs, and white as 0 beyond 8 bits."""
    tags = _tags(image)
    is_signed = _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1))
    if pixels.dtype == np.uint8 and is_signed:
        return pixels.view(np.int8)
    if pixels.dtype == np.int32 and not is_signed and tags.get(_BITS) == (32,):
        pixels = pixels.view(np.uint32)
    is_inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return _inverted(pixels) if is_inverted and pixels.dtype != np.uint8 else pixels


def _tags(image: Image.Image) -> dict[int, Any]:
    return dict(getattr(image, "tag_v2", {}))


def _is_deep_colour(content: bytes, image: Image.Image) -> bool:
    """Return whether Pillow drops part of an image: over 8 bits in colour, or over 4 channels."""
    if image.format == "PNG":
        bits, colour = content[24:26]  # at fixed positions in the PNG header
        return bits == 16 and colour > 0
    bits_by_channel = _tags(image).get(_BITS, (8,))
    is_deep = len(bits_by_channel) > 1 and max(bits_by_channel) > 8
    return is_deep or len(bits_by_channel) > _MOST_CHANNELS


def _read_deep_colour(content: bytes, image: Image.Image | None) -> Pixels:
    """Read what Pillow does not: several channels of over 8 bits, and floats in colour."""
    if image is not None and image.getexif().get(_ORIENTATION, 1) != 1:
        raise ValueError("it has 16 bits a channel and lies on its side; save it upright")
    is_png = image is not None and image.format == "PNG"
    pixels = _read_deep_png(content) if is_png else _read_deep_tiff(content)
    if pixels.ndim == 2:
        return pixels
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
        if len(file.pages) > 1:
            raise ValueError("it has several pages; save each as a file of its own")
        if _ORIENTATION in page.tags and page.tags[_ORIENTATION].value != 1:
            raise ValueError("it lies on its side; save it upright")
        if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            raise ValueError(f"its colours are {page.photometric!r}; save it as RGB")
        pixels: Pixels = page.asarray()
        if page.axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        if channels > (_MOST_CHANNELS if page.photometric == _RGB else 3):
            raise ValueError(
                f"it has {channels} channels, but an image has 1 or 3, and alpha, as networks with "
                "pretrained weights read no others; save the three that matter most, or one"
            )
        return _inverted(pixels) if page.photometric == _WHITE_IS_ZERO else pixels


def _inverted(pixels: Pixels) -> Pixels:
    """Return pixels whose 0 is white with 0 as black."""
    if pixels.dtype.kind == "i":
        return pixels  # without a range there is nothing to invert; images of it are refused
    return (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1) - pixels
