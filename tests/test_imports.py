"""What is imported when: torch and Lightning take seconds, which a short command need not."""

from __future__ import annotations

import subprocess
import sys

import pytest

import faster_isnet


@pytest.mark.parametrize(
    ("code", "unused"),
    [
        ("import faster_isnet", ("torch", "numpy")),
        ("from faster_isnet.cli import main; main(['--version'])", ("torch", "numpy")),
        ("from faster_isnet.cli import main; main(['--help'])", ("torch", "numpy")),
        ("from faster_isnet import Explainer", ("lightning", "torchvision", "pandas")),
    ],
)
def test_what_is_not_needed_is_not_imported(code: str, unused: tuple[str, ...]) -> None:
    end = f"import sys\nassert not {{*{unused}}} & sys.modules.keys()"
    whole = f"try:\n    {code}\nexcept SystemExit:\n    pass\n{end}"
    subprocess.run([sys.executable, "-c", whole], check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("name", faster_isnet.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(faster_isnet, name) is not None
    assert name in dir(faster_isnet)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="ISnet"):
        faster_isnet.ISnet  # type: ignore[attr-defined]  # noqa: B018
