"""Checks of what a user passes in: each says what was wrong, which value, and the cure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def check_choice(kind: str, name: object, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of the ``known`` names.

    Parameters
    ----------
    kind
        What is being named, for the message (``"variant"``, ``"layer"``, …).
    name
        The name given.
    known
        The names that exist.

    Raises
    ------
    TypeError
        If ``name`` is not a string.
    ValueError
        If ``name`` is unknown; the message lists the known names and the nearest one.

    Examples
    --------
    >>> check_choice("variant", "selective", ["selective", "original"])
    'selective'
    >>> check_choice("variant", "selectve", ["selective", "original"])
    Traceback (most recent call last):
    ...
    ValueError: unknown variant 'selectve'; did you mean 'selective'? Known: 'original', 'selective'
    """
    names = sorted(known)
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be a string, got {type(name).__name__}: {name!r}")
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = ", ".join(map(repr, names[:40])) + (", …" if len(names) > 40 else "")
        raise ValueError(f"unknown {kind} {name!r}; {hint}Known: {listed}")
    return name
