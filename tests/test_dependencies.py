"""The lower bounds in pyproject.toml are the versions that `make test-oldest` installs."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where Python has no tomllib

ROOT = Path(__file__).parents[1]
# For style, coverage, benchmarks, the site and prompts, none of which `make test-oldest` installs.
NOT_TESTED = {
    *{"autolrp", "import-linter", "mypy", "pytest-cov", "ruff", "transformers"},
    *{"furo", "ipykernel", "myst-nb", "scikit-image", "sphinx", "sphinx-copybutton"},
}


def lower_bounds() -> list[tuple[str, Version]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    bounds = set()
    for requirement in map(Requirement, chain.from_iterable(lists)):
        name = canonicalize_name(requirement.name)
        if name != project["name"] and name not in NOT_TESTED:
            (bound,) = (part for part in requirement.specifier if part.operator == ">=")
            bounds.add((name, Version(bound.version)))
    return sorted(bounds)


def oldest_versions() -> dict[str, Version]:
    lines = (ROOT / "constraints" / "oldest.txt").read_text().splitlines()
    pairs = (line.split("#")[0].strip().split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize(("name", "bound"), lower_bounds())
def test_each_lower_bound_is_the_version_in_the_constraints(name: str, bound: Version):
    assert oldest_versions().get(name) == bound


def test_the_constraints_name_only_dependencies():
    assert set(oldest_versions()) == {name for name, _ in lower_bounds()}
