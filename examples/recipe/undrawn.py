"""Write butterflies with stripes of their species as files, with masks by hand and by a network.

    python undrawn.py IMAGES U2NETP

IMAGES is what ../study/prepare.py --side 224 wrote, U2NETP the file u2netp.onnx that
``faster-isnet segment auto --download`` fetches. The images of the division of ../study/images.yaml
are written to IMAGES/striped, with their stripes, and the network draws the masks of what training
and validation images show: with the stripes, as somebody who has no masks would have them drawn.
IMAGES/striped/drawn.csv and salient.csv differ in these masks alone; test images have exact ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import yaml
from torchvision.utils import save_image

from faster_isnet.data import ImageData, Planting
from faster_isnet.segmentation import compare_masks, predict_masks, pretrained_segmenter

STUDY = Path(__file__).parent.parent / "study" / "images.yaml"
SETS = ("train", "val", "test", "test-biased", "test-deceiving")
SIDE = 224


def main() -> None:
    """Write images, masks and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("u2netp", type=Path)
    arguments = parser.parse_args()
    out = arguments.images.resolve() / "striped"
    data = striped(arguments.images)
    drawn = pd.concat([written(data, name, out) for name in SETS])

    learnt = drawn["split"].isin(["train", "val"])
    segmenter = pretrained_segmenter("salient", weights=arguments.u2netp)
    images = [out / image for image in drawn.loc[learnt, "image"]]
    table = predict_masks(segmenter, images, out / "salient", root=out, overwrite=True)
    salient = drawn.copy()
    salient.loc[learnt, "mask"] = "salient/" + drawn.loc[learnt, "image"]
    for split in ("train", "val"):
        agreement = compare_masks(out / "salient" / split, out / "masks" / split)
        print(f"{split}: Dice {agreement['dice'].mean():.3f} on {len(agreement)} images")
    print(f"{int((~table['plausible']).sum())} of {len(table)} masks are called implausible")

    for name, masks in (("drawn", drawn), ("salient", salient)):
        masks[masks["split"] != "other"].to_csv(out / f"{name}.csv", index=False)
    for name in ("test", "test-deceiving"):
        rows = drawn[drawn["image"].str.startswith(f"{name}/")]
        rows.drop(columns="split").to_csv(out / f"{name}.csv", index=False)


def striped(images: Path) -> ImageData:
    """Return the butterflies with stripes, in the division of the study."""
    options = yaml.safe_load(STUDY.read_text(encoding="utf-8"))["data"]["butterflies-stripes"]
    chosen = ("fractions", "keep_near_duplicates_together", "seed")
    return ImageData(
        images / "butterflies.csv",
        size=SIDE,
        augmentation=None,
        planting=Planting(**options["planting"]),
        **{option: options[option] for option in chosen},
    )


def written(data: ImageData, name: str, out: Path) -> pd.DataFrame:
    """Write the images and masks of a set, and return their rows."""
    split = {"test-biased": "test", "test": "other", "test-deceiving": "other"}.get(name, name)
    rows = []
    samples = data.datasets["test" if name.startswith("test") else name].samples
    for index, sample in enumerate(samples):
        image, label, mask = data.datasets[name][index][:3]
        species = data.class_names[int(label)]
        file = f"{name}/{species}/{Path(sample.name).stem}.png"
        for path, pixels in ((out / file, image), (out / "masks" / file, mask)):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(pixels, path)
        rows.append({"image": file, "label": species, "mask": f"masks/{file}", "split": split})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
