"""Guided attention inference: supervise the class activation map of the label."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_MASK, check_labels, check_masks, check_range
from faster_isnet.common.interpolation import LINEAR
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.layer_grids import on_grid
from faster_isnet.methods.score_gradients import score_gradient, twice_differentiable
from faster_isnet.methods.stages import find_stages, module_name
from faster_isnet.relevance import check_layers, hidden_outputs

log = logging.getLogger(__name__)

_SMALLEST = 1e-12
"""A map without larger values has none: it would be scaled by noise."""


class GAIN(Method):
    """Train a classifier whose Grad-CAM of the label is the mask (GAIN with extra supervision).

    loss = classification + α · mining + ω · mask (Li et al., "Tell me where to look: guided
    attention inference network", CVPR 2018: GAIN_ext), with A the Grad-CAM (Selvaraju et al., 2017)
    of the label's logit y: A = ReLU(Σ_k α_k f_k) at a layer's feature maps f, α_k the mean of
    ∂y/∂f_k over its places, scaled so that the largest value of each map is 1. All of A is
    differentiated, α_k as well.

    - *mining*: the probability of the label for the image that is erased where A is high,
      I* = I · (1 − T(A)), T(A) = sigmoid(s (A − σ)), so that A covers all that shows the label;
    - *mask*: the mean squared difference of A and the mask, which is averaged over each place.

    For multi-label both are means over the positive labels of a sample. Images without a mask have
    no mask loss; attention mining needs none, and holds for them as well, as in the paper. Images
    cannot be mixed (``mixing``): a mask would be that of two foregrounds, and A shows one label.

    Parameters
    ----------
    classification
        The classification loss; ``None`` for cross-entropy.
    mining_weight
        α ≥ 0; 1 in the paper. 0 saves the forward pass of the erased images.
    mask_weight
        ω ≥ 0; 10 in the paper and in the ISNet's comparison.
    steepness
        s > 0 of the soft mask. The paper names no value; published implementations have 10.
    threshold
        σ in [0, 1], the attention from which on an image is erased. The paper names no value;
        published implementations have 0.5.
    layer
        The name of the module whose output is f: feature maps, channels first or last, or tokens.
        ``None`` for the last layer that has places and that all of the image goes through, as the
        paper's last convolution; it is found by running the network on one image
        (:func:`~faster_isnet.methods.stages.find_stages`).

    Raises
    ------
    ValueError
        If a number is out of its range; in training, if there is no such layer, or its output has
        no places in the image.

    Notes
    -----
    A step costs 1.9 standard ones, without mining 1.1 (the small network for the biased digits, on
    a CPU). A network with a clean map may read the background all the same (docs/design.md).

    Erased images do not change the running statistics of batch norm, which in use are those of
    images.

    In the ISNet's comparison (Bassi et al., Nature Communications 15, 291, 2024; published code) A
    was the last ReLU's of a DenseNet-121, not scaled, upsampled to the image's size and compared
    there, with α_k constant, α = 1, ω = 10, s = 10 and σ = 0.5.

    Examples
    --------
    >>> from faster_isnet.models import build_backbone
    >>> images, masks = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    >>> masks[..., 8:24, 8:24] = 1
    >>> method, network = GAIN(), build_backbone("convnet", 2)
    >>> losses = method.losses(network, Batch(images, torch.tensor([0, 1]), masks))
    >>> method.layer, sorted(losses.parts)
    ('block5', ['mask', 'mining'])
    """

    name = "gain"
    needs_gradients_in_validation = True

    def __init__(
        self,
        classification: ClassificationLoss | None = None,
        *,
        mining_weight: float = 1.0,
        mask_weight: float = 10.0,
        steepness: float = 10.0,
        threshold: float = 0.5,
        layer: str | None = None,
    ) -> None:
        super().__init__(classification)
        self.mining_weight = check_range("mining_weight", mining_weight, 0)
        self.mask_weight = check_range("mask_weight", mask_weight, 0)
        self.steepness = check_range("steepness", steepness, 0, open_low=True)
        self.threshold = check_range("threshold", threshold, 0, 1)
        self.layer = layer

    def build(self, classifier: nn.Module) -> nn.Module:
        """Return the classifier, if it has the layer that is named."""
        if self.layer is not None:
            (self.layer,) = check_layers(classifier, [module_name(classifier, self.layer)])
        return classifier

    def see_image_shape(self, network: nn.Module, image_shape: Sequence[int]) -> None:
        """Find the layer, if it is not named, and log which it is."""
        if self.layer is None:
            self.layer = find_stages(network, image_shape)[-1]
            log.info("Grad-CAM is computed at layer %s", self.layer)

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the classification loss, and those of attention mining and of the masks."""
        images, masks = batch.images, None
        if self.mask_weight:
            masks, _ = check_masks(batch.masks, images.unsqueeze(1))
        attends = masks is not None or self.mining_weight > 0
        logits, attention = self._attend(network, batch) if attends else (network(images), None)
        classification = self.classification(logits, batch.labels)
        mining = mask = torch.zeros_like(classification)
        if attention is not None and self.mining_weight:
            mining = attention.mean(self._remaining_scores(network, images, attention))
        if attention is not None and masks is not None:
            mask = attention.mean(_distances(attention, masks))
        total = classification + self.mining_weight * mining + self.mask_weight * mask
        return Losses(total, logits, classification, {"mining": mining, "mask": mask})

    def needs_masks(self) -> bool:
        """Whether there is a mask loss."""
        return self.mask_weight > 0

    def reads_masks(self) -> bool:
        """Whether there is a mask loss."""
        return self.mask_weight > 0

    def state(self) -> dict[str, Any]:
        """Return the layer, once it is found."""
        return {} if self.layer is None else {"layer": self.layer}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the layer that was found."""
        if self.layer is None:
            self.layer = state.get("layer")

    def _attend(self, network: nn.Module, batch: Batch) -> tuple[Tensor, _Attention | None]:
        """Return the logits of a batch, and the attention of each label; none without labels."""
        images = batch.images
        if not all(parameter.requires_grad for parameter in network.parameters()):
            images = images.detach().requires_grad_()  # frozen weights give features no gradient
        self.see_image_shape(network, images.shape[1:])
        assert self.layer is not None
        with twice_differentiable(), hidden_outputs(network, [self.layer]) as outputs:
            logits = network(images)
        scores = at_least_float32(class_logits(logits, self.task))
        labels = batch.needed("labels")
        check_labels(labels, scores, self.task)
        found = []
        for chosen in self._one_label_each(labels, scores):
            features = outputs[self.layer]
            gradient = score_gradient(scores.where(chosen, 0), features)
            features, gradient = (
                _on_grid(values, images, network, self.layer) for values in (features, gradient)
            )
            samples, classes = self._samples_and_classes(chosen)
            found.append((samples, classes, grad_cam(features, gradient)[samples]))
        if not found:
            return logits, None
        samples, classes, maps = map(torch.cat, zip(*found, strict=True))
        return logits, _Attention(maps, samples, classes, len(images))

    def _one_label_each(self, labels: Tensor, scores: Tensor) -> Iterator[Tensor]:
        """Yield ``[B, C]`` for the first, the second, … label of each sample that has so many."""
        if self.task == "multiclass":
            index = labels.argmax(1) if labels.is_floating_point() else labels
            yield F.one_hot(index, scores.shape[1]) == 1
            return
        positive = labels >= 0.5
        number = positive.cumsum(1)
        for each in range(1, int(number.max()) + 1):
            yield positive & (number == each)

    def _samples_and_classes(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        if self.task == "multiclass":  # without waiting for an accelerator
            return torch.arange(len(chosen), device=chosen.device), chosen.int().argmax(1)
        samples, classes = chosen.nonzero(as_tuple=True)
        return samples, classes

    def _remaining_scores(
        self, network: nn.Module, images: Tensor, attention: _Attention
    ) -> Tensor:
        """Return the probability ``[N]`` of each label after what shows it was erased."""
        mode = LINEAR[images.dim() - 2]
        maps = F.interpolate(attention.maps, images.shape[2:], mode=mode, align_corners=False)
        kept = 1 - torch.sigmoid(self.steepness * (maps - self.threshold))
        erased = images[attention.samples] * kept.to(images)
        # Batch norm takes no single sample.
        several = torch.cat([erased, erased]) if len(erased) == 1 else erased
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        logits = torch.func.functional_call(network, buffers, (several,))
        scores = at_least_float32(class_logits(logits, self.task))
        p = scores.sigmoid() if self.task == "multilabel" else scores.softmax(1)
        return p[: len(erased)].gather(1, attention.classes[:, None]).squeeze(1)


@dataclass(frozen=True)
class _Attention:
    """The attention maps of the labels of a batch.

    Attributes
    ----------
    maps
        ``[N, 1, ...]`` in [0, 1], one for each label of each sample.
    samples, classes
        ``[N]``: whose map it is, and of which label.
    batch
        B, the number of samples.
    """

    maps: Tensor
    samples: Tensor
    classes: Tensor
    batch: int

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the batch of the mean over each sample's labels, 0 without any."""
        totals = values.new_zeros(self.batch).index_add(0, self.samples, values)
        numbers = values.new_zeros(self.batch).index_add(0, self.samples, torch.ones_like(values))
        return (totals / numbers.clamp(min=1)).mean()


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Compute Grad-CAM, scaled so that its largest value is 1.

    ReLU(Σ_k α_k f_k), α_k the mean of the gradient over the places of channel k (Selvaraju et
    al., ICCV 2017).

    Parameters
    ----------
    features, gradient
        ``[B, C, ...]``: a layer's output, and the gradient of the score that is explained.

    Returns
    -------
    Tensor
        ``[B, 1, ...]`` in [0, 1]; all 0 where no place speaks for the score.

    Examples
    --------
    >>> features = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    >>> grad_cam(features, torch.ones_like(features))
    tensor([[[[0.2500, 0.5000, 1.0000]]]])
    """
    spatial = tuple(range(2, features.dim()))
    alpha = gradient.mean(spatial, keepdim=True)
    maps = (alpha * features).sum(1, keepdim=True).relu()
    return maps / maps.amax(spatial, keepdim=True).clamp(min=_SMALLEST)


def _on_grid(values: Tensor, images: Tensor, network: nn.Module, layer: str) -> Tensor:
    """Return values of a layer as ``[B, C, ...]``, in float32 or better."""
    placed = on_grid(values.unsqueeze(1), images, network, layer).squeeze(1)
    if placed.dim() != images.dim():
        raise ValueError(
            f"layer {layer!r} returns {list(values.shape)}, which has no places in images of shape "
            f"{list(images.shape)}; name one that returns feature maps or tokens"
        )
    return at_least_float32(placed)


def _distances(attention: _Attention, masks: Tensor) -> Tensor:
    """Return the mean squared difference ``[N]`` of each map and its mask, 0 without a mask."""
    has_mask = (masks != NO_MASK).flatten(1).any(1)
    small = F.interpolate(masks.to(attention.maps), attention.maps.shape[2:], mode="area")
    distances = (attention.maps - small[attention.samples]).square().flatten(1).mean(1)
    return distances * has_mask[attention.samples]
