"""Test that old names of modules work, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest

from faster_isnet.common.moved_modules import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_a_module_has_its_old_name_too(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} is called {MOVED[old]} now"):
        module = importlib.import_module(old)
    new = importlib.import_module(MOVED[old])
    public = [name for name in vars(new) if not name.startswith("_")]
    assert public
    assert all(getattr(module, name) is getattr(new, name) for name in public)


def test_the_warning_names_the_line_that_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "faster_isnet.export", raising=False)
    with pytest.warns(DeprecationWarning, match="faster_isnet.export is called") as caught:
        from faster_isnet.export import export
    assert caught[0].filename == __file__
    assert export.__module__ == "faster_isnet.training.export"
