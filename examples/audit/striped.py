"""Write the test images of the butterflies as they are, and with stripes of their species.

    python striped.py IMAGES OUT

IMAGES is what ../study/prepare.py wrote. OUT/plain and OUT/striped get the images that no
classifier of ../recipe/final.yaml and ../study/images.yaml has learnt from, OUT/masks their masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from torchvision.utils import save_image

from faster_isnet.data import ImageData, Planting

STUDY = Path(__file__).parent.parent / "study" / "images.yaml"
SIDE = 224


def main() -> None:
    """Write the images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    options = yaml.safe_load(STUDY.read_text(encoding="utf-8"))["data"]["butterflies-stripes"]
    chosen = ("fractions", "keep_near_duplicates_together", "seed")
    data = ImageData(
        arguments.images / "butterflies.csv",
        size=SIDE,
        augmentation=None,
        planting=Planting(**options["planting"]),
        **{name: options[name] for name in chosen},
    )
    for folder, name in (("plain", "test"), ("striped", "test-biased")):
        dataset = data.datasets[name]
        for index, sample in enumerate(data.datasets["test"].samples):
            image, label, mask = dataset[index][:3]
            file = Path(data.class_names[int(label)]) / f"{Path(sample.name).stem}.png"
            for kind, pixels in ((folder, image), ("masks", mask)):
                path = arguments.out / kind / file
                path.parent.mkdir(parents=True, exist_ok=True)
                save_image(pixels, path)


if __name__ == "__main__":
    main()
