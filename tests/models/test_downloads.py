"""Files that others have published, here at an address that is a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from faster_isnet.models.downloads import PublishedFile

CONTENT = b"weights"


@pytest.fixture(params=["md5", "sha256"])
def published(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PublishedFile:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    path = tmp_path / "there/weights.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    digest = hashlib.new(request.param, CONTENT).hexdigest()
    return PublishedFile(path.as_uri(), digest[:8], request.param)


def kept(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "home").rglob("*") if path.is_file()]


def test_a_file_is_downloaded_once_and_only_on_request(published, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'weights.bin' are not on .*\(--download\)"):
        published.find()
    assert kept(tmp_path) == []
    path = published.find(download=True)
    assert path.read_bytes() == CONTENT
    assert kept(tmp_path) == ["weights.bin"]
    (tmp_path / "there/weights.bin").unlink()
    assert published.find() == published.find(download=True) == path


def test_another_content_is_not_kept(published, tmp_path):
    (tmp_path / "there/weights.bin").write_bytes(b"others")
    with pytest.raises(ValueError, match=f"{published.algorithm} is [0-9a-f]+, expected"):
        published.find(download=True)
    assert kept(tmp_path) == []


def test_a_damaged_file_is_refused(published):
    path = published.find(download=True)
    path.write_bytes(CONTENT[:3])
    with pytest.raises(ValueError, match=r"is not the published weights.bin.*remove it"):
        published.find()


def test_what_cannot_be_downloaded_can_be_named(published, tmp_path):
    (tmp_path / "there/weights.bin").unlink()
    with pytest.raises(OSError, match=r"cannot be downloaded .*name the file: --weights FILE"):
        published.find(download=True)
    assert kept(tmp_path) == []


def test_an_unknown_algorithm_is_named():
    with pytest.raises(ValueError, match="unknown algorithm 'crc'"):
        PublishedFile("https://example.org/a.bin", "00", "crc")
