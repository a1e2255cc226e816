"""Checks say what was wrong, which value, and the cure (most are tested where they are called)."""

from __future__ import annotations

import pytest

from faster_isnet.checks import check_choice, check_range


def test_choice() -> None:
    assert check_choice("rule", "zb", ["zb", "flat"]) == "zb"
    with pytest.raises(ValueError, match=r"unknown rule 'zb2'; did you mean 'zb'\? Known: 'fl"):
        check_choice("rule", "zb2", ["zb", "flat"])
    with pytest.raises(TypeError, match="rule must be a string, got int: 3"):
        check_choice("rule", 3, ["zb"])


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_range_includes_its_ends(value: float) -> None:
    assert check_range("p", value, 0, 1) == value


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_range_refuses_what_is_outside(value: float) -> None:
    with pytest.raises(ValueError, match=r"p must be a number in \[0, 1\], got "):
        check_range("p", value, 0, 1)


def test_range_may_exclude_its_lower_end() -> None:
    with pytest.raises(ValueError, match=r"p must be a number in \(0, inf\), got 0"):
        check_range("p", 0, 0, open_low=True)
