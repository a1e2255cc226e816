"""Keep what was measured of some images, so that an audit that was stopped goes on from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from faster_isnet.common.files import write_atomically

_IDENTITY = "identity.json"


class Parts:
    """Keep tables by their names in a folder until it is removed.

    Parameters
    ----------
    folder
        Made if need be. Tables that are there are used if they belong to the same identity, and
        removed if not.
    identity
        All that the tables depend on, ready for JSON.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        text = json.dumps(identity, sort_keys=True).encode()
        record = folder / _IDENTITY
        if not record.is_file() or record.read_bytes() != text:
            self.remove()
            write_atomically(record, text)

    def get(self, name: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return a table, measured now or earlier."""
        path = self._folder / f"{name}.parquet"
        if not path.is_file():
            buffer = BytesIO()
            measure().to_parquet(buffer, index=False)
            write_atomically(path, buffer.getvalue())
        return pd.read_parquet(path)

    def remove(self) -> None:
        """Remove the folder with all tables."""
        if self._folder.exists():
            shutil.rmtree(self._folder)
