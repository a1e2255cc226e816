"""Measure how faithful explanations of a vision transformer are, by flipping patches.

    python faithfulness.py OUT [--images TABLE.csv] [--seeds 0 1 2]

A small transformer is trained for each seed, on digits or on the images of a table (columns
``image``, a path from the table's folder, and ``label``). Each explanation orders the patches of
the test images. Patches are replaced one after another, the most relevant first and the least
relevant first; the area between the two curves of the predicted class's logit is the measure: the
larger, the more faithful (Samek et al., IEEE TNNLS 28, 2017; Bach et al., PLoS ONE 10, 2015).
``OUT/areas.npz`` and ``OUT/faithfulness.md`` are written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.transforms import v2

from faster_isnet import Explainer
from faster_isnet.benchmark.lxt_transformer import LxtTransformer
from faster_isnet.data import BiasedDigits, BiasedDigitsData
from faster_isnet.data.images import read_image
from faster_isnet.evaluation.intervals import mean_score, original_and_resamples

SIZE, PATCH = 48, 6
GRID = SIZE // PATCH
STEPS = np.linspace(0, GRID**2, 17).astype(int)
"""How many patches are replaced at each point of a curve."""

Method = Callable[[Tensor, Tensor], Tensor]
"""Scores each patch, ``[B, GRID, GRID]``, given images and classes."""


def digits(seed: int, tests: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images and labels to train and to test on: digits on textures, without a bias."""
    data = BiasedDigitsData()
    biased = data.train_dataloader().dataset
    unbiased = BiasedDigits(biased.digits, biased.labels, bias="unbiased", augment=True)
    torch.manual_seed(seed)
    copies = [unbiased[i] for _ in range(4) for i in range(len(unbiased))]
    tested = [data.test_sets["unbiased"][i] for i in range(tests)]
    return (*_stacked(copies), *_stacked(tested))


