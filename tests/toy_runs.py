"""Trainings of two epochs, for tests of commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from faster_isnet.cli import main

CLASSES = ("bright", "dark", "striped")


def picture(kind: str, rng: np.random.Generator) -> np.ndarray:
    image = rng.integers(0, 60, (24, 24)).astype(np.uint8)
    inside = {"bright": 220, "dark": 90, "striped": np.tile([[90], [220]], (6, 12))}[kind]
    image[6:18, 6:18] = inside
    return image


def fit(images: Path, out: Path, *more: str) -> None:
    words = ["--data.source", images, "--data.masks", images.with_name("masks")]
    words += ["--data.size", 24, "--data.batch_size", 16, "--out", out, "--model.backbone"]
    words += ["convnet", "--trainer.max_epochs", 2]
    assert main(["fit", *map(str, words), *more]) == 0
