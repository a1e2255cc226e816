"""What a search chooses options by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from faster_isnet.study.search import objective
from faster_isnet.study.settings import ON_BACKGROUNDS


def evaluation(as_it_is: float, **backgrounds: float) -> Any:
    scores = SimpleNamespace(overall={"accuracy": SimpleNamespace(value=as_it_is)})
    replaced = {
        name: {"accuracy": SimpleNamespace(value=value)} for name, value in backgrounds.items()
    }
    sensitivity = SimpleNamespace(backgrounds=replaced) if backgrounds else None
    return SimpleNamespace(sets={"val": SimpleNamespace(scores=scores, sensitivity=sensitivity)})


def test_a_classifier_that_a_background_misleads_is_not_chosen() -> None:
    """Whatever noise does, on which both are at chance, and however much better it is otherwise."""
    misled = evaluation(1.0, blur=0.99, noise=0.14, zeros=0.84, other=0.1)
    honest = evaluation(0.7, blur=0.7, noise=0.1, zeros=0.7, other=0.7)  # whose mean is lower
    assert objective(honest, ON_BACKGROUNDS) > objective(misled, ON_BACKGROUNDS)
    better = evaluation(0.9, blur=0.9, noise=0.1, zeros=0.9, other=0.9)
    assert objective(better, ON_BACKGROUNDS) > objective(honest, ON_BACKGROUNDS)
    assert objective(evaluation(1.0, blur=1.0, other=0.0), ON_BACKGROUNDS) == 0
    assert objective(misled, "accuracy") == 1.0


def test_backgrounds_cannot_be_replaced_without_masks() -> None:
    with pytest.raises(ValueError, match="fewer than two have a mask"):
        objective(evaluation(1.0), ON_BACKGROUNDS)
