"""Files are written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faster_isnet.common.files import (
    check_file,
    open_atomically,
    remove_leftovers,
    write_atomically,
)


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert write_atomically(path, b"one") == path
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="bytes"), open_atomically(path) as file:
        file.writelines([b"ne", "w"])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left") as told, open_atomically(path) as file:
        Path("/dev/full").write_bytes(b"x" if file.write(b"new") else b"")
    assert str(path) in str(told.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    """The process dies between writing and renaming, as by a SIGKILL or a loss of power."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import os, sys; from faster_isnet.common.files import check_file, write_atomically;"
        "os.fsync = lambda file: os._exit(9); write_atomically(sys.argv[1], b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert path.read_bytes() == b"old"
    (left,) = set(tmp_path.iterdir()) - {path}
    write_atomically(path, b"newer")
    assert left.is_file()  # it might be another process's, which still writes
    an_hour_ago = time.time() - 3601
    os.utime(left, (an_hour_ago, an_hour_ago))
    write_atomically(tmp_path / "another", b"")
    assert left.is_file()
    write_atomically(path, b"newest")
    assert {each.name for each in tmp_path.iterdir()} == {"file", "another"}


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    kept = [".a.tmp", "a.tmp", f"a.{32 * '0'}.tmp", f".a.{31 * '0'}.tmp", f".b.{32 * '0'}.txt"]
    for name in [*kept, f".a.{32 * '0'}.tmp", f".[a].{32 * 'f'}.tmp"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "[a]")
    assert {each.name for each in tmp_path.iterdir()} == {*kept, f".a.{32 * '0'}.tmp"}
    remove_leftovers(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == set(kept)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, "there is no table .*x.csv'; correct its name"),
        (lambda path: path.symlink_to(path), FileNotFoundError, "there is no table .*x.csv'"),
        (lambda path: path.mkdir(), ValueError, "x.csv' is not a file; name one"),
        (os.mkfifo, ValueError, "x.csv' is not a file; name one"),
    ],
)
def test_what_is_no_file_is_not_read(tmp_path, make, error, message):
    path = tmp_path / "x.csv"
    make(path)
    with pytest.raises(error, match=message):
        check_file(path, "table")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*; correct its name"):
        check_file(tmp_path / name)
