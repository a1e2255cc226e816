"""What is measured: training steps and explanations, each as a function without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.benchmark.peers import PEERS
from faster_isnet.benchmark.setups import Setup
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.methods.isnet.network import ISNet

PLAIN = "plain"
FLEX = "flex"
GRADIENT_X_INPUT = "gradient-x-input"
TARGET = 0
"""The class that explanations explain."""

Run = Callable[[], Tensor]
"""Does the work once; returns the loss of a step, or the heatmap ``[B, 3, H, W]``."""


@dataclass(frozen=True)
class Contender:
    """Something to measure.

    Attributes
    ----------
    name
        Of the row in the table.
    make
        Gets ready, once, and returns what is measured.
    is_peer
        Whether it is another package: it gets a model of its own, which it may change, and its
        heatmap is looked at.
    """

    name: str
    make: Callable[[Setup], Run]
    is_peer: bool = False


def plain_step() -> Contender:
    """Return the plain training step: forward, cross-entropy, backward, SGD."""

    def make(setup: Setup) -> Run:
        return lambda: _descend(
            setup.optimizer, F.cross_entropy(setup.model(setup.images), setup.labels)
        )

    return Contender(PLAIN, make)


def isnet_step(variant: str, deep_supervision: bool = False) -> Contender:
    """Return the training step of a variant, as :class:`~faster_isnet.LitISNet` takes it.

    Neither this nor the plain step clips its gradients: it would cost both the same.
    """

    def make(setup: Setup) -> Run:
        net, criterion = ISNet(setup.model, variant, deep_supervision), ISNetLoss()

        def run() -> Tensor:
            parts = criterion(net.explain(setup.images), setup.labels, setup.masks)
            return _descend(setup.optimizer, parts.total)

        return run

    return Contender(variant, make)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad()  # after the forward pass, as Lightning does
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def gradient_x_input() -> Contender:
    """Return Gradient × Input in plain PyTorch: the least that an explanation can cost."""

    def make(setup: Setup) -> Run:
        def run() -> Tensor:
            images = setup.images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(setup.model(images)[:, TARGET].sum(), images)
            return gradient * setup.images

        return run

    return Contender(GRADIENT_X_INPUT, make)


def explanation(name: str, composite: str, input_rule: str | None = None) -> Contender:
    """Return this package's explanation by a composite."""

    def make(setup: Setup) -> Run:
        explainer = Explainer(setup.model, composite, input_rule=input_rule)
        return lambda: explainer.attribute(setup.images, TARGET)

    return Contender(name, make)


def explanations() -> tuple[Contender, ...]:
    """Return Gradient × Input, this package's explanations, and those of other packages."""
    return (
        gradient_x_input(),
        explanation(FLEX, "flex"),
        explanation("flex, zb", "flex", "zb"),
        explanation("epsilon", "epsilon"),
        *(Contender(name, partial(_peer, make), is_peer=True) for name, make in PEERS.items()),
    )


def _peer(make: Callable[..., Run], setup: Setup) -> Run:
    return make(setup.model, setup.images, TARGET)


def remark(heatmap: Tensor, setup: Setup) -> str:
    """Return what is to be said of a peer's heatmap; nothing if it looks like an explanation.

    Raises
    ------
    ValueError
        If it is no heatmap of the images, or not finite.
    """
    if heatmap.shape != setup.images.shape:
        raise ValueError(
            f"its heatmap has shape {list(heatmap.shape)}, not {list(setup.images.shape)}"
        )
    if not bool(heatmap.isfinite().all()):
        raise ValueError("its heatmap is not finite")
    with torch.no_grad():
        explained = setup.model(setup.images)[:, TARGET].sum().item()
    relevance = heatmap.detach().sum().item()
    if abs(relevance) <= 100 * max(abs(explained), 1):
        return ""
    return f"relevance sums to {relevance:.1g}, what is explained to {explained:.1g}"
