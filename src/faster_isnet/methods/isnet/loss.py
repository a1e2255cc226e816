"""Compute the loss of an ISNet: classification, and a penalty on background relevance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.checks import (
    check_choice,
    check_finite_heatmap,
    check_masks,
    check_range,
    is_on_host,
)
from faster_isnet.common.precision import at_least_float32
from faster_isnet.common.recipes import Recorded
from faster_isnet.explaining.explanation import Explanation
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.isnet.cuts import AUTO, IMAGE, Cut, Cuts

WEIGHT, WEIGHT_IF_SWAPPED = 0.7, 0.1
"""P unless it is given, without and with swapped backgrounds (``docs/results/recipe.md``)."""
_LARGEST_BACKGROUND_LOSS = -math.log(1e-7)


@dataclass(frozen=True)
class LossParts:
    """Hold the parts of the loss, each a scalar tensor.

    Attributes
    ----------
    total
        (1 − P) · classification + P · heatmap: the loss to minimise.
    classification
        The mean (binary) cross-entropy of the batch.
    heatmap
        The mean heatmap loss of the batch, where samples without a mask contribute zero.
    """

    total: Tensor
    classification: Tensor
    heatmap: Tensor


class ISNetLoss(Recorded, nn.Module):
    """Compute the weighted sum of classification loss and heatmap loss.

    The heatmap loss has two parts: the background part penalises the largest relevances of the
    background, in units of the foreground's mean; the foreground part keeps the relevance of the
    foreground in a natural range, so that heatmaps of zeros are penalised, too (Bassi et
    al., Nature Communications 15, 291, 2024; method §5). Computed in float32 or better.

    Parameters
    ----------
    heatmap_weight
        P in [0, 1], the weight of the heatmap loss in the total. Larger values give more robustness
        to bias, and less stable training. ``"auto"``: 0.1 where
        :class:`~faster_isnet.methods.ISNetMethod` swaps backgrounds, which it does by default, else
        0.7, the papers'.
    gwrp_decay
        d in (0, 1]: decay of the weights of the sorted background relevances. 1 gives the mean, the
        limit 0 the maximum.
    activation
        E > 0 in −log(1 − s/(s + E)), the background score at which the loss is log 2.
    background_weight, foreground_weight
        w1 and w2 ≥ 0.
    cut_low, cut_high
        C1 and C2 with 0 < C1 ≤ C2: the range of the absolute relevance in the foreground without
        penalty. A number for all heatmaps, or a sequence with one for each of the K heatmaps of a
        sample; or a mapping of names of supervised layers to one of these, with :data:`IMAGE` for
        the heatmap of the image. ``cut_low="auto"`` leaves both to the calibration
        (:class:`~faster_isnet.methods.isnet.calibration.CutCalibration`).
    foreground
        Penalty of relevance above C2: ``"l1"``, ``"l2"``, or ``"hybrid"``, which is quadratic
        near C2 and then linear.
    normalization
        ``"abs"`` divides by the foreground's mean absolute relevance, ``"signed"`` by the
        absolute value of its mean, ``"none"`` multiplies by the number of elements.
    layer_decay
        In (0, 1]: losses of several layers (deep supervision) are sorted, and averaged with weights
        that decay by this factor. 1 gives the mean.
    task, class_weights
        Of the classification loss, see :class:`~faster_isnet.methods.ClassificationLoss`.
    classification
        The classification loss with further options, or a custom one, instead of ``task`` and
        ``class_weights``.

    Raises
    ------
    ValueError
        If a parameter is out of its range or a name is unknown; if ``classification`` and
        ``task`` or ``class_weights`` are given.

    Examples
    --------
    >>> heatmap, mask = torch.zeros(1, 1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    >>> mask[..., :2], heatmap[..., :2] = 1.0, 0.1  # relevance in the foreground only
    >>> explanation = Explanation(torch.zeros(1, 2), heatmap, {}, torch.zeros(1, 1))
    >>> parts = ISNetLoss()(explanation, torch.tensor([0]), mask)
    >>> parts.heatmap.item()  # 24 · 0.1 lies between C1 = 1 and C2 = 25
    0.0
    """

    def __init__(
        self,
        heatmap_weight: float | str = AUTO,
        gwrp_decay: float = 0.9,
        activation: float = 1.0,
        background_weight: float = 1.0,
        foreground_weight: float = 1.0,
        cut_low: Cut | str = 1.0,
        cut_high: Cut = 25.0,
        foreground: str = "hybrid",
        normalization: str = "abs",
        layer_decay: float = 1.0,
        task: str = "multiclass",
        class_weights: Sequence[float] | Tensor | None = None,
        classification: ClassificationLoss | None = None,
    ) -> None:
        super().__init__()
        self.weight_is_given = heatmap_weight != AUTO
        weight: Any = heatmap_weight if self.weight_is_given else WEIGHT
        self.heatmap_weight = check_range("heatmap_weight", weight, 0, 1)
        self.gwrp_decay = check_range("gwrp_decay", gwrp_decay, 0, 1, open_low=True)
        self.activation = check_range("activation", activation, 0, open_low=True)
        self.background_weight = check_range("background_weight", background_weight, 0)
        self.foreground_weight = check_range("foreground_weight", foreground_weight, 0)
        if isinstance(cut_low, str):
            check_choice("cut_low", cut_low, [AUTO])
        self.cuts = None if isinstance(cut_low, str) else Cuts.of(cut_low, cut_high)
        self.foreground = check_choice("foreground", foreground, _ABOVE)
        self.normalization = check_choice("normalization", normalization, _UNITS)
        self.layer_decay = check_range("layer_decay", layer_decay, 0, 1, open_low=True)
        if classification is None:
            classification = ClassificationLoss(task, class_weights)
        elif task != "multiclass" or class_weights is not None:
            raise ValueError(
                f"task={task!r} and class_weights={class_weights!r} are the classification loss's: "
                "give them to ClassificationLoss"
            )
        self.classification = classification

    @property
    def task(self) -> str:
        """The task of the classification loss."""
        return self.classification.task

    def forward(self, explanation: Explanation, labels: Tensor, masks: Tensor | None) -> LossParts:
        """Compute the loss of a batch.

        Parameters
        ----------
        explanation
            Logits and heatmaps of the model; differentiable if the loss is to be.
        labels
            See :class:`~faster_isnet.methods.ClassificationLoss`.
        masks
            ``[B, 1, H, W]`` or ``[B, H, W]`` of the images' size: 1 in the foreground, 0 in the
            background, :data:`~faster_isnet.NO_MASK` everywhere for a sample without a mask.
            ``None`` if no sample has one. Samples without a mask contribute only to the
            classification loss.

        Raises
        ------
        TypeError
            If labels or masks have the wrong type.
        ValueError
            If labels are out of range; if a mask is not binary, has no foreground, or does not have
            the size of the images.
        FloatingPointError
            If the heatmap of a sample with a mask, at the image or at a layer, is not finite.

        Notes
        -----
        Values on an accelerator are not checked, as reading them synchronises with the device.
        """
        classification = self.classify(explanation.logits, labels)
        masks, has_mask = check_masks(masks, explanation.heatmap)
        if masks is None:
            # Zero, but connected to the graph; the heatmap itself may be NaN.
            heatmap = at_least_float32(explanation.heatmap[:0]).sum()
        else:
            for relevance in (explanation.heatmap, *explanation.layers.values()):
                check_finite_heatmap(relevance, has_mask)
            heatmap = self._heatmap_loss(explanation, masks, has_mask)
        return self.join(classification, heatmap)

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments, with C1 and C2 as they are now, be they calibrated or set."""
        if self.cuts is None:
            return super().recipe_arguments()
        cuts = {"cut_low": dict(self.cuts.low), "cut_high": dict(self.cuts.high)}
        return super().recipe_arguments() | cuts

    def join(self, classification: Tensor, heatmap: Tensor) -> LossParts:
        """Combine two scalar losses: (1 − P) · classification + P · heatmap."""
        p = self.heatmap_weight
        return LossParts((1 - p) * classification + p * heatmap, classification, heatmap)

    def classify(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the classification loss of logits ``[B, C]``, a scalar."""
        return self.classification(logits, labels)  # type: ignore[no-any-return]

    def heatmap_losses(self, heatmaps: Tensor, masks: Tensor, layer: str = IMAGE) -> Tensor:
        """Compute the heatmap loss of each sample.

        Parameters
        ----------
        heatmaps
            ``[B, K, C, ...]``, K heatmaps per sample, of the image or of a hidden layer.
        masks
            ``[B, 1, ...]`` in {0, 1}, of the heatmaps' size.
        layer
            The layer's name, if C1 and C2 differ by layer.

        Returns
        -------
        Tensor
            ``[B]``, the mean over each sample's K heatmaps.
        """
        h, mask = at_least_float32(heatmaps).flatten(3), masks.flatten(2).unsqueeze(1)
        mask, size = mask.to(h), h.abs()
        inside = (size * mask).sum((2, 3))
        losses = h.new_zeros(h.shape[:2])
        if self.background_weight:
            # Dividing after the (linear) pooling needs fewer operations.
            pooled = gwrp(size * (1 - mask), self.gwrp_decay)
            unit = _UNITS[self.normalization](h, mask, inside)
            losses = losses + self.background_weight * self._background(pooled / unit)
        if self.foreground_weight:
            losses = losses + self.foreground_weight * self._foreground(inside, layer)
        return losses.mean(1)

    def share_out_of_range(self, explanation: Explanation, masks: Tensor | None) -> Tensor:
        """Compute the share of heatmaps whose foreground relevance is outside of [C1, C2].

        Parameters
        ----------
        explanation, masks
            As :meth:`forward` takes them; hidden layers do not count.

        Returns
        -------
        Tensor
            A scalar in [0, 1]: the mean over all samples, of which those without a mask count as
            inside.

        Examples
        --------
        >>> heatmap, masks = torch.ones(2, 1, 3, 4, 4), torch.ones(2, 1, 4, 4)
        >>> heatmap[1] = 0.001  # 48 · 0.001 is below C1 = 1
        >>> explanation = Explanation(torch.zeros(2, 2), heatmap, {}, torch.zeros(2, 1))
        >>> ISNetLoss(cut_high=50).share_out_of_range(explanation, masks)
        tensor(0.5000)
        """
        masks, has_mask = check_masks(masks, explanation.heatmap)
        h = at_least_float32(explanation.heatmap).detach().flatten(3)
        if masks is None:
            return h.new_zeros(())
        inside = (h.abs() * masks.flatten(2).unsqueeze(1).to(h)).sum((2, 3))
        low, high = self._range(IMAGE, inside)
        outside = ((inside < low) | (inside > high)).to(h).mean(1)
        return torch.where(has_mask, outside, 0).mean()

    def _heatmap_loss(self, explanation: Explanation, masks: Tensor, has_mask: Tensor) -> Tensor:
        # Heatmaps of samples without a mask are ignored, even if they contain NaN.
        relevances = {IMAGE: explanation.heatmap, **explanation.layers}
        masks = _filled(masks, ~has_mask, 1)
        by_layer = [
            self.heatmap_losses(
                _filled(relevance, ~has_mask, 0),
                shrink_mask(masks, relevance),
                layer,
            )
            for layer, relevance in relevances.items()
        ]
        joined = gwrp(torch.stack(by_layer, dim=1), self.layer_decay)
        return (joined * has_mask).sum() / len(has_mask)

    def _background(self, scores: Tensor) -> Tensor:
        """Compute the mean over C of −log(1 − s/(s + E)) of background scores s ``[B, K, C]``."""
        # log1p avoids the cancellation in 1 − s/(s + E).
        return torch.log1p(scores / self.activation).clamp(max=_LARGEST_BACKGROUND_LOSS).mean(2)

    def _foreground(self, inside: Tensor, layer: str) -> Tensor:
        """Compute the penalty of foreground relevance ``[B, K]`` outside of [C1, C2]."""
        low, high = self._range(layer, inside)
        below = ((inside / low).clamp(max=1) - 1).square()
        return below + _ABOVE[self.foreground](inside, low, high)

    def _range(self, layer: str, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Return C1 and C2 of a layer, each ``[K]`` or ``[1]``, for relevance ``[B, K]``."""
        if self.cuts is None:
            raise RuntimeError(
                'C1 and C2 are not known yet: with cut_low="auto" LitISNet calibrates them when it '
                "starts to train; elsewhere set the attribute `cuts` to what calibrate() found"
            )
        low, high = map(inside.new_tensor, self.cuts.for_heatmaps(layer, inside.shape[1]))
        return low, high


def gwrp(values: Tensor, decay: float) -> Tensor:
    """Apply global weighted rank pooling over the last dimension.

    Σ_i d^i v_(i) / Σ_i d^i over the values in descending order (Kolesnikov and Lampert, 2016).

    Parameters
    ----------
    values
        ``[..., N]``, ≥ 0.
    decay
        d in (0, 1]: 1 gives the mean, the limit 0 the maximum.

    Examples
    --------
    >>> gwrp(torch.tensor([1.0, 4.0, 2.0]), 0.5)  # (4 + 2/2 + 1/4) / (1 + 1/2 + 1/4)
    tensor(3.)
    """
    if decay == 1:
        return values.mean(-1)
    n = values.shape[-1]
    # Smaller weights are below the resolution of the sum.
    smallest = torch.finfo(values.dtype).eps * (1 - decay) / 4
    ranks = min(n, math.ceil(math.log(smallest) / math.log(decay)))
    # Powers in float64: near a decay of 1, float32 is not precise enough.
    weights = decay ** torch.arange(ranks, dtype=torch.float64) * ((1 - decay) / (1 - decay**n))
    return values.topk(ranks, dim=-1).values @ weights.to(values)


def _filled(values: Tensor, samples: Tensor, value: float) -> Tensor:
    """Fill the values of the samples selected by the boolean mask ``samples`` ``[B]``.

    Removing them instead would synchronise with the device, to find the new shape.
    """
    if is_on_host(samples) and not bool(samples.any()):
        return values
    return values.masked_fill(samples.reshape(-1, *(1,) * (values.dim() - 1)), value)


def shrink_mask(masks: Tensor, relevance: Tensor) -> Tensor:
    """Reduce masks to the size of a layer: 1 where the pooled region contains any foreground.

    Parameters
    ----------
    masks
        ``[B, 1, ...]`` in {0, 1}, of the images' size.
    relevance
        ``[B, K, C, ...]``, the heatmaps of the layer.

    Raises
    ------
    ValueError
        If the layer has another number of spatial dimensions than the images.
    """
    size = relevance.shape[3:]
    if masks.shape[2:] == size:
        return masks
    if len(size) != masks.dim() - 2 or len(size) not in _ADAPTIVE_POOLS:
        raise ValueError(
            f"deep supervision needs layers with the images' {masks.dim() - 2} spatial "
            f"dimensions, got relevance of shape {list(relevance.shape)}; name other layers"
        )
    pooled = _ADAPTIVE_POOLS[len(size)](masks.float(), size)
    return (pooled > 0).to(masks.dtype)


# Units of absolute relevance, ``[B, K, 1]``, computed from the heatmap ``[B, K, C, N]``, the mask
# ``[B, 1, 1, N]``, and the sum of absolute relevance in the foreground ``[B, K]``.


def _absolute_mean(h: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
    return _positive(inside / _foreground_size(h, mask))[..., None]


def _signed_mean(h: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
    return _positive(((h * mask).sum((2, 3)) / _foreground_size(h, mask)).abs())[..., None]


def _one_by_number(h: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
    return inside.new_tensor(1 / math.prod(h.shape[2:]))


def _foreground_size(h: Tensor, mask: Tensor) -> Tensor:
    return mask.sum((2, 3)) * h.shape[2]


def _positive(value: Tensor) -> Tensor:
    # Avoids division by zero if the foreground has no relevance.
    return value.clamp(min=torch.finfo(value.dtype).tiny)


def _above_l1(inside: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (inside - high).clamp(min=0)


def _above_l2(inside: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return ((inside - high).clamp(min=0) / low).square()


def _above_hybrid(inside: Tensor, low: Tensor, high: Tensor) -> Tensor:
    # Quadratic from C2 to C1 + C2, where it is 1, then linear.
    quadratic = _above_l2(inside.clamp(max=low + high), low, high)
    return quadratic + (inside - (low + high)).clamp(min=0)


_UNITS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "abs": _absolute_mean,
    "signed": _signed_mean,
    "none": _one_by_number,
}
_ABOVE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "l1": _above_l1,
    "l2": _above_l2,
    "hybrid": _above_hybrid,
}
_ADAPTIVE_POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}
