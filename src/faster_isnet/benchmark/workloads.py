"""Define what is measured: training steps and explanations, as functions without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from faster_isnet.benchmark.other_packages import FOR_TRANSFORMERS, OTHER_PACKAGES
from faster_isnet.benchmark.settings import VIT_S_16
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.methods.isnet.network import ISNet
from faster_isnet.models import CONVNET, convnet

BASELINE = "baseline"
"""Name of the standard training step, without masks and explanations."""
FLEX = "flex"
GRADIENT_X_INPUT = "gradient-x-input"
EXPLAINED_CLASS = 0

Run = Callable[[], Tensor]
"""Does the work once; returns the loss of a step, or the heatmap ``[B, 3, H, W]``."""


@dataclass(frozen=True)
class Setup:
    """A model and a batch that workloads run on.

    Attributes
    ----------
    model
        In training mode for training steps, else in eval mode. Its parameters require gradients in
        both modes, like those of a newly loaded model; explanations do not compute them.
    optimizer
        SGD with momentum, the default of :class:`~faster_isnet.LitISNet`. Its learning rate is so
        small that the steps of a benchmark leave the weights practically unchanged.
    images, labels, masks
        ``[B, 3, H, W]`` in [0, 1], ``[B]``, and ``[B, 1, H, W]`` with a quarter of foreground.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Workload:
    """A training step or an explanation to measure.

    Attributes
    ----------
    name
        Its name in the results.
    make
        Prepares it once, and returns the function to measure.
    is_external
        Whether another package does the work. It then gets a separate model, which it may change,
        and its heatmap is checked.
    """

    name: str
    make: Callable[[Setup], Run]
    is_external: bool = False


def new_setup(
    architecture: str,
    classes: int,
    batch: int,
    size: int,
    *,
    training: bool,
    device: str = "cpu",
    seed: int = 0,
) -> Setup:
    """Build a network with random weights and a random batch; reproducible by ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(architecture, classes, size).to(device)
        images = torch.rand(batch, 3, size, size).to(device)
        labels = torch.randint(classes, (batch,)).to(device)
    masks = torch.zeros(batch, 1, size, size, device=device)
    masks[..., size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
    if not training:
        _estimate_batch_norm_statistics(model, images)
    model.train(training)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7, momentum=0.9)
    return Setup(model, optimizer, images, labels, masks)


def _new_model(architecture: str, classes: int, size: int) -> nn.Module:
    if architecture == CONVNET:
        return convnet(classes)
    if is_transformer(architecture):
        return _new_transformer(architecture, classes, size)
    return torchvision.models.get_model(  # type: ignore[no-any-return]
        architecture, weights=None, num_classes=classes
    )


def is_transformer(architecture: str) -> bool:
    """Return whether an architecture is one of torchvision's vision transformers."""
    return architecture.startswith("vit_")


def _new_transformer(architecture: str, classes: int, size: int) -> nn.Module:
    options = {"image_size": size, "num_classes": classes}
    if architecture == VIT_S_16:
        options |= {"patch_size": 16, "num_layers": 12, "num_heads": 6}
        model = torchvision.models.VisionTransformer(hidden_dim=384, mlp_dim=1536, **options)
    else:
        model = torchvision.models.get_model(architecture, weights=None, **options)
    nn.init.normal_(model.heads.head.weight, std=0.02)  # with torchvision's zeros: no relevance
    return model  # type: ignore[no-any-return]


def _estimate_batch_norm_statistics(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of batch norms to those of these images.

    With the initial statistics, activations of a deep network shrink from layer to layer.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)


def baseline_step() -> Workload:
    """Return the standard training step: forward, cross-entropy, backward, SGD."""

    def make(setup: Setup) -> Run:
        return lambda: _optimizer_step(
            setup.optimizer, F.cross_entropy(setup.model(setup.images), setup.labels)
        )

    return Workload(BASELINE, make)


def isnet_step(variant: str, deep_supervision: bool = False) -> Workload:
    """Return the training step of a variant, as :class:`~faster_isnet.LitISNet` takes it.

    Neither this nor the standard step clips gradients: the cost would be the same for both.
    """

    def make(setup: Setup) -> Run:
        net, criterion = ISNet(setup.model, variant, deep_supervision), ISNetLoss()

        def run() -> Tensor:
            parts = criterion(net.explain(setup.images), setup.labels, setup.masks)
            return _optimizer_step(setup.optimizer, parts.total)

        return run

    return Workload(variant, make)


def _optimizer_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad()  # after the forward pass, as Lightning does
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def gradient_x_input_explanation() -> Workload:
    """Return Gradient × Input in pure PyTorch: the lower bound of an explanation's cost."""

    def make(setup: Setup) -> Run:
        def run() -> Tensor:
            images = setup.images.clone().requires_grad_()
            logits = setup.model(images)[:, EXPLAINED_CLASS]
            (gradient,) = torch.autograd.grad(logits.sum(), images)
            return gradient * setup.images

        return run

    return Workload(GRADIENT_X_INPUT, make)


def explanation(name: str, composite: str, input_rule: str | None = None) -> Workload:
    """Return this package's explanation by a composite."""

    def make(setup: Setup) -> Run:
        explainer = Explainer(setup.model, composite, input_rule=input_rule)
        return lambda: explainer.attribute(setup.images, EXPLAINED_CLASS)

    return Workload(name, make)


def explanations(architecture: str) -> tuple[Workload, ...]:
    """Return Gradient × Input, this package's explanations, and those of other packages."""
    transformer = is_transformer(architecture)
    packages = {**OTHER_PACKAGES, **(FOR_TRANSFORMERS if transformer else {})}
    return (
        gradient_x_input_explanation(),
        explanation(FLEX, "flex"),
        explanation("flex, zb", "flex", "zb"),
        explanation("epsilon", "epsilon"),
        *((explanation("cp-lrp", "cp-lrp"),) if transformer else ()),
        *(
            Workload(name, partial(_external_explanation, make), is_external=True)
            for name, make in packages.items()
        ),
    )


def _external_explanation(make: Callable[..., Run], setup: Setup) -> Run:
    return make(setup.model, setup.images, EXPLAINED_CLASS)


def check_heatmap(heatmap: Tensor, setup: Setup) -> str:
    """Check a heatmap of another package.

    Returns
    -------
    str
        A remark for the table if relevance is far from what is explained; empty otherwise.

    Raises
    ------
    ValueError
        If its shape is not that of the images, or a value is not finite.
    """
    if heatmap.shape != setup.images.shape:
        raise ValueError(
            f"its heatmap has shape {list(heatmap.shape)}, not {list(setup.images.shape)}"
        )
    if not bool(heatmap.isfinite().all()):
        raise ValueError("its heatmap is not finite")
    with torch.no_grad():
        explained = setup.model(setup.images)[:, EXPLAINED_CLASS].sum().item()
    relevance = heatmap.detach().sum().item()
    if abs(relevance) <= 100 * max(abs(explained), 1):
        return ""
    return f"relevance sums to {relevance:.1g}, what is explained to {explained:.1g}"
