"""Evaluations of two classifiers: one reads the foreground, the other the background."""

from __future__ import annotations

import pytest

from faster_isnet.evaluation import Differences, differences
from faster_isnet.evaluation.evaluator import EvaluationSettings, Evaluator
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation, save_evaluation
from toy_images import CLASSES, Reader, toy_dataset

HOSTILE = "<script>alert('x')</script>\"& $x$"


@pytest.fixture(scope="session")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> list[SavedEvaluation]:
    """On the data sets ``test``, and ``elsewhere`` without masks; the second has a hostile name."""
    root = tmp_path_factory.mktemp("evaluations")
    sets = {"test": toy_dataset(root / "a"), "elsewhere": toy_dataset(root / "b", 4, masked=0)}
    saved = []
    for name, foreground in (("foreground", True), (HOSTILE, False)):
        settings = EvaluationSettings(resamples=50, examples=1, worst=1, accelerator="cpu")
        evaluator = Evaluator(Reader(foreground), CLASSES, settings)
        found = {data: evaluator(dataset) for data, dataset in sets.items()}
        out = root / str(foreground)
        checkpoint = root / "best.ckpt"
        checkpoint.write_bytes(b"weights, whose hash is on the page")
        warnings = [] if foreground else [f"nothing was learnt {HOSTILE}"]
        save_evaluation(
            out,
            found,
            evaluator,
            name=name,
            checkpoint=checkpoint,
            seconds=1.25,
            training_warnings=warnings,
        )
        saved.append(SavedEvaluation.load(out))
    return saved


@pytest.fixture(scope="session")
def compared(evaluations: list[SavedEvaluation]) -> dict[str, dict[str, Differences]]:
    """How the second differs from the first."""
    first, second = evaluations
    return {
        data: {
            second.name: differences(
                first.predictions(data), second.predictions(data), resamples=50
            )
        }
        for data in first.sets
    }
