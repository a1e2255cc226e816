"""Find the name that was meant by a mistyped one, without importing anything slow."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``name``, whatever its case.

    Parameters
    ----------
    name
        What was typed.
    known
        The names that exist.

    Returns
    -------
    str or None
        ``None`` if none is near.

    Examples
    --------
    >>> nearest("Dmeo", ["demo", "test"])
    'demo'
    """
    by_lower_case = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_lower_case, n=1)
    return by_lower_case[near[0]] if near else None


def hint(name: str, known: Iterable[str]) -> str:
    """Return the question to end a message with: ``"; did you mean 'demo'?"``, or nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""
