"""The penalty of RR-ClArC as a method."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.layer_grids import on_grid
from faster_isnet.methods.mixing import MIXINGS
from faster_isnet.methods.rr_clarc.directions import BackgroundDirections
from faster_isnet.methods.score_gradients import score_gradient, twice_differentiable
from faster_isnet.methods.stages import find_stages
from faster_isnet.methods.swap.backgrounds import swap_backgrounds
from faster_isnet.relevance import check_layers, hidden_outputs

_log = logging.getLogger(__name__)

QUANTITIES = ("random-signs", "label")
"""Of what the gradient is taken."""


class RRClArC(Method):
    """Penalise the gradient of the logits along the directions of the background in a hidden layer.

    RR-ClArC: Dreyer et al., AAAI 2024, "From hope to safety: unlearning biases of deep models via
    gradient penalization in latent space". With h, a unit vector in the space of a layer's
    channels, and g, the gradient of f(logits) with respect to the layer's output, averaged over its
    places, the loss is classification + λ (g · h)², averaged over images and directions.

    What differs from the paper: it has images with and without a labelled artefact, here are masks
    instead. So h is, for each class, the mean difference between the activations (the largest of
    each channel) of its images as they are and of the same ones on the background of others; for
    equal numbers of both that is the paper's signal CAV. It is found anew while the network trains.
    And all layers are trained from the beginning; the published code trains the dense layers of a
    finished network whose convolutions are frozen.

    It removes one direction for each class, that of the mean shift. A network can still follow a
    background in others, and by functions of the activations that this gradient does not show. In
    the test of this class, where a mark in the background gives the class away, the standard
    classifier is right for 3 to 8 % of images with a false mark (of three seeds, after 12 epochs),
    with this penalty for 63 to 78 %, and for 35 to 60 % after 24, in which the network learnt ways
    around it. :class:`~faster_isnet.methods.Swap`, which needs the same masks and costs less, is
    right for 97 % after either. Fixed directions and frozen convolutions, as published, were worse
    there: 18 to 41 %. Use it to compare with.

    All images are penalised, those without a mask as well: masks are needed for the directions
    only. Before the first image with a mask there is no penalty.

    Parameters
    ----------
    classification
        The classification loss; ``None`` for cross-entropy.
    weight
        λ ≥ 0. The paper searches it from 0.05 to 10⁷ for each data set and network, so there is no
        published default. 10⁴ is the best of 1, 100, 3000, 10⁴, 3·10⁴, 10⁵ and 10⁶ in the test
        named above, whose layer has 8 × 8 places; from 3·10⁴ on training failed for some seeds. The
        gradient is a mean over places, so fewer of them need a smaller weight: λ goes with the
        square of their number. Search it on validation data.
    layer
        The name of a module, which is run once in a forward pass and returns feature maps, tokens
        or features. ``None`` for the last that returns feature maps or tokens and that all of the
        image goes through, see :func:`~faster_isnet.methods.stages.find_stages`: the paper's
        is the last convolution.
    quantity
        f: ``"random-signs"``, the sum of all logits, each with a random sign, drawn anew for each
        image and step, the published default; or ``"label"``, the logit of the image's label (the
        sum of them for multi-label).
    decay
        In [0, 1): how much of the former mean remains where a direction is updated. At 0.5, and
        every 4 steps, a direction is that of the last ten steps or so: with 0.99 at every step they
        follow the network too late, and with 0.5 or less at every step they are noisy.
    update_every
        k ≥ 1: directions are updated in every k-th optimiser step. That takes two passes forward,
        in evaluation mode: a step of the test's network costs 1.4 times a standard one at k = 4,
        and twice as much at k = 1, which with a decay of 0.9 finds the same.

    Raises
    ------
    TypeError, ValueError
        If an option is not one of those above; when the network is built, if it has no such layer;
        in training, if there is no layer to be found, it runs several times, or is not part of the
        way from the trained parameters to the logits.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> masks = torch.zeros(4, 1, 8, 8)
    >>> masks[..., 2:6, 2:6] = 1
    >>> batch = Batch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]), masks)
    >>> pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    >>> network = nn.Sequential(nn.Conv2d(3, 5, 3, 2), *pooled)
    >>> method = RRClArC()
    >>> losses = method.training_losses(method.build(network), batch)
    >>> bool(losses.parts["penalty"] > 0), method.layer
    (True, '0')
    """

    name = "rr-clarc"
    mixings = MIXINGS

    def __init__(
        self,
        classification: ClassificationLoss | None = None,
        *,
        weight: float = 1e4,
        layer: str | None = None,
        quantity: str = "random-signs",
        decay: float = 0.5,
        update_every: int = 4,
    ) -> None:
        super().__init__(classification)
        self.weight = check_range("weight", weight, 0)
        self.layer = layer
        self.quantity = check_choice("quantity", quantity, QUANTITIES)
        if check_range("decay", decay, 0, 1) == 1:
            raise ValueError("decay must be less than 1, at which no direction would ever change")
        self.directions = BackgroundDirections(decay)
        self.update_every = int(check_range("update_every", update_every, 1))
        self.needs_gradients_in_validation = weight > 0
        self._step = 0

    def build(self, classifier: nn.Module) -> nn.Module:
        """Return the classifier, if it has the layer."""
        if self.layer is not None:
            check_layers(classifier, [self.layer])
        return classifier

    def see_image_shape(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Find the layer, and say which.

        Raises
        ------
        ValueError
            If there is none that all of the image goes through.
        """
        if self.layer is None and self.weight:
            self.layer = find_stages(network, image_shape)[-1]
            _log.info("Layer whose gradient is penalised: %s", self.layer)

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the losses by the directions that are known."""
        units = self.directions.unit_vectors()
        if not self.weight or units is None:
            logits = network(batch.images)
            loss = self.classification(logits, batch.labels)
            return Losses(loss, logits, loss, {"penalty": torch.zeros_like(loss)})
        layer = self._layer(network, batch)
        with hidden_outputs(network, [layer]) as outputs, twice_differentiable():
            logits = network(batch.images)
        loss = self.classification(logits, batch.labels)
        quantity = self._quantity(logits, batch)
        gradient = _gradient(quantity, outputs[layer], layer)
        pooled = _by_channel(gradient, batch.images, network, layer).mean(2)
        units = units.to(pooled)
        known = units.any(1).sum().clamp(min=1)
        penalty = ((pooled @ units.T) ** 2).sum(1).mean() / known
        return Losses(loss + self.weight * penalty, logits, loss, {"penalty": penalty})

    def training_losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Update the directions in every so many steps, and return the losses.

        Directions are those of images that are not mixed.
        """
        if self.weight and self._step % self.update_every == 0:
            self.update_directions(network, batch)
        return super().training_losses(network, batch)

    @torch.no_grad()
    def update_directions(self, network: nn.Module, batch: Batch) -> None:
        """Take into the directions what the background does to the images with a mask."""
        swapped = swap_backgrounds(batch.images, batch.masks, 1.0, plain=0.0)
        if swapped is batch.images:
            return
        layer, features = self._layer(network, batch), []
        with eval_mode(network):
            for images in (batch.images, swapped):
                with hidden_outputs(network, [layer]) as outputs:
                    logits = network(images)
                features.append(_by_channel(outputs[layer], images, network, layer).amax(2))
        changed = (swapped != batch.images).flatten(1).any(1, keepdim=True)
        members = _members(batch.needed("labels"), class_logits(logits, self.task))
        self.directions.update(features[0] - features[1], members.to(features[0]) * changed)

    def set_progress(self, epoch: int, step: int) -> None:
        """Count steps."""
        self._step = step

    def state(self) -> dict[str, Any]:
        """Return the layer, and the directions before their length is set to 1."""
        return {"layer": self.layer, "shifts": self.directions.shifts}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the layer and the directions."""
        self.layer = state.get("layer", self.layer)
        self.directions.shifts = state.get("shifts")

    def needs_masks(self) -> bool:
        """Whether there is a penalty."""
        return self.weight > 0

    def reads_masks(self) -> bool:
        """Whether there is a penalty."""
        return self.weight > 0

    def _layer(self, network: nn.Module, batch: Batch) -> str:
        if self.layer is None:
            channels, *size = batch.images.shape[1:]
            self.see_image_shape(network, (channels, *size))  # type: ignore[arg-type]
        assert self.layer is not None
        return self.layer

    def _quantity(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return f of each image, ``[B, C]`` before its sum over the classes."""
        logits = at_least_float32(class_logits(logits, self.task))
        if self.quantity == "label":
            return logits * _members(batch.needed("labels"), logits)
        return logits * (2 * torch.randint(2, logits.shape).to(logits) - 1)


def _members(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels as ``[B, C]`` in [0, 1]."""
    hard = labels.dim() == 1 and not labels.is_floating_point()
    return (F.one_hot(labels, logits.shape[1]) if hard else labels).to(logits)


def _gradient(quantity: Tensor, output: Tensor, layer: str) -> Tensor:
    """Return the gradient with respect to a layer's output, to be differentiated again."""
    if not output.requires_grad:
        raise ValueError(
            f"layer {layer!r} has no gradient, as nothing before it is trained; name a later one"
        )
    return score_gradient(quantity, output)


def _by_channel(values: Tensor, images: Tensor, network: nn.Module, layer: str) -> Tensor:
    """Return a layer's values as ``[B, D, N]``, float32 at least; features have one place."""
    placed = on_grid(at_least_float32(values).unsqueeze(1), images, network, layer)[:, 0]
    return placed.flatten(2) if placed.dim() > 2 else placed.unsqueeze(2)
