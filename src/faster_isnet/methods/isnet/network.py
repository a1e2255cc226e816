"""Add to any classifier the explanations that the training of an ISNet needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from faster_isnet.common.checks import check_choice, check_images
from faster_isnet.common.recipes import Recorded
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.explaining.explanation import Explanation
from faster_isnet.explaining.pixel_bounds import Bound
from faster_isnet.explaining.targets import QUANTITIES, Target, without_classes
from faster_isnet.methods.isnet.cuts import AUTO
from faster_isnet.methods.layer_grids import on_grid
from faster_isnet.methods.stages import (
    NoLayerFoundError,
    find_blocks,
    find_stages,
    module_name,
)
from faster_isnet.relevance import Composite, check_layers

log = logging.getLogger(__name__)

FULL = "full"
"""Value of ``deep_supervision`` for every block."""


@dataclass(frozen=True)
class Variant:
    """Define what a variant of the ISNet explains in training, and by which rules (method §3).

    Attributes
    ----------
    target
        The quantity, see :class:`~faster_isnet.Explainer`.
    composite, input_rule
        Default rules of relevance propagation.
    """

    target: str
    composite: str = "flex"
    input_rule: str | None = "zb"


VARIANTS = {
    "selective": Variant("lowest-eta"),
    "stochastic": Variant("random-logit"),
    "original": Variant("all-classes"),
    "dual": Variant("all-logits", "dual"),
    "softmax-gradient-x-input": Variant("all-log-probabilities", "gradient-x-input", None),
    "logit-gradient-x-input": Variant("all-logits", "gradient-x-input", None),
}
"""The variants by name; the last two are ablations."""

AS_VARIANT = "as-variant"
"""Value of ``composite`` and ``input_rule`` for the defaults of the variant."""


class ISNet(Recorded, nn.Module):
    """Wrap a classifier so that it explains its outputs in training.

    A call runs the unmodified model, without masks and additional cost. :meth:`explain` computes
    what :class:`~faster_isnet.ISNetLoss` needs. The model, with its modules and state dict keys
    unchanged, is :attr:`backbone`; only this needs to be saved, exported and deployed.

    Parameters
    ----------
    model
        Any model from images ``[B, C_in, ...]`` to logits ``[B, C]``.
    variant
        What is explained: ``"selective"`` (η of the lowest class, one heatmap), ``"stochastic"``
        (one logit sampled for each image, one heatmap), ``"original"`` (every logit, C heatmaps:
        the cost grows with C) or ``"dual"`` (all logits at once, by LRP-z⁺ and by LRP-ε, two
        heatmaps). See Bassi et al., IEEE Access 12, 2024, and Nature Communications 15, 291,
        2024. The ablations ``"softmax-gradient-x-input"`` (Σ log p_c) and
        ``"logit-gradient-x-input"`` (Σ y_c) have one heatmap, Gradient × Input.
    deep_supervision
        Hidden layers whose relevance is supervised, too: ``False`` for none, ``True`` for the last
        of each stage, ``"full"`` for every block, or names of modules. ``"auto"`` is
        ``True``, or, with a warning, ``False`` for a network in which no such layer can be found.
        It is the default since classifiers err less on replaced backgrounds with supervised stages
        (``docs/results/recipe.md``), at a tenth of a training step. For torchvision's DenseNet,
        ResNet and VGG ``True`` and ``"full"`` are the published choices; for any other network they
        are found by running it on one image (:meth:`find_layers`). A layer may return feature maps,
        channels first or last, or tokens; relevance of tokens without a place, such as the class
        token, is not supervised (:func:`~faster_isnet.methods.layer_grids.on_grid`).
    composite, input_rule
        Rules of relevance propagation, see :class:`~faster_isnet.Explainer`; ``"as-variant"`` for
        ``"flex"`` and ``"zb"``, ``"dual"`` and ``"zb"`` for the dual variant, and
        ``"gradient-x-input"`` and ``None`` for the ablations.
    epsilon, input_low, input_high
        See :class:`~faster_isnet.Explainer`. The zB rule's default bounds fit images in [0, 1].
    ignore_classes
        Classes without supervision: their logits are excluded from the explained quantity in
        training.
    strict
        Refuse to train a model in which relevance passes through a function that the composite has
        no rule for, see :class:`~faster_isnet.Explainer`: a heatmap that may be wrong would
        supervise it.

    Raises
    ------
    TypeError, ValueError
        As :class:`~faster_isnet.Explainer` does; if the variant or the choice of layers is unknown.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> net = ISNet(resnet18(num_classes=3), deep_supervision=True).eval()
    >>> explanation = net.explain(torch.rand(2, 3, 64, 64))
    >>> explanation.heatmap.shape
    torch.Size([2, 1, 3, 64, 64])
    >>> list(explanation.layers)
    ['layer1', 'layer2', 'layer3', 'layer4']
    """

    def __init__(
        self,
        model: nn.Module,
        variant: str = "selective",
        deep_supervision: bool | str | Sequence[str] = AUTO,
        composite: str | Composite = AS_VARIANT,
        epsilon: float = 1e-2,
        input_rule: str | None = AS_VARIANT,
        input_low: Bound = 0.0,
        input_high: Bound = 1.0,
        ignore_classes: Sequence[int] = (),
        strict: bool = True,
    ) -> None:
        super().__init__()
        chosen = VARIANTS[check_choice("variant", variant, VARIANTS)]
        self.variant = variant
        layers = supervised_layers(model, deep_supervision)
        self._finder = None if layers is not None else _FINDERS[deep_supervision]
        self.explainer = Explainer(
            model,
            chosen.composite if composite == AS_VARIANT else composite,
            epsilon,
            chosen.input_rule if input_rule == AS_VARIANT else input_rule,
            layers or (),
            input_low,
            input_high,
            strict,
        )
        self.ignored_classes = tuple(ignore_classes)
        if not all(isinstance(index, int) for index in self.ignored_classes):
            raise TypeError(f"ignore_classes must be class indices, got {ignore_classes!r}")
        self._target: Target = chosen.target
        if ignore_classes:
            self._target = without_classes(QUANTITIES[chosen.target], self.ignored_classes)
        self.backbone = model

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the supervised hidden layers.

        Raises
        ------
        RuntimeError
            If they are found by running the network, and it has not run; see :meth:`find_layers`.
        """
        if self._finder is not None:
            raise RuntimeError(
                "the supervised layers are not known before the network has run: call "
                "find_layers((C, H, W)) with the shape of the images, or explain(images), first"
            )
        return self.explainer.layers

    def find_layers(self, image_shape: Sequence[int]) -> tuple[str, ...]:
        """Find the hidden layers to supervise, if they are not known yet; :meth:`explain` does so.

        The network runs once, see :func:`~faster_isnet.methods.stages.find_stages`, and is
        left as it was. What was found stays, whichever size later images have.

        Parameters
        ----------
        image_shape
            ``(C_in, H, W)``.

        Returns
        -------
        tuple of str
            :attr:`layers`.

        Raises
        ------
        ValueError
            If there is no layer of several places that all of the image goes through, unless
            ``deep_supervision`` is ``"auto"``.

        Examples
        --------
        >>> from torchvision.models import convnext_tiny
        >>> net = ISNet(convnext_tiny(num_classes=3), deep_supervision=True)
        >>> net.find_layers((3, 64, 64))
        ('features.1', 'features.3', 'features.5', 'features.7')
        """
        if self._finder is not None:
            find = self._finder
            if torch.compiler.is_dynamo_compiling():
                find = torch.compiler.disable(find)  # type: ignore[no-untyped-call]
            found = find(self.backbone, image_shape)
            self.explainer.layers = check_layers(self.backbone, found)
            self._finder = None
            if found:
                log.info("Supervised hidden layers: %s", ", ".join(found))
        return self.layers

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments, with the layers that were found."""
        arguments = super().recipe_arguments()
        if arguments.get("deep_supervision", AUTO) in (True, FULL, AUTO) and self._finder is None:
            arguments["deep_supervision"] = list(self.layers)
        return arguments

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits ``[B, C]`` of images ``[B, C_in, ...]`` by the unmodified model."""
        return self.backbone(images)  # type: ignore[no-any-return]

    def explain(self, images: Tensor) -> Explanation:
        """Explain the quantity of this variant.

        Parameters
        ----------
        images
            ``[B, C_in, ...]``, float32 or float64, finite; in the range of the input
            rule's bounds.

        Returns
        -------
        Explanation
            With the relevance of each supervised layer as ``[B, K, C, h, w]`` on the layer's grid.
            Differentiable if gradients are enabled, as for any forward pass; detached under
            ``torch.no_grad()``. In training mode, batch norms update their running statistics,
            as in any forward pass.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As :meth:`faster_isnet.Explainer.__call__` and :meth:`find_layers` do; if it is not
            known where in the image the tokens of a layer lie.
        """
        if self._finder is not None:
            check_images(images)
            self.find_layers(images.shape[1:])
        differentiable = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        explanation = self.explainer(images, self._target, differentiable=differentiable)
        layers = {
            name: on_grid(relevance, images, self.backbone, name)
            for name, relevance in explanation.layers.items()
        }
        return replace(explanation, layers=layers)


