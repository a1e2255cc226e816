"""Draw closer masks inside of boxes and of masks that were grown: GrabCut on striped butterflies.

    python closer.py IMAGES

undrawn.py has written the images and their masks. For boxes and for masks grown by 10 % of the side
this writes the masks of training and validation images as they would be given, and what
``faster-isnet segment auto --with grabcut --boxes`` makes of them; test images have exact ones.
IMAGES/striped/{boxes,boxes-grabcut,grown,grown-grabcut}.csv differ in these masks alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from faster_isnet.data import WorseMasks
from faster_isnet.data.masks import read_mask
from faster_isnet.segmentation import compare_masks
from faster_isnet.segmentation.grabcut import grabcut

GIVEN = {"boxes": WorseMasks(boxes=True), "grown": WorseMasks(grow=0.1)}


def main() -> None:
    """Write masks and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    folder = parser.parse_args().images.resolve() / "striped"
    drawn = pd.read_csv(folder / "drawn.csv", dtype=str)
    learnt = drawn["split"].isin(["train", "val"])
    for name, worse in GIVEN.items():
        for image in drawn.loc[learnt, "image"]:
            write_masks(folder, name, image, worse)
        for kind in (name, f"{name}-grabcut"):
            table = drawn.copy()
            table.loc[learnt, "mask"] = f"{kind}/" + drawn.loc[learnt, "image"]
            table.to_csv(folder / f"{kind}.csv", index=False)
            for split in ("train", "val"):
                agreement = compare_masks(folder / kind / split, folder / "masks" / split)
                dice = agreement["dice"]
                print(f"{kind}, {split}: Dice {dice.median():.3f} (10 %: {dice.quantile(0.1):.3f})")


def write_masks(folder: Path, name: str, image: str, worse: WorseMasks) -> None:
    """Write the mask that is given, and the closer one; where that finds nothing, the given one."""
    given = worse.worsen(read_mask(folder / "masks" / image), image)
    foreground = given[0].numpy() == 1
    pixels = np.asarray(Image.open(folder / image).convert("RGB"))
    found = foreground if foreground.all() else grabcut(pixels, foreground)
    closer = found if found.any() else foreground
    for kind, mask in ((name, foreground), (f"{name}-grabcut", closer)):
        path = folder / kind / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)


if __name__ == "__main__":
    main()
