"""Load networks of the Hugging Face hub by transformers, an optional dependency."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class HubNetwork:
    """Say how a kind of network is loaded.

    Attributes
    ----------
    title
        What it is called in messages.
    default
        The name on the hub of the one that is used if no other is named.
    revision
        The commit of the default whose files are meant; ``"main"`` for the newest.
    types
        What the file ``config.json`` of such networks has as ``model_type``.
    network, processor
        Classes of transformers.
    """

    title: str
    default: str
    revision: str
    types: Sequence[str]
    network: str
    processor: str

    def load(self, name: str | None, weights: str | Path | None, download: bool) -> tuple[Any, Any]:
        """Return the network, and what prepares its inputs.

        Parameters
        ----------
        name
            On the hub; by default :attr:`default`. Not beside ``weights``.
        weights
            A folder as the hub or ``save_pretrained`` writes it.
        download
            Download the network if it is not there.

        Raises
        ------
        FileNotFoundError
            If the network is not there and is not to be downloaded.
        ValueError
            If the network is of another kind or lacks weights, or both name and folder are given.
        OSError
            If it cannot be downloaded.
        ImportError
            If transformers is not installed.
        """
        if name is not None and weights is not None:
            raise ValueError(f"network {name!r} and weights {str(weights)!r}: leave out one")
        if weights is not None:
            self._check_folder(Path(weights))
        try:
            transformers = import_module("transformers")
        except ImportError as error:
            raise ImportError(
                f"{self.title} needs transformers: pip install 'faster-isnet[prompt]'"
            ) from error
        source = (name or self.default) if weights is None else str(weights)
        revision = self.revision if source == self.default else "main"
        options = {"local_files_only": not download, "revision": revision}
        try:
            model, found = getattr(transformers, self.network).from_pretrained(
                source, use_safetensors=True, output_loading_info=True, **options
            )
            if lacking := [*found["missing_keys"], *found["mismatched_keys"]]:
                raise ValueError(
                    f"{source!r} lacks {len(lacking)} weights of a {self.title}, such as "
                    f"{lacking[0]}; name another"
                )
            processor = getattr(transformers, self.processor).from_pretrained(source, **options)
        except OSError as error:
            if download or weights is not None:
                raise
            raise FileNotFoundError(
                f"the weights of {source} are not on this machine; download them (--download), or "
                "name a folder with them (--weights)"
            ) from error
        return model.eval(), processor

    def _check_folder(self, folder: Path) -> None:
        """Check that a folder says that it holds such a network."""
        config = folder / "config.json"
        if not config.is_file():
            raise FileNotFoundError(
                f"there is no config.json in {str(folder)!r}; name the folder of a {self.title}"
            )
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
        if kind not in self.types:
            raise ValueError(
                f"{str(folder)!r} holds a network of the type {kind!r}, not a {self.title}"
            )