def _stages_if_any(model: nn.Module, image_shape: Sequence[int]) -> list[str]:
    try:
        return find_stages(model, image_shape)
    except (NoLayerFoundError, RuntimeError) as error:  # torch's, of reentrant checkpointing
        log.warning("Only the heatmap of the image is supervised: %s", error)
        return []


_FINDERS = {True: find_stages, FULL: find_blocks, AUTO: _stages_if_any}


def supervised_layers(
    model: nn.Module, deep_supervision: bool | str | Sequence[str]
) -> Sequence[str] | None:
    """Resolve the argument ``deep_supervision`` of :class:`ISNet` to names of layers.

    Returns
    -------
    sequence of str or None
        ``None`` if they are to be found by running the network: there is no published choice.

    Raises
    ------
    ValueError
        If it is another string than ``"auto"`` and ``"full"``.
    """
    if deep_supervision is True or deep_supervision in (FULL, AUTO):
        known = _known_network(model)
        if known is None:
            return None
        prefix, network = known
        layers = all_blocks if deep_supervision == FULL else published_layers
        return [prefix + name for name in layers(network)]
    if isinstance(deep_supervision, str):
        raise ValueError(
            f"deep_supervision must be {AUTO!r}, False, True, {FULL!r} or a list of module names, "
            f"got {deep_supervision!r}"
        )
    return [module_name(model, name) for name in deep_supervision or ()]


