from __future__ import annotations

import ast
from pathlib import Path

import pytest

import faster_isnet

ROOT = Path(faster_isnet.__file__).parent
FOLDERS = sorted(path for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__")


def test_the_root_holds_nothing_but_the_folders_and_the_command():
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__init__.pyi", "cli.py", "py.typed"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_folder_says_what_lives_there_and_what_does_not(folder: Path):
    documentation = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert documentation is not None
    first, _, elsewhere = documentation.partition("\n\n")
    assert first.endswith(".")
    assert elsewhere.endswith("."), "a second sentence says what lives elsewhere"
