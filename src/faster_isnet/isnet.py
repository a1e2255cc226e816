"""The ISNet: any classifier, with the explanation that its training needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn

from faster_isnet.checks import check_choice
from faster_isnet.explain import Bound, Explainer, Explanation
from faster_isnet.relevance import Composite

VARIANTS = {
    "selective": "lowest-eta",
    "stochastic": "random-logit",
    "original": "all-classes",
}
"""What each variant of the ISNet explains while it is trained (method §3)."""


class ISNet(nn.Module):
    """A classifier that explains itself while it is trained.

    Called, it is the plain model: no mask, no cost. :meth:`explain` gives what
    :class:`~faster_isnet.ISNetLoss` needs. The model's modules and the keys of its state are its
    own and lie under :attr:`backbone`, which is all that is to be saved, exported and shipped.

    Parameters
    ----------
    model
        Any model from images ``[B, C_in, ...]`` to logits ``[B, C]``.
    variant
        What is explained: ``"selective"`` (η of the lowest class, one heatmap), ``"stochastic"``
        (one logit drawn for each sample, one heatmap) or ``"original"`` (every logit, C
        heatmaps: its cost grows with C). See Bassi et al., IEEE Access 12, 2024, and Nature
        Communications 15, 291, 2024.
    deep_supervision
        Hidden layers whose relevance is supervised too: ``False`` for none, ``True`` for the
        published choice (torchvision's DenseNet, ResNet and VGG), or names of modules.
    composite, epsilon, input_rule, input_low, input_high
        How relevance flows, see :class:`~faster_isnet.Explainer`. The zB rule's default bounds
        fit images in [0, 1].

    Raises
    ------
    TypeError, ValueError
        As :class:`~faster_isnet.Explainer` does; if the variant is unknown; if there is no
        published choice of layers for this model.

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
        deep_supervision: bool | Sequence[str] = False,
        composite: str | Composite = "flex",
        epsilon: float = 1e-2,
        input_rule: str | None = "zb",
        input_low: Bound = 0.0,
        input_high: Bound = 1.0,
    ) -> None:
        super().__init__()
        self.variant = check_choice("variant", variant, VARIANTS)
        if deep_supervision is True:
            layers: Sequence[str] = published_layers(model)
        else:
            layers = deep_supervision or ()
        self._explainer = Explainer(
            model, composite, epsilon, input_rule, layers, input_low, input_high
        )
        self.backbone = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of images ``[B, C_in, ...]``: the plain model."""
        return self.backbone(images)  # type: ignore[no-any-return]

    def explain(self, images: Tensor) -> Explanation:
        """Explain the quantity of this variant.

        Parameters
        ----------
        images
            ``[B, C_in, ...]``, float32 or float64, finite; in the range that the input rule's
            bounds say.

        Returns
        -------
        Explanation
            Differentiable where gradients are enabled, as any forward pass; detached under
            ``torch.no_grad()``. In training mode it is a forward pass as any other: batch norm
            takes note of its statistics.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As :meth:`faster_isnet.Explainer.__call__` does.
        """
        differentiable = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        return self._explainer(images, VARIANTS[self.variant], differentiable=differentiable)


def published_layers(model: nn.Module) -> list[str]:
    """Return the layers that the papers supervise (LRP deep supervision, method §5).

    ResNet: the outputs of layer1 to layer4. VGG: the outputs of the max pools. DenseNet: the ReLU
    of each transition, and the input of the last ReLU: torchvision calls that as a function, and
    the relevance on either side of it differs by the factor a / (a + ε) alone.

    Raises
    ------
    ValueError
        If the model is none of these of torchvision.
    """
    if isinstance(model, torchvision.models.ResNet):
        return ["layer1", "layer2", "layer3", "layer4"]
    modules = dict(model.named_modules())
    if isinstance(model, torchvision.models.VGG):
        return [name for name, module in modules.items() if isinstance(module, nn.MaxPool2d)]
    if isinstance(model, torchvision.models.DenseNet):
        transitions = [n for n in modules if n.startswith("features.transition")]
        relus = [name for name in transitions if name.endswith(".relu")]
        return [*relus, "features.norm5"]
    raise ValueError(
        f"deep_supervision=True knows the published layers of torchvision's ResNet, DenseNet and "
        f"VGG, not of {type(model).__name__}; give a list of module names"
    )
