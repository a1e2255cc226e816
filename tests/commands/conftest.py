"""A folder of images, and a run that was trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toy_runs import CLASSES, fit, picture


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``images`` of class folders, and ``masks`` beside it that lacks some."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    mask = np.zeros((24, 24), np.uint8)
    mask[5:19, 5:19] = 255
    for kind in CLASSES:
        for number in range(20):
            files = {"images": picture(kind, rng)} | ({"masks": mask} if number % 4 else {})
            for folder, pixels in files.items():
                path = root / folder / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root / "images"


@pytest.fixture(scope="session")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has been trained for two epochs."""
    out = tmp_path_factory.mktemp("run")
    fit(images, out)
    return out
