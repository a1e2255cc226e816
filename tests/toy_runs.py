"""Trainings of two epochs, for tests of commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from faster_isnet.cli import main

CLASSES = ("bright", "dark", "striped")


def picture(kind: str, rng: np.random.Generator) -> np.ndarray:
    image = rng.integers(0, 60, (24, 24)).astype(np.uint8)
    inside = {"bright": 220, "dark": 90, "striped": np.tile([[90], [220]], (6, 12))}[kind]
    image[6:18, 6:18] = inside
    return image


def write_images(images: Path) -> None:
    """Write class folders into ``images``, and into ``masks`` beside it masks for most of them."""
    rng = np.random.default_rng(0)
    mask = np.zeros((24, 24), np.uint8)
    mask[5:19, 5:19] = 255
    for kind in CLASSES:
        for number in range(20):
            files = {images: picture(kind, rng)}
            if number % 4:
                files[images.with_name("masks")] = mask
            for folder, pixels in files.items():
                path = folder / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)


def fit(images: Path, out: Path, *more: str) -> None:
    words = ["--data.source", images, "--data.masks", images.with_name("masks")]
    words += ["--data.size", 24, "--data.batch_size", 16, "--out", out, "--model.backbone"]
    words += ["convnet", "--trainer.max_epochs", 2, "--missing_masks", "keep"]
    assert main(["fit", *map(str, words), *more]) == 0
