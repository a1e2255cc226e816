"""Write texts into tables so that a spreadsheet shows them and does not run them.

Cells that begin with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return are formulas for
spreadsheets, and names of classes, files and groups can come from anybody. An apostrophe before
them makes them text (OWASP, "CSV Injection").
"""

from __future__ import annotations

import re
from typing import TypeVar

import pandas as pd

_T = TypeVar("_T")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_SAFE = re.compile(r"'+[=+\-@\t\r]")


def safe_cell(value: _T) -> _T | str:
    """Return a text that no spreadsheet runs; values that are no texts as they are.

    Examples
    --------
    >>> safe_cell("=1+1"), safe_cell("cat"), safe_cell(-1)
    ("'=1+1", 'cat', -1)
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def original_cell(text: str) -> str:
    """Return the text that :func:`safe_cell` was given."""
    return text[1:] if _SAFE.match(text) else text


def safe_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8, without its index; its texts and names by `safe_cell`."""
    safe = table.apply(lambda column: column.map(safe_cell)).rename(columns=safe_cell)
    return safe.to_csv(index=False).encode()  # type: ignore[no-any-return]
