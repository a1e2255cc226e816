"""Write small copies of images and masks, and the tables that a study reads.

    python prepare.py DATA OUT [--lungs MASKS] [--side 64]

DATA holds the folders ``covid-cxr``, ``butterflies`` and ``wbc``, see README.md; MASKS is what
``faster-isnet segment predict`` wrote for the radiographs. Without it these are left out.
Images are reduced to 64 × 64 (--side) once, so that no training decodes large files again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from PIL import Image


def radiographs(data: Path, masks: Path) -> pd.DataFrame:
    """Return normal and pneumonia, which are of one source; covid-19 is of another."""
    folder = data / "covid-cxr"
    table = pd.read_csv(folder / "images.csv", dtype=str)
    table = table[table["label"] != "covid"]
    drawn = pd.read_csv(masks / "masks.csv", dtype=str).set_index("image")["mask"]
    names = table["image"].map(lambda path: Path(path).name)
    by_name = {Path(image).name: str(masks / mask) for image, mask in drawn.items()}
    return table.assign(mask=names.map(by_name), image=[str(folder / each) for each in table.image])


def butterflies(data: Path) -> pd.DataFrame:
    """Return ten species."""
    return _table(data / "butterflies")


def cells(data: Path) -> pd.DataFrame:
    """Return white blood cells: those of one laboratory to train on, of the other to test on."""
    table = _table(data / "wbc")
    table = table[table["label"] != "basophil"]  # four images
    own = table[table["dataset"] == "1"]
    internal = own.sample(frac=0.2, random_state=0).index
    validation = own.drop(internal).sample(frac=0.2, random_state=0).index
    table = table.assign(split="train")
    table.loc[validation, "split"] = "val"
    table.loc[internal, "split"] = "test"
    table.loc[table["dataset"] == "2", "split"] = "other"
    return table


def _table(folder: Path) -> pd.DataFrame:
    """Return a folder's table, with whole paths."""
    table = pd.read_csv(folder / "images.csv", dtype=str)
    paths = {name: [str(folder / path) for path in table[name]] for name in ("image", "mask")}
    return table.assign(**paths)


def write(table: pd.DataFrame, name: str, out: Path, side: int) -> None:
    """Write the small images, and the table; images of another laboratory in a table of its own."""
    rows = []
    for number, row in enumerate(table.itertuples()):
        image, mask = (Path(kind) / name / f"{number:04}.png" for kind in ("images", "masks"))
        for source, target, mode in ((row.image, image, "RGB"), (row.mask, mask, "L")):
            (out / target).parent.mkdir(parents=True, exist_ok=True)
            with Image.open(source) as picture:
                small = picture.convert(mode).resize((side, side), Image.Resampling.BOX)
            if mode == "L":
                small = small.point(lambda value: 255 * (value > 127))
            small.save(out / target)
        rows.append((str(image), row.label, str(mask), getattr(row, "split", "")))
    written = pd.DataFrame(rows, columns=["image", "label", "mask", "split"])
    other = written["split"] == "other"
    written[~other].to_csv(out / f"{name}.csv", index=False)
    if other.any():
        written[other].drop(columns="split").to_csv(out / f"{name}-other.csv", index=False)
    print(f"{name}: {len(written)} images")


def main() -> None:
    """Write all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lungs", type=Path)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    data = options.data.resolve()
    write(butterflies(data), "butterflies", options.out, options.side)
    write(cells(data), "cells", options.out, options.side)
    if options.lungs:
        write(radiographs(data, options.lungs.resolve()), "radiographs", options.out, options.side)


if __name__ == "__main__":
    main()
