"""Writing files so that none is ever half written."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a whole file or, if that fails, leave what was at ``path``.

    Parameters
    ----------
    path
        The file; missing folders are made.
    content
        All of it.

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
    # Beside the target, since a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
