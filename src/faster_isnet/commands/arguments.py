"""What words of a command line mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faster_isnet.data import list_images


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are, and the images in folders.

    Raises
    ------
    ValueError
        If a folder has no images.
    """
    return [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
