"""Copy the photographs of the audited images, and their masks, as they were taken.

    python photographs.py DATA OUT

DATA is the folder of the butterflies, OUT what striped.py wrote: its images were reduced to
64 x 64 for the classifiers that learnt from them, which an ImageNet network has not.
OUT/photographs and OUT/photograph-masks get the originals of OUT/plain.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd


def main() -> None:
    """Copy the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.data / "images.csv", dtype=str)  # prepare.py numbers its rows
    for image in (arguments.out / "plain").rglob("*.png"):
        row = table.iloc[int(image.stem)]
        assert row["label"] == image.parent.name
        for column, folder in (("image", "photographs"), ("mask", "photograph-masks")):
            source = arguments.data / row[column]
            target = arguments.out / folder / row["label"] / f"{image.stem}{source.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