def pictures(table: Path, tests: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images and labels of a table; every third image is tested on.

    Classes of fewer than ten images are left out.
    """
    rows = pd.read_csv(table, dtype=str)
    rows = rows[rows.groupby("label")["label"].transform("size") >= 10].sample(
        frac=1, random_state=0
    )
    images = torch.stack([_picture(table.parent / path) for path in rows["image"]])
    codes = rows["label"].astype("category").cat.codes
    found = torch.tensor(codes.to_numpy(), dtype=torch.int64)
    test = torch.arange(len(rows)) % 3 == 0
    return images[~test], found[~test], images[test][:tests], found[test][:tests]


def _picture(path: Path) -> Tensor:
    image = v2.functional.resize(read_image(path), [SIZE], antialias=True)
    return v2.functional.center_crop(image, [SIZE]).clamp(0, 1).expand(3, -1, -1)


def _stacked(samples: Sequence[tuple[Tensor, int, Tensor, int]]) -> tuple[Tensor, Tensor]:
    images, labels, _, _ = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)


class Centred(nn.Module):
    """Subtract the training images' mean and divide by their deviation, by channel."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.mean = images.mean((0, 2, 3))[:, None, None]
        self.deviation = images.std((0, 2, 3))[:, None, None]

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, centred."""
        return (images - self.mean) / self.deviation


def trained(images: Tensor, labels: Tensor, seed: int, steps: int, batch: int = 64) -> nn.Module:
    """Train a transformer of 4 blocks and 64 tokens from random weights."""
    torch.manual_seed(seed)
    model = VisionTransformer(
        **{"image_size": SIZE, "patch_size": PATCH, "num_layers": 4, "num_heads": 4},
        **{"hidden_dim": 64, "mlp_dim": 128, "num_classes": int(labels.max()) + 1},
    )
    nn.init.normal_(model.heads.head.weight, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    order = torch.randperm(len(images))
    for step in range(steps):
        if (step * batch) % len(images) + batch > len(images):
            order = torch.randperm(len(images))
        chosen = order[(step * batch + torch.arange(batch)) % len(images)]
        x = _shifted(images[chosen])
        loss = F.cross_entropy(model(x), labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _shifted(images: Tensor, most: int = 2) -> Tensor:
    top, left = torch.randint(2 * most + 1, (2,)).tolist()
    padded = F.pad(images, [most] * 4, mode="replicate")
    return padded[..., top : top + images.shape[-2], left : left + images.shape[-1]]


def methods(model: VisionTransformer) -> dict[str, Method]:
    """Return what is compared, by name."""

    def by_composite(name: str) -> Method:
        explainer = Explainer(model, name)
        return lambda images, classes: _patches(explainer(images, classes).heatmap[:, 0])

    def gradient(images: Tensor, classes: Tensor) -> Tensor:
        pixels = images.clone().requires_grad_()
        logits = model(pixels).gather(1, classes[:, None])
        (found,) = torch.autograd.grad(logits.sum(), pixels)
        return _patches(found.abs())

    def by_chance(images: Tensor, classes: Tensor) -> Tensor:
        return torch.rand(len(images), GRID, GRID, generator=torch.Generator().manual_seed(0))

    return {
        "flex": by_composite("flex"),
        "LXT (AttnLRP)": lambda x, c: _patches(LxtTransformer(model).explain(x, c)),
        "cp-lrp": by_composite("cp-lrp"),
        "LXT (CP-LRP)": lambda x, c: _patches(
            LxtTransformer(model, constant_weights=True).explain(x, c)
        ),
        "epsilon": by_composite("epsilon"),
        "gradient-x-input": by_composite("gradient-x-input"),
        "gradient, absolute": gradient,
        "Chefer et al.": lambda images, classes: relevancy_map(model, images, classes),
        "random order": by_chance,
    }


def relevancy_map(model: VisionTransformer, images: Tensor, classes: Tensor) -> Tensor:
    """Accumulate the attention maps, weighted by their gradients (Chefer et al., ICCV 2021).

    R starts as the identity; each block adds Ā R, where Ā is the mean over heads of the positive
    part of A ⊙ ∂logit/∂A.
    """
    x = model._process_input(images)
    x = torch.cat([model.class_token.expand(len(x), -1, -1), x], 1) + model.encoder.pos_embedding
    maps = []
    for block in model.encoder.layers:
        attention, y = block.self_attention, block.ln_1(x)
        q, k, v = F.linear(y, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        q, k, v = (t.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        maps.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1))
        x = x + attention.out_proj((maps[-1] @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
    logits = model.heads(model.encoder.ln(x)[:, 0]).gather(1, classes[:, None])
    gradients = torch.autograd.grad(logits.sum(), maps)
    relevance = torch.eye(maps[0].shape[-1]).expand(len(images), -1, -1)
    for weights, of_weights in zip(maps, gradients, strict=True):
        relevance = relevance + (weights * of_weights).clamp_min(0).mean(1).detach() @ relevance
    return relevance[:, 0, 1:].unflatten(1, (GRID, GRID))


def _patches(pixels: Tensor) -> Tensor:
    """Sum pixels ``[B, 3, SIZE, SIZE]`` over channels and patches."""
    return F.avg_pool2d(pixels.sum(1, keepdim=True), PATCH).squeeze(1) * PATCH**2


def curves(
    model: nn.Module, images: Tensor, classes: Tensor, other: Tensor, order: Tensor
) -> Tensor:
    """Return the logit and the probability of the classes, ``[2, B, len(STEPS)]``.

    ``other`` holds the images that patches are taken from, ``order`` ``[B, GRID²]`` the patches in
    the order in which they are replaced.
    """
    rank = order.argsort(1).unflatten(1, (1, GRID, GRID)).float()
    rank = F.interpolate(rank, scale_factor=PATCH)
    points = []
    for count in STEPS.tolist():
        logits = model(torch.where(rank < count, other, images))
        both = torch.stack([logits, logits.softmax(1)])
        points.append(both.gather(2, classes.expand(2, -1)[..., None]).squeeze(2))
    return torch.stack(points, 2)


def replacements(images: Tensor) -> dict[str, Tensor]:
    """Return what patches are replaced by: the image's mean colour, or the image blurred."""
    return {
        "mean": images.mean((2, 3), keepdim=True).expand_as(images),
        "blur": v2.functional.gaussian_blur(images, [31, 31], [8.0, 8.0]),
    }


def areas(
    model: nn.Sequential, images: Tensor, classes: Tensor
) -> dict[tuple[str, str, int], Tensor]:
    """Return the area between the curves of each image, by method, replacement and quantity.

    ``model`` centres the images, then classifies them; what is explained is the latter.
    """
    found = {}
    for name, method in methods(model[1]).items():
        scores = method(model[0](images), classes).flatten(1)
        for replaced, other in replacements(images).items():
            with torch.no_grad():
                least, most = (
                    curves(model, images, classes, other, scores.argsort(1, descending=down))
                    for down in (False, True)
                )
            for quantity in (0, 1):
                found[name, replaced, quantity] = (least - most)[quantity].mean(1)
    return found


def table(found: dict[tuple[str, str, int], np.ndarray]) -> str:
    """Return the areas as a table in Markdown; each entry of ``found`` is ``[seeds, images]``."""
    (count,) = {array.shape[1] for array in found.values()}
    weights = original_and_resamples(count)
    columns = [("mean", 0), ("blur", 0), ("mean", 1), ("blur", 1)]
    lines = ["| method | logit, mean | minus flex | logit, blurred | minus flex "
             "| probability, mean | probability, blurred | by seed (logit, mean) |",
             "|" + " --- |" * 8]  # fmt: skip
    for name in dict.fromkeys(name for name, _, _ in found):
        cells = []
        for replaced, quantity in columns:
            of_image = found[name, replaced, quantity]
            cells.append(_interval(of_image.mean(0), weights, 2 + quantity))
            if quantity == 0:
                less = of_image - found["flex", replaced, quantity]
                cells.append("" if name == "flex" else _interval(less.mean(0), weights, 2))
        each = ", ".join(f"{value:.2f}" for value in found[name, "mean", 0].mean(1))
        lines.append("| " + " | ".join([name, *cells, each]) + " |")
    return "\n".join(lines) + "\n"


def _interval(values: np.ndarray, weights: np.ndarray, digits: int) -> str:
    score = mean_score(values, weights, 0.95)
    return f"{score.value:.{digits}f} ({score.low:.{digits}f} to {score.high:.{digits}f})"


def main() -> None:
    """Train, explain, measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path, help="table of images; default: digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000, help="of the training")
    parser.add_argument("--tests", type=int, default=300, help="number of images to test on")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    each_seed, lines = [], []

    def data(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if options.images is None:
            return digits(seed, options.tests)
        return pictures(options.images, options.tests)

    for seed in options.seeds:
        started = time.process_time()
        x, y, images, labels = data(seed)
        centred = Centred(x)
        transformer = trained(centred(x), y, seed, options.steps)
        model = nn.Sequential(centred, transformer)
        with torch.no_grad():
            classes = model(images).argmax(1)
        accuracy = (classes == labels).float().mean().item()
        trained_in = time.process_time() - started
        each_seed.append(areas(model, images, classes))
        took = time.process_time() - started
        lines.append(f"Seed {seed}: accuracy {accuracy:.1%} on {len(images)} images, "
                     f"{trained_in:.0f} s to train, {took:.0f} s in all.")  # fmt: skip
        print(lines[-1], flush=True)
        found = {key: torch.stack([one[key] for one in each_seed]).numpy() for key in each_seed[0]}
        np.savez(options.out / "areas.npz", **{"/".join(map(str, k)): v for k, v in found.items()})
        text = table(found) + "\n" + "\n".join(lines) + "\n"
        (options.out / "faithfulness.md").write_text(text)


if __name__ == "__main__":
    main()
