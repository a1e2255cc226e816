"""The loss of an ISNet: classification, and a penalty on relevance in the background."""

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
from faster_isnet.explaining.explainer import Explanation
from faster_isnet.methods.classification import ClassificationLoss
from faster_isnet.methods.isnet.cuts import AUTO, IMAGE, Cut, Cuts

_LARGEST_BACKGROUND_LOSS = -math.log(1e-7)


@dataclass(frozen=True)
class LossParts:
    """What the loss is made of, each a scalar tensor.

    Attributes
    ----------
    total
        (1 − P) · classification + P · heatmap: what to minimise.
    classification
        The mean (binary) cross-entropy of the batch.
    heatmap
        The mean heatmap loss of the batch, where samples without a mask count zero.
    """

    total: Tensor
    classification: Tensor
    heatmap: Tensor


class ISNetLoss(Recorded, nn.Module):
    """Classification loss and heatmap loss in one.

    The heatmap loss has two parts: the background part falls as the largest relevances of the
    background do, in units of the foreground's mean; the foreground part keeps the relevance of
    the foreground in a natural range, since a heatmap of zeros has no background either (Bassi et
    al., Nature Communications 15, 291, 2024; method §5). Computed in float32 or better.

    Parameters
    ----------
    heatmap_weight
        P in [0, 1], the share of the heatmap loss in the total. Larger: more resistance to bias,
        less stable.
    gwrp_decay
        d in (0, 1]: how fast the weights of the sorted background relevances fall. 1 gives the
        mean, towards 0 only the largest counts.
    activation
        E > 0 in −log(1 − s/(s + E)), the background score at which the loss is log 2.
    background_weight, foreground_weight
        w1 and w2 ≥ 0.
    cut_low, cut_high
        C1 and C2 with 0 < C1 ≤ C2: the range of the absolute relevance in the foreground that
        costs nothing. A number for all heatmaps, or a sequence with one for each of a sample's K
        heatmaps; or, for each supervised layer, one of these by its name, :data:`IMAGE` being the
        heatmap of the image. ``cut_low="auto"`` leaves both to the calibration
        (:class:`~faster_isnet.methods.isnet.calibration.CutCalibration`).
    foreground
        How relevance above C2 is penalised: ``"l1"``, ``"l2"``, or ``"hybrid"``, which is
        quadratic first and then linear.
    normalization
        ``"abs"`` divides by the foreground's mean absolute relevance, ``"signed"`` by the
        absolute value of its mean, ``"none"`` multiplies by the number of elements.
    layer_decay
        How losses of several layers (deep supervision) are joined: sorted, with weights that
        fall by this factor. 1 gives the mean.
    task, class_weights
        Of the classification loss, see :class:`~faster_isnet.methods.ClassificationLoss`.
    classification
        The classification loss with further options, or a custom one; ``task`` and
        ``class_weights`` are its own then.

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
        heatmap_weight: float = 0.7,
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
        self.heatmap_weight = check_range("heatmap_weight", heatmap_weight, 0, 1)
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
            What the model said and why, differentiable if the loss shall be.
        labels
            See :class:`~faster_isnet.methods.ClassificationLoss`.
        masks
            ``[B, 1, H, W]`` or ``[B, H, W]`` of the images' size: 1 in the foreground, 0 in the
            background, :data:`~faster_isnet.NO_MASK` everywhere for a sample that has no mask.
            ``None`` if no sample has one. Samples without a mask contribute classification only.

        Raises
        ------
        TypeError
            If labels or masks are of the wrong type.
        ValueError
            If labels are out of range; if a mask is not binary, has no foreground, or has another
            size than the images.
        FloatingPointError
            If a heatmap with a mask, at the image or at a layer, is not finite.

        Notes
        -----
        Values on an accelerator are not looked at, which would hold up the training step.
        """
        classification = self.classify(explanation.logits, labels)
        masks, has_mask = check_masks(masks, explanation.heatmap)
        if masks is None:
            # Zero, and still a function of the heatmap; what is not looked at may be NaN.
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
        """Return the parts, scalars each, with their weighted sum: (1 − P) · first + P · second."""
        p = self.heatmap_weight
        return LossParts((1 - p) * classification + p * heatmap, classification, heatmap)

    def classify(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the classification loss of logits ``[B, C]`` alone, a scalar."""
        return self.classification(logits, labels)  # type: ignore[no-any-return]

    def heatmap_losses(self, heatmaps: Tensor, masks: Tensor, layer: str = IMAGE) -> Tensor:
        """Return the heatmap loss of each sample.

        Parameters
        ----------
        heatmaps
            ``[B, K, C, ...]``, K heatmaps a sample, at the image or at a hidden layer.
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
            # Divided after the pooling, which is linear: there are fewer values then.
            pooled = gwrp(size * (1 - mask), self.gwrp_decay)
            unit = _UNITS[self.normalization](h, mask, inside)
            losses = losses + self.background_weight * self._background(pooled / unit)
        if self.foreground_weight:
            losses = losses + self.foreground_weight * self._foreground(inside, layer)
        return losses.mean(1)

    def _heatmap_loss(self, explanation: Explanation, masks: Tensor, has_mask: Tensor) -> Tensor:
        # What the heatmaps of samples without a mask hold, be it NaN, does not matter.
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
        """Return −log(1 − s/(s + E)) of background scores s ``[B, K, C]``, the mean over C."""
        # The same as −log(1 − s/(s + E)), without the cancellation.
        return torch.log1p(scores / self.activation).clamp(max=_LARGEST_BACKGROUND_LOSS).mean(2)

    def _foreground(self, inside: Tensor, layer: str) -> Tensor:
        """Return the price of a foreground relevance ``[B, K]`` outside of [C1, C2]."""
        if self.cuts is None:
            raise RuntimeError(
                'C1 and C2 are not known yet: with cut_low="auto" LitISNet calibrates them when it '
                "starts to train; elsewhere set the attribute `cuts` to what calibrate() found"
            )
        low, high = map(inside.new_tensor, self.cuts.for_heatmaps(layer, inside.shape[1]))
        below = ((inside / low).clamp(max=1) - 1).square()
        return below + _ABOVE[self.foreground](inside, low, high)


def gwrp(values: Tensor, decay: float) -> Tensor:
    """Global weighted rank pooling over the last dimension.

    Σ_i d^i v_(i) / Σ_i d^i over the values in descending order (Kolesnikov and Lampert, 2016).

    Parameters
    ----------
    values
        ``[..., N]``, not negative.
    decay
        d in (0, 1]: 1 gives the mean, towards 0 the maximum.

    Examples
    --------
    >>> gwrp(torch.tensor([1.0, 4.0, 2.0]), 0.5)  # (4 + 2/2 + 1/4) / (1 + 1/2 + 1/4)
    tensor(3.)
    """
    if decay == 1:
        return values.mean(-1)
    n = values.shape[-1]
    # Ranks whose weight is below this change no digit of the sum.
    smallest = torch.finfo(values.dtype).eps * (1 - decay) / 4
    ranks = min(n, math.ceil(math.log(smallest) / math.log(decay)))
    # Powers in float64: a decay near 1 loses its digits in float32.
    weights = decay ** torch.arange(ranks, dtype=torch.float64) * ((1 - decay) / (1 - decay**n))
    return values.topk(ranks, dim=-1).values @ weights.to(values)


def _filled(values: Tensor, samples: Tensor, value: float) -> Tensor:
    """Return ``values`` with those of some samples, of which ``samples`` ``[B]`` says, filled in.

    They are not taken out, since an accelerator's host does not know how many there are.
    """
    if is_on_host(samples) and not bool(samples.any()):
        return values
    return values.masked_fill(samples.reshape(-1, *(1,) * (values.dim() - 1)), value)


def shrink_mask(masks: Tensor, relevance: Tensor) -> Tensor:
    """Reduce masks to the size of a layer: 1 wherever any foreground falls.

    Parameters
    ----------
    masks
        ``[B, 1, ...]`` in {0, 1}, of the images' size.
    relevance
        ``[B, K, C, ...]``, what the masks are for.

    Raises
    ------
    ValueError
        If the layer has other spatial dimensions than the images.
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


# What the sizes of a heatmap are measured in, ``[B, K, 1]``: from the heatmap ``[B, K, C, N]``, the
# mask ``[B, 1, 1, N]``, and the sum of the sizes in the foreground ``[B, K]``.


def _absolute_mean(h: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
    return _positive(inside / _foreground_size(h, mask))[..., None]


def _signed_mean(h: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
    return _positive(((h * mask).sum((2, 3)) / _foreground_size(h, mask)).abs())[..., None]


def _one_by_number(h: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
    return inside.new_tensor(1 / math.prod(h.shape[2:]))


def _foreground_size(h: Tensor, mask: Tensor) -> Tensor:
    return mask.sum((2, 3)) * h.shape[2]


def _positive(value: Tensor) -> Tensor:
    # A foreground without relevance has no mean to divide by; its background is all that counts.
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
