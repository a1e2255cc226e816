"""Write the tables that the commands read: images with their groups, and the lungs' masks.

    python prepare.py DATA OUT

DATA holds ``images.csv`` (image, label, source, original) and ``lungs.csv`` (image, mask,
original). Patients are not named. Files whose original names are the same up to the last letter or
number of them (``…-a.jpg``, ``…-day12.jpg``) are taken for one patient's; what looks the same is
put together later, by ``data.keep_near_duplicates_together``.
"""

import re
import sys
from pathlib import Path

import pandas as pd


def group(original: str) -> str:
    """Return the name of a file without the number or letter at its end."""
    stem = Path(original).stem
    return re.sub(
        r"(?:[-_.]?(?:day|fig|img)?-?\d+[a-z]?|[-_.][a-z])$", "", stem, flags=re.IGNORECASE
    )


def with_whole_paths(table: pd.DataFrame, data: Path, *columns: str) -> pd.DataFrame:
    """Return the table with paths that hold wherever it lies."""
    return table.assign(**{name: [str(data / path) for path in table[name]] for name in columns})


def main(data: Path, out: Path) -> None:
    """Write both tables."""
    out.mkdir(parents=True, exist_ok=True)
    images = pd.read_csv(data / "images.csv", dtype=str)
    images["group"] = images["source"] + "/" + images["original"].map(group)
    images = with_whole_paths(images, data.resolve(), "image")
    images[["image", "label", "group"]].to_csv(out / "images.csv", index=False)
    lungs = pd.read_csv(data / "lungs.csv", dtype=str)
    lungs["group"] = lungs["original"].map(group)
    lungs = with_whole_paths(lungs, data.resolve(), "image", "mask")
    lungs[["image", "mask", "group"]].to_csv(out / "lungs.csv", index=False)
    print(f"{len(images)} images of {images['group'].nunique()} groups, {len(lungs)} with lungs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
