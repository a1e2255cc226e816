"""An ISNet with options that a search for a good default needs, and that the library does not have.

README.md says how it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from faster_isnet import ISNet
from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_choice
from faster_isnet.methods import ISNetMethod, swap_backgrounds
from faster_isnet.methods.base import Losses
from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.methods.swap.method import symmetric_divergence

GRADIENTS = ("sum", "norm", "project")


class Variant(ISNetMethod):
    """Train an ISNet in one of several other ways.

    Parameters
    ----------
    loss
        As of ISNetMethod.
    plain
        In [0, 1]: how many of the swapped backgrounds are smooth.
    gradients
        Of classification and heatmap loss: ``"sum"``, weighted by 1 − P and P; ``"norm"``, that of
        the heatmap loss scaled to the norm of the other first; ``"project"``, what of each is
        opposed to the other left out first (Yu et al., NeurIPS 2020, "Gradient surgery for
        multi-task learning").
    normalised
        Divide the heatmap loss by its value in the first training step.
    consistency
        ≥ 0: weight of the symmetric divergence of the predictions for the images as they are.
    in_turn
        Backgrounds are swapped in every other step, and the heatmap loss is of the others.
    swap_until
        The epoch from which on no background is swapped; ``None`` for never.
    soft_border
        ≥ 0, in pixels: how softly the image goes over into its new background, outside of the mask.
    **options
        The other options of ISNetMethod.
    """

    name = None
    mixings = ()  # its steps are not those of mixed images

    def __init__(
        self,
        loss: ISNetLoss | None = None,
        *,
        plain: float = 0.25,
        gradients: str = "sum",
        normalised: bool = False,
        consistency: float = 0.0,
        in_turn: bool = False,
        swap_until: int | None = None,
        soft_border: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(loss, **options)
        self.plain = plain
        self.gradients = check_choice("gradients", gradients, GRADIENTS)
        self.normalised = normalised
        self.consistency = consistency
        self.in_turn = in_turn
        self.swap_until = swap_until
        self.soft_border = soft_border
        self._epoch = 0
        self._first: Tensor | None = None

    def set_progress(self, epoch: int, step: int) -> None:
        """Take the epoch, too."""
        super().set_progress(epoch, step)
        self._epoch = epoch

    def training_losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the losses of a step in the way that was chosen."""
        assert isinstance(network, ISNet)
        images = self.training_images(batch)
        swapped = batch._replace(images=images)
        if self.in_turn and self._step % 2 == 0:
            return self._classification_losses(network, swapped)
        losses = self._training_losses(network, swapped)
        if self._supervises:
            losses = replace(losses, total=self._joined(network, losses))
        if self.consistency:
            apart = symmetric_divergence(losses.logits, network(batch.images), self.task).mean()
            losses = replace(losses, total=losses.total + self.consistency * apart)
        return losses

    def training_images(self, batch: Batch) -> Tensor:
        """Return the images with backgrounds swapped, unless this step has none swapped."""
        ended = self.swap_until is not None and self._epoch >= self.swap_until
        share = 0.0 if ended or (self.in_turn and self._step % 2) else self.swapped_backgrounds
        options = {"plain": self.plain, "generated": self.generated_backgrounds}
        swapped = swap_backgrounds(batch.images, batch.masks, share, **options)
        if not self.soft_border:
            return swapped
        size, sigma = 2 * round(3 * self.soft_border) + 1, self.soft_border
        masks = gaussian_blur((batch.needed("masks") != 0).to(swapped), [size] * 2, [sigma] * 2)
        weight = (2 * masks).clamp(max=1)  # 1 up to the border
        return weight * batch.images + (1 - weight) * swapped

    def _joined(self, network: nn.Module, losses: Losses) -> Tensor:
        """Return a scalar with the gradient of both losses together."""
        classification, heatmap = losses.classification, losses.parts["heatmap"]
        if self.normalised:
            if self._first is None:
                self._first = heatmap.detach().clamp(min=1e-6)
            heatmap = heatmap / self._first
        p = self.loss.heatmap_weight
        total = (1 - p) * classification + p * heatmap
        if self.gradients == "sum":
            return total
        parameters = [each for each in network.parameters() if each.requires_grad]
        first, second = (_gradient(loss, parameters) for loss in (classification, heatmap))
        if self.gradients == "norm":
            scale = first.norm() / second.norm().clamp(min=1e-12)
            return (1 - p) * classification + p * scale * heatmap
        inner = (first @ second).clamp(max=0)
        of_first = first - inner / second.square().sum().clamp(min=1e-12) * second
        of_second = second - inner / first.square().sum().clamp(min=1e-12) * first
        together = (1 - p) * of_first + p * of_second
        product = torch.cat([each.flatten() for each in parameters]) @ together
        return total.detach() + product - product.detach()  # whose gradient is that vector


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the gradient of a loss, as one vector; zero where it does not depend on a weight."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
