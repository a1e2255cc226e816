"""Keep two processes from working in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def locked(folder: Path, message: str, name: str = LOCK, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be.

    The operating system releases the lock when the process ends, however it ends.

    Parameters
    ----------
    folder
        What is locked.
    message
        Of the error.
    name
        Of the lock's file.
    patience
        How long to wait for another process, in seconds.

    Raises
    ------
    FileExistsError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise FileExistsError(message) from None
    try:
        yield
    finally:
        lock.release()
