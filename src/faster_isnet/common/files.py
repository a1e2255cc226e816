"""Write files atomically, and check that there is one to read."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

_SUFFIX = ".tmp"
_BLOCK = 2**20  # bytes
_HOUR = 3600.0  # in seconds; no file takes as long to write


def check_file(path: Path, kind: str = "file", cure: str = "correct its name") -> None:
    """Check that there is a file to read; a pipe, for example, would never end.

    Parameters
    ----------
    path
        The file.
    kind
        What it is called in the message.
    cure
        What to do if there is nothing of this name.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it is a folder, a pipe or the like.
    """
    try:
        mode = path.stat().st_mode
    except PermissionError:
        raise
    except (OSError, ValueError) as error:  # names that are too long, links in a circle, NUL bytes
        raise FileNotFoundError(f"there is no {kind} {str(path)!r}; {cure}") from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{str(path)!r} is not a file; name one")


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's content in hexadecimal digits, in little memory.

    Parameters
    ----------
    path
        The file.
    algorithm
        Its name in :mod:`hashlib`.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


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
    with open_atomically(path) as file:
        file.write(content)
    return Path(path)


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` when the context ends without an error.

    See :func:`replacing_atomically`, for what writes to a path of its own.

    Parameters
    ----------
    path
        The file; missing folders are created.

    Raises
    ------
    OSError
        If it cannot be written. The error names ``path``.
    """
    with replacing_atomically(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def replacing_atomically(path: str | Path) -> Iterator[Path]:
    """Yield where to write what replaces ``path`` when the context ends without an error.

    It is written beside ``path`` and is on the disk before it is renamed, so that ``path`` is the
    old file or the new one, wherever the process is killed. What a killed process left beside it
    is removed, after an hour.

    Parameters
    ----------
    path
        The file; missing folders are created.

    Raises
    ------
    OSError
        If it cannot be written. The error names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}{_SUFFIX}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some libraries write files that none but their owner can read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # Such as a full disk, or the folder's permissions; users know no temporary name.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    remove_leftovers(path.parent, path.name, older_than=_HOUR)


@contextmanager
def naming_unwritten(path: str | Path) -> Iterator[None]:
    """Raise what ``torch.save`` makes of a file's error as ``OSError`` that names ``path``."""
    try:
        yield
    except RuntimeError as error:
        reason = error.__context__  # torch's writer hides what the file raised
        if not isinstance(reason, OSError):
            raise
        raise OSError(reason.errno, reason.strerror, str(path)) from error


def remove_leftovers(folder: Path, name: str | None = None, older_than: float = 0.0) -> None:
    """Remove files that :func:`open_atomically` left when its process was killed.

    Parameters
    ----------
    folder
        Where to look, not in its folders; there may be none.
    name
        Of the file that was written; by default any.
    older_than
        Time since the last writing, in seconds. At 0, no other process may be writing.
    """
    written = "*" if name is None else escape(name)
    for path in folder.glob(f".{written}.{'[0-9a-f]' * 32}{_SUFFIX}"):
        try:
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
