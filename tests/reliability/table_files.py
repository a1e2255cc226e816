"""Write tables, and the files that they name, for the tests of tables."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

IMAGES = 12
Build = Callable[[Path], str | bytes | None]


def table(*first: str, header: str = "image,label", rest: str = "") -> str:
    """Return a CSV whose first rows are given; others are the base's, with ``rest`` appended."""
    base = [f"{i}.png,{('cat', 'dog')[i % 2]}{rest}" for i in range(IMAGES)]
    return "\n".join([header, *first, *base[len(first) :]]) + "\n"


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def square(value: int = 255, side: int = 8) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[:4, :4] = value
    return mask


def with_file(name: str, pixels: np.ndarray, text: str) -> Build:
    def build(folder: Path) -> str:
        picture(folder / name, pixels)
        return text

    return build


def with_bytes(name: str, content: bytes, text: str) -> Build:
    def build(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return text

    return build


def after(action: Callable[[Path], object], text: str | None) -> Build:
    def build(folder: Path) -> str | None:
        action(folder)
        return text

    return build


def parquet(folder: Path) -> None:
    frame = pd.read_csv(StringIO(table()))
    frame["label"] = [[name] for name in frame["label"]]
    frame.to_parquet(folder / "table.parquet")


HTML = "<html><body><table><tr><td>image</td></tr></table></body></html>"
MASKED = "image,label,mask"
SPLIT = "image,label,split"
GROUPED = "image,label,group"
BOXED = "image,label,x,y,w,h"
BOXES = {"fields": {"boxes": ["x", "y", "w", "h"]}}
THIRDS = "".join(
    f"{i}.png,{('cat', 'dog')[i % 2]},{('train', 'val', 'test')[i // 4]}\n" for i in range(12)
)
