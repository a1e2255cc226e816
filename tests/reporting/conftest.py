"""Two tested classifiers: one reads the foreground, the other the background."""

from __future__ import annotations

from pathlib import Path

import pytest

from faster_isnet.evaluation import differences
from faster_isnet.evaluation.evaluation_files import TestedRun, save_test
from faster_isnet.evaluation.evaluator import Judge, TestSettings
from toy_images import CLASSES, Reader, toy_dataset

HOSTILE = "<script>alert('x')</script>\"& $x$"


@pytest.fixture(scope="session")
def tested(tmp_path_factory: pytest.TempPathFactory) -> list[TestedRun]:
    """On the data sets ``test``, and ``elsewhere`` without masks; the second has a hostile name."""
    root = tmp_path_factory.mktemp("tested")
    sets = {"test": toy_dataset(root / "a"), "elsewhere": toy_dataset(root / "b", 4, masked=0)}
    runs = []
    for name, foreground in (("foreground", True), (HOSTILE, False)):
        settings = TestSettings(samples=50, examples=1, worst=1, accelerator="cpu")
        judge = Judge(Reader(foreground), CLASSES, settings)
        found = {data: judge(dataset) for data, dataset in sets.items()}
        out = root / str(foreground)
        save_test(out, found, judge, name=name, checkpoint=Path("best.ckpt"), seconds=1.25)
        runs.append(TestedRun.load(out))
    return runs


@pytest.fixture(scope="session")
def compared(tested: list[TestedRun]) -> dict:
    """What the second has more than the first."""
    first, second = tested
    return {
        data: {
            second.name: differences(first.predictions(data), second.predictions(data), samples=50)
        }
        for data in first.sets
    }
