"""Make pages that hold all they need: templates, and pictures as text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from faster_isnet.plotting.heatmaps import percent, png


def environment(*packages: str) -> Environment:
    """Load the templates of ``packages`` and of this one; all values in them are escaped."""
    made = Environment(
        loader=ChoiceLoader(
            [PackageLoader(each) for each in (*packages, "faster_isnet.reporting")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = percent
    return made


def check_names_differ(names: Sequence[str], what: str, again: str) -> None:
    """Raise ``ValueError`` if two of those that stand side by side have one name.

    Parameters
    ----------
    names
        Of all.
    what, again
        What they are, and how they are made again under another name, for the message.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{names.count(twice[0])} {what} are called {twice[0]!r}; {again} under names of their "
            "own: --name"
        )


def read_script(name: str) -> str:
    """Return a script that lies beside the templates, such as ``"tables.js"``."""
    return files(__package__).joinpath("templates", name).read_text("utf-8")


def script_hash(script: str) -> str:
    """Return the hash by which a content security policy allows this script, and no other."""
    return "sha256-" + base64.b64encode(sha256(script.encode()).digest()).decode()


def data_uri(picture: Figure | bytes, kind: str = "png") -> str:
    """Return a figure, or the file of a picture, as a ``data:`` URI that holds it all.

    Parameters
    ----------
    picture
        A figure, or the bytes of a file.
    kind
        The file's: ``"png"`` or ``"jpeg"``.
    """
    content = png(picture) if isinstance(picture, Figure) else picture
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
