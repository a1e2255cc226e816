"""Write files atomically."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a file completely, or keep the existing one if writing fails.

    Parameters
    ----------
    path
        The file; missing folders are created.
    content
        The complete content.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
