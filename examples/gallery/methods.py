"""Draw heatmaps of every method of a study, for docs/gallery.md.

    python methods.py STUDY OUT.png

STUDY is what ``faster-isnet study examples/study/digits.yaml`` wrote. The best network of each
method's first seed is explained, by LRP-ε, on the same test digits beside another class's mark.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch.utils.data import DataLoader

from faster_isnet import Explainer
from faster_isnet.commands.network_loading import load_model
from faster_isnet.data import BiasedDigitsData

DIGITS = 5
SIZES = {"train_size": 2000, "val_size": 400, "test_size": 600}  # as in digits.yaml
WITHOUT = {"masked"}  # it needs the masks in use, too


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    data = BiasedDigitsData(**SIZES)
    data.setup()
    images, labels, *_ = next(iter(DataLoader(data.test_sets["deceiving"], batch_size=600)))
    runs = arguments.study.glob("digits/*/seed-0")
    trained = {
        run.parent.name: load_model(str(run)).network.eval()
        for run in runs
        if run.parent.name not in WITHOUT
    }
    with torch.no_grad():
        right = {
            name: (network(images).argmax(1) == labels).float().mean().item()
            for name, network in trained.items()
        }

    columns = 2
    lines = -(-len(trained) // columns)
    figure, axes = plt.subplots(
        1 + lines, columns * DIGITS, figsize=(11, 1.15 * (1 + lines)), layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image in zip(axes[0, :DIGITS], images, strict=False):
        axis.imshow(image.movedim(0, -1))
    for number, name in enumerate(sorted(trained, key=right.__getitem__, reverse=True)):
        heatmaps = Explainer(trained[name])(images[:DIGITS]).heatmap[:, 0].sum(1)
        row = axes[1 + number % lines, number // lines * DIGITS :]
        row[0].set_title(f"{name}: {right[name]:.0%}", loc="left", fontsize=10)
        for axis, heatmap in zip(row, heatmaps, strict=False):
            limit = heatmap.abs().quantile(0.995)
            axis.imshow(heatmap, cmap="seismic", vmin=-limit, vmax=limit)
    figure.savefig(arguments.out, dpi=90)
    with Image.open(arguments.out) as picture:  # 256 colours do, in half the size
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    small.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
