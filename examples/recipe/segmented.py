"""Have the masks of training images drawn by a segmenter of medium quality: for final.yaml.

    python segmented.py IMAGES

IMAGES is what ../study/prepare.py wrote. A small segmenter learns from the masks of some training
images of butterflies, draws those of all training and validation images, and says its Dice on the
images that it did not learn from. IMAGES/butterflies-segmented.csv has these masks, and the exact
ones of the test images, in the division of ../study/images.yaml.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd
import yaml

from faster_isnet.data import ImageData
from faster_isnet.segmentation import (
    SegmenterSettings,
    compare_masks,
    fit_segmenter,
    load_segmenter,
    predict_masks,
)

STUDY = Path(__file__).parent.parent / "study" / "images.yaml"
LEARNT_FROM = 80  # masks; with fewer the Dice is lower
SETTINGS = SegmenterSettings(size=64, epochs=30, components=1)


def main() -> None:
    """Train the segmenter, and write masks and table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    folder = parser.parse_args().images.resolve()
    data = divided(folder)
    names = {
        split: [Path(sample.name).relative_to(folder) for sample in data.datasets[split].samples]
        for split in ("train", "val", "test")
    }
    masks = {
        Path(sample.name).relative_to(folder): Path(str(sample.mask))
        for dataset in data.datasets.values()
        for sample in dataset.samples
    }
    few = pd.Series(names["train"]).sample(LEARNT_FROM, random_state=0).tolist()
    segmenter = folder / "segmented" / "segmenter"
    if not segmenter.exists():
        fit_segmenter([(folder / name, masks[name]) for name in few], segmenter, SETTINGS)
    drawn = folder / "segmented" / "masks"
    to_draw = [folder / name for split in ("train", "val") for name in names[split]]
    table = predict_masks(load_segmenter(segmenter), to_draw, drawn, root=folder, overwrite=True)

    (exact,) = {masks[name].parent for name in few}
    agreement = compare_masks(drawn / names["train"][0].parent, exact)
    others = agreement[~agreement["mask"].map(lambda path: Path(path).stem).isin(stems(few))]
    print(f"Dice {others['dice'].mean():.3f} on {len(others)} images it did not learn from")
    print(f"{int((~table['plausible']).sum())} of {len(table)} masks are called implausible")

    labels = pd.read_csv(folder / "butterflies.csv", dtype=str).set_index("image")["label"]
    rows = [
        {
            "image": name.as_posix(),
            "label": labels[name.as_posix()],
            "mask": os.path.relpath(
                masks[name] if split == "test" else (drawn / name).with_suffix(".png"), folder
            ),
            "split": split,
        }
        for split, members in names.items()
        for name in members
    ]
    pd.DataFrame(rows).to_csv(folder / "butterflies-segmented.csv", index=False)


def divided(folder: Path) -> ImageData:
    """Return the butterflies in the division of the study."""
    options = yaml.safe_load(STUDY.read_text(encoding="utf-8"))["data"]["butterflies-mark"]
    chosen = ("fractions", "keep_near_duplicates_together", "seed", "size")
    data = ImageData(
        folder / "butterflies.csv", augmentation=None, **{name: options[name] for name in chosen}
    )
    data.setup()
    return data


def stems(paths: list[Path]) -> set[str]:
    """Return the names of files without their suffixes."""
    return {path.stem for path in paths}


if __name__ == "__main__":
    main()
