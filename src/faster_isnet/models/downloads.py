"""Find files of weights that others have published; download them only if that is asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch

from faster_isnet.common.checks import check_choice
from faster_isnet.common.files import check_file, file_hash, replacing_atomically

log = logging.getLogger(__name__)

_ALGORITHMS = ("md5", "sha256")


@dataclass(frozen=True)
class PublishedFile:
    """Describe a file that is published at an address.

    Parameters
    ----------
    url
        Where it is. The last part of its path names the file.
    digest
        The hash of its content in hexadecimal digits, or their beginning.
    algorithm
        ``"sha256"`` or ``"md5"``.

    Raises
    ------
    ValueError
        If the algorithm is another.
    """

    url: str
    digest: str
    algorithm: str = "sha256"

    def __post_init__(self) -> None:
        """Check the algorithm."""
        check_choice("algorithm", self.algorithm, _ALGORITHMS)

    @property
    def name(self) -> str:
        """The name of the file."""
        return PurePosixPath(urlsplit(self.url).path).name

    def find(self, download: bool = False) -> Path:
        """Return the file in torch's folder of checkpoints, where downloaded weights are kept.

        Parameters
        ----------
        download
            Download the file if it is not there. It gets its name when it is whole.

        Raises
        ------
        FileNotFoundError
            If it is not there and is not to be downloaded.
        ValueError
            If its hash is another.
        OSError
            If it cannot be downloaded or written.
        """
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.name
        if not path.exists():
            if not download:
                raise FileNotFoundError(
                    f"the weights {self.name!r} are not on this machine; name their file (--weights"
                    f" FILE), or have them downloaded from {self.url} (--download)"
                )
            self._download(path)
        self.check(path)
        return path

    def check(self, path: Path) -> None:
        """Check that a file is this one.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If its hash is another.
        """
        check_file(path, "file of weights")
        found = file_hash(path, self.algorithm)
        if not found.startswith(self.digest):
            raise ValueError(
                f"{str(path)!r} is not the published {self.name}: its {self.algorithm} is {found}, "
                f"expected {self.digest}; remove it, and get it anew from {self.url}"
            )

    def _download(self, path: Path) -> None:
        log.info("Downloading %s to %s", self.url, path)
        with replacing_atomically(path) as temporary:
            try:
                torch.hub.download_url_to_file(self.url, str(temporary))
            except OSError as error:
                raise OSError(
                    f"{self.url} cannot be downloaded ({error}); fetch it on another machine, and "
                    "name the file: --weights FILE"
                ) from error
            self.check(temporary)
