"""Import OpenCV, an optional dependency."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def opencv(needed_for: str, extra: str) -> Any:
    """Return the module ``cv2``.

    Parameters
    ----------
    needed_for
        What needs it, for the message.
    extra
        The extra of this package that installs it.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module("cv2")
    except ImportError as error:
        raise ImportError(
            f"{needed_for} needs OpenCV: pip install 'faster-isnet[{extra}]' ({error})"
        ) from error
