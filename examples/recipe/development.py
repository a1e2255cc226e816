"""Write tables of the images on which the recipe is developed: none of the final test images.

    python development.py IMAGES

IMAGES is what ../study/prepare.py wrote. The division of ../study/images.yaml is made, its test
images are left out, and the others are written to IMAGES/development/NAME.csv without a split, to
be divided anew.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd
import yaml

from faster_isnet.data import ImageData

STUDY = Path(__file__).parent.parent / "study" / "images.yaml"
NAMES = {"radiographs-mark": "radiographs", "butterflies-mark": "butterflies"}


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    folder = parser.parse_args().images.resolve()
    out = folder / "development"
    out.mkdir(exist_ok=True)
    settings = yaml.safe_load(STUDY.read_text(encoding="utf-8"))["data"]
    for entry, name in NAMES.items():
        options = settings[entry]
        data = ImageData(
            folder / f"{name}.csv",
            fractions=options["fractions"],
            keep_near_duplicates_together=options["keep_near_duplicates_together"],
            seed=options["seed"],
            size=options["size"],
        )
        data.setup()
        seen = {
            os.path.realpath(sample.name)
            for split in ("train", "val")
            for sample in data.datasets[split].samples
        }
        table = pd.read_csv(folder / f"{name}.csv", dtype=str)
        kept = table[[os.path.realpath(folder / image) in seen for image in table["image"]]]
        paths = {
            column: [os.path.relpath(folder / path, out) for path in kept[column]]
            for column in ("image", "mask")
        }
        kept.assign(**paths).drop(columns="split").to_csv(out / f"{name}.csv", index=False)
        print(f"{name}: {len(kept)} of {len(table)} images")


if __name__ == "__main__":
    main()
