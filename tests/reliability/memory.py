"""Measure how resident memory grows: ``python tests/reliability/memory.py``.

Prints the slope of resident memory over 2,000 explanations and over 300 training steps, in KiB for
each, with a 95 % interval from the medians of twenty parts; and, to compare, over gradients and
standard steps of the same network, which torch computes without this library.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torchvision.models import resnet18

from faster_isnet import Explainer, ISNet, ISNetLoss

SIZES = (48, 64, 80)


def explanations() -> Iterator[None]:
    """Explain a new image, of one of three sizes, each time."""
    explainer = Explainer(resnet18(num_classes=4).eval())
    while True:
        for size in SIZES:
            explainer(torch.rand(1, 3, size, size))
            yield


def gradients() -> Iterator[None]:
    """Compute the gradient of a logit at a new image, as above, each time."""
    model = resnet18(num_classes=4).eval()
    while True:
        for size in SIZES:
            image = torch.rand(1, 3, size, size, requires_grad=True)
            torch.autograd.grad(model(image).max(), image)
            yield


def steps() -> Iterator[None]:
    """Train an ISNet on a new batch, each time."""
    network, criterion = ISNet(resnet18(num_classes=4)), ISNetLoss()
    masks = torch.zeros(8, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1
    return _steps(
        network, lambda images, labels: criterion(network.explain(images), labels, masks).total
    )


def standard_steps() -> Iterator[None]:
    """Train a standard classifier on a new batch, each time."""
    network = resnet18(num_classes=4)
    return _steps(network, lambda images, labels: F.cross_entropy(network(images), labels))


def _steps(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    while True:
        optimiser.zero_grad()
        loss(torch.rand(8, 3, 64, 64), torch.randint(4, (8,))).backward()
        optimiser.step()
        yield


def slope(work: Callable[[], Iterator[None]], times: int, warm_up: int) -> tuple[float, ...]:
    """Return KiB per repetition, and the bounds of its 95 % interval."""
    running, process = work(), psutil.Process()
    for _ in range(warm_up):
        next(running)
    sizes = []
    for _ in range(times):
        next(running)
        sizes.append(process.memory_info().rss / 1024)
    parts = [float(np.median(part)) for part in np.array_split(sizes, 20)]
    middles = [float(np.mean(part)) for part in np.array_split(np.arange(times), 20)]
    fit = stats.linregress(middles, parts)
    half = stats.t.ppf(0.975, len(parts) - 2) * fit.stderr if np.ptp(parts) else 0.0
    return fit.slope, fit.slope - half, fit.slope + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--explanations", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=100)
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| what | times | KiB each | 95 % interval |\n| --- | --- | --- | --- |")
    for name, work, times in (
        ("explanations", explanations, options.explanations),
        ("gradients, by torch alone", gradients, options.explanations),
        ("training steps", steps, options.steps),
        ("standard training steps, by torch alone", standard_steps, options.steps),
    ):
        found, low, high = slope(work, times, options.warm_up)
        print(f"| {name} | {times} | {found:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
