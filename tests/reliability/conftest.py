"""A folder of images and a run, for all kinds of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toy_runs import CLASSES, fit, picture


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``images`` of class folders, and ``masks`` beside it."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    mask = np.zeros((24, 24), np.uint8)
    mask[5:19, 5:19] = 255
    for kind in CLASSES:
        for number in range(12):
            for folder, pixels in {"images": picture(kind, rng), "masks": mask}.items():
                path = root / folder / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root / "images"


@pytest.fixture(scope="session")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs."""
    out = tmp_path_factory.mktemp("run")
    fit(images, out, "--method", "standard")
    return out