_Known: TypeAlias = torchvision.models.ResNet | torchvision.models.VGG | torchvision.models.DenseNet


def _known_network(model: nn.Module) -> tuple[str, _Known] | None:
    """Return the network that has published layers, and the start of its modules' names.

    That is the model itself, or the one part of it that it wraps, such as by a normalisation.
    """
    if isinstance(model, _Known):
        return "", model
    inner = [(name, part) for name, part in model.named_modules() if isinstance(part, _Known)]
    if len(inner) != 1:
        return None
    name, network = inner[0]
    return f"{name}.", network


def published_layers(model: _Known) -> list[str]:
    """Name the layers that the papers supervise (LRP deep supervision, method §5).

    ResNet: the outputs of layer1 to layer4. VGG: the outputs of the max pools. DenseNet: the last
    ReLU of each transition, and the input of the network's last ReLU, since torchvision calls this
    ReLU as a function. Relevance before and after it differs only by the factor a / (a + ε).
    """
    modules = dict(model.named_modules())
    if isinstance(model, torchvision.models.ResNet):
        return ["layer1", "layer2", "layer3", "layer4"]
    if isinstance(model, torchvision.models.VGG):
        return [name for name, module in modules.items() if isinstance(module, nn.MaxPool2d)]
    last_relus = {
        name.rpartition(".")[0]: name
        for name, module in modules.items()
        if ".transition" in name and isinstance(module, nn.ReLU)
    }
    return [*last_relus.values(), "features.norm5"]


def all_blocks(model: _Known) -> list[str]:
    """Name every block, for full signal penalisation (method §5).

    ResNet: the output of every residual block. VGG: every ReLU of the convolutions. DenseNet: every
    ReLU, including those within dense layers, and the input of the last.
    """
    modules = dict(model.named_modules())
    if isinstance(model, torchvision.models.ResNet):
        blocks = (BasicBlock, Bottleneck)
        return [name for name, module in modules.items() if isinstance(module, blocks)]
    relus = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.ReLU) and name.startswith("features.")
    ]
    return relus if isinstance(model, torchvision.models.VGG) else [*relus, "features.norm5"]
