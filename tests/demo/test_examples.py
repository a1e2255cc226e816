"""Examples that could not be drawn are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from faster_isnet.demo.examples import Example


def example(**changes: object) -> Example:
    fields = {
        "image": torch.rand(1, 8, 8),
        "mask": torch.ones(1, 8, 8),
        "label": 1,
        "caption": "deceiving: mark of class two",
        "heatmaps": {"standard": torch.randn(3, 8, 8), "isnet": torch.randn(1, 8, 8)},
        "predictions": {"standard": 2, "isnet": 1},
    }
    return Example(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.ones(1, 8, 7)}, r"mask must be of size \[8, 8\], got \[8, 7\]"),
        ({"mask": torch.full((1, 8, 8), 255)}, "mask must hold only 0 and 1"),
        ({"image": torch.full((1, 8, 8), torch.inf)}, "image has values that are not finite"),
        (
            {"heatmaps": {"isnet": torch.zeros(1, 4, 4)}},
            r"heatmap of 'isnet' must be of size \[8, 8\], got \[4, 4\]",
        ),
        ({"predictions": {"isnet": 1}}, r"\['isnet', 'standard'\], predictions of \['isnet'\]"),
    ],
)
def test_bad_examples_are_refused_when_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(**changes)
