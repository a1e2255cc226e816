"""Read DICOM images with their window, and DICOM masks as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

DICOM_SUFFIXES = (".dcm", ".dicom")
_PREAMBLE, _MAGIC = 128, b"DICM"  # bytes before it


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its suffix or, if it has none, by its content."""
    if path.suffix:
        return path.suffix.lower() in DICOM_SUFFIXES
    with path.open("rb") as file:
        file.seek(_PREAMBLE)
        return file.read(len(_MAGIC)) == _MAGIC


def read_dicom(path: Path) -> Pixels:
    """Read an image, ``[H, W]`` in [0, 1], or ``[H, W, 3]`` in the type of the file."""
    dataset = _read_dataset(path)
    pixels: Pixels = dataset.pixel_array
    interpretation = dataset.PhotometricInterpretation
    if interpretation == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        return apply_color_lut(pixels, dataset)[..., :3]
    if not interpretation.startswith("MONOCHROME"):
        return pixels  # pydicom has converted it to RGB
    unit = _windowed(pixels, dataset)
    unit = 1 - unit if interpretation == "MONOCHROME1" else unit
    return np.where(_is_padding(pixels, dataset), 0, unit)


def read_stored_dicom(path: Path) -> Pixels:
    """Read the stored values, without rescaling, window or padding, for masks."""
    dataset = _read_dataset(path)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        raise ValueError(
            "it is inverted (MONOCHROME1), which leaves open what is foreground; save it as "
            "MONOCHROME2"
        )
    pixels: Pixels = dataset.pixel_array
    return pixels


def _read_dataset(path: Path) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(
            f"to read {str(path)!r} install pydicom: pip install 'faster-isnet[dicom]'"
        ) from error
    dataset = pydicom.dcmread(path)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise ValueError("it has several frames; save each as a file of its own")
    return dataset


def _is_padding(pixels: Pixels, dataset: Any) -> Any:
    """Return which pixels are padding, outside of the image (DICOM PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(pixels.shape, dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    return (pixels >= low) & (pixels <= high)


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
        inside = values[~_is_padding(pixels, dataset)]
        low, high = (inside.min(), inside.max()) if inside.size else (0.0, 1.0)
    unit: Pixels = (values - low) / max(high - low, np.finfo(np.float64).tiny)
    return unit.clip(0, 1)
