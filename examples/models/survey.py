"""Explain and train one network of each family of torchvision and timm, with random weights.

Writes a table in Markdown; see README.md.

- *conserved*: |Σ relevance − logit| / |logit| with biases, position embeddings and class tokens of
  0 and ε → 0, in float64, by ``cp-lrp`` and by ``flex`` (:meth:`faster_isnet.Explainer.supports`);
- *trained*: whether the gradient of an ISNet's loss is finite, and a small enough step against
  the gradient of the heatmap loss makes that smaller;
- *step*: the processor time of a training step of the ISNet, in those of the standard classifier.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet, ISNetLoss

SIZES = (64, 96, 128, 160, 192, 224, 240, 256)
CLASSES, BATCH, ROUNDS = 4, 4, 3
CONSERVED = 1e-3
WITHOUT_AUXILIARY = {"googlenet": {"aux_logits": False}, "inception_v3": {"aux_logits": False}}


def build(name: str, size: int) -> nn.Module:
    """Build ``timm:NAME`` or ``torchvision:NAME`` for images of a size."""
    torch.manual_seed(0)
    library, _, name = name.partition(":")
    if library == "torchvision":
        options: dict[str, Any] = {"num_classes": CLASSES, **WITHOUT_AUXILIARY.get(name, {})}
        if name.startswith("vit"):
            options["image_size"] = size
        return torchvision.models.get_model(name, **options)  # type: ignore[no-any-return]
    try:
        network = timm.create_model(name, num_classes=CLASSES, img_size=size)
    except TypeError:
        network = timm.create_model(name, num_classes=CLASSES)
    return network  # type: ignore[no-any-return]


def smallest(name: str) -> tuple[nn.Module, int]:
    """Return the network for the smallest images that it runs on, and their size."""
    for size in SIZES:
        try:
            network = build(name, size)
            with torch.no_grad():
                network.eval()(torch.rand(2, 3, size, size))
        except Exception as error:
            last = error
        else:
            return network, size
    raise RuntimeError(f"{name} runs on none of the sizes {SIZES}: {last}")


def without_zeros(network: nn.Module) -> None:
    """Fill weights that start as 0, as those of some heads do: nothing would come through."""
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.05)


def falls(net: ISNet, loss: Callable[[], Tensor]) -> bool:
    """Return whether some step against the gradient of a loss makes it smaller."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    before = loss()
    gradients = torch.autograd.grad(before, parameters, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    norm = sum(g.square().sum() for _, g in used).sqrt()
    done = 0.0
    for step in (1e-1, 1e-2, 1e-3, 1e-4):
        with torch.no_grad():
            for p, g in used:
                p -= (step - done) * g / norm
        done = step
        if loss() < before:
            return True
    return False


def train(network: nn.Module, size: int) -> dict[str, Any]:
    """Train an ISNet of the network for one step, and measure what it costs."""
    net, criterion = ISNet(network.train()), ISNetLoss()
    images, labels = torch.rand(BATCH, 3, size, size), torch.arange(BATCH) % CLASSES
    masks = torch.zeros(BATCH, 1, size, size)
    masks[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1

    def heatmap_loss() -> Tensor:
        torch.manual_seed(0)  # of dropout
        return criterion(net.explain(images), labels, masks).heatmap

    def isnet_step() -> None:
        net.zero_grad()
        criterion(net.explain(images), labels, masks).total.backward()

    def standard_step() -> None:
        net.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()

    isnet_step()
    finite = all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)
    ratios = []
    for _ in range(ROUNDS):
        seconds = []
        for step in (standard_step, isnet_step):
            gc.collect()
            start = time.process_time()
            step()
            seconds.append(time.process_time() - start)
        ratios.append(seconds[1] / seconds[0])
    return {"trained": finite and falls(net, heatmap_loss), "step": statistics.median(ratios)}


def survey(name: str) -> dict[str, Any]:
    """Return what is found of a network."""
    found: dict[str, Any] = {"name": name}
    try:
        network, size = smallest(name)
        without_zeros(network)
        normalised = any("Norm" in kind and "Batch" not in kind for kind in _torch_kinds(network))
        found |= {"size": size, "parameters": sum(p.numel() for p in network.parameters())}
        for composite in ("cp-lrp", "flex"):
            support = Explainer.supports(network, (3, size, size), composite=composite)
            found[composite] = support.error
        found |= {"attention": bool(support.approximate), "own_statistics": normalised}
        found["unknown"] = sorted(support.unknown)
        found |= train(network, size)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}".split("\n")[0][:160]
    return found


def _torch_kinds(network: nn.Module) -> set[str]:
    """Return the names of the classes of torch, and of timm's layers, that modules are."""
    kinds = [kind for module in network.modules() for kind in type(module).__mro__]
    found = ("torch.nn.modules.normalization", "torch.nn.modules.instancenorm", "timm.layers.norm")
    return {kind.__name__ for kind in kinds if kind.__module__ in found}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table."""
    whole = [row for row in rows if "error" not in row]
    conserved = [row for row in whole if min(row["cp-lrp"], row["flex"]) <= CONSERVED]
    kinds = [row for row in conserved if row["attention"] or row["own_statistics"]]
    trained = [row for row in whole if row["trained"]]
    steps = [row["step"] for row in trained]
    yield (
        f"{len(rows)} networks: {len(conserved)} conserve relevance to {CONSERVED} (by `cp-lrp`, "
        f"or by `flex`), of which {len(kinds)} have attention or normalise by a sample's own "
        f"statistics; {len(trained)} train. A step takes {min(steps):.1f} to {max(steps):.1f} "
        f"standard steps, median {statistics.median(steps):.2f}.\n"
    )
    yield "| network | size | attention | own statistics | cp-lrp | flex | trained | step |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        if "error" in row:
            yield f"| {row['name']} | | | | | | no: {row['error']} | |"
            continue
        marks = ["yes" if row[key] else "" for key in ("attention", "own_statistics", "trained")]
        unknown = f" (unknown: {', '.join(row['unknown'])})" if row["unknown"] else ""
        yield (
            f"| {row['name']}{unknown} | {row['size']} | {marks[0]} | {marks[1]} | "
            f"{row['cp-lrp']:.0e} | {row['flex']:.0e} | {marks[2] or 'no'} | {row['step']:.2f} |"
        )


def main() -> None:
    """Survey the networks of a file, one name a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(inspect.getfile(survey)).parent
    parser.add_argument("--names", type=Path, default=here / "networks.txt")
    parser.add_argument("--out", type=Path, default=Path("models.md"), help="the table")
    parser.add_argument("--rows", type=Path, help="keep results here, and go on from there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    names = options.names.read_text().split()
    rows = []
    if options.rows and options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    done = {row["name"] for row in rows}
    for name in names:
        if name in done:
            continue
        rows.append(survey(name))
        print(json.dumps(rows[-1]), flush=True)
        if options.rows:
            with options.rows.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
        gc.collect()
    rows.sort(key=lambda row: names.index(row["name"]))
    options.out.write_text("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    main()
