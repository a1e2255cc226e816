"""The classification loss that all methods share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.checks import TASKS, check_choice, check_labels, check_range
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32
from faster_isnet.common.recipes import Recorded


class ClassificationLoss(Recorded, nn.Module):
    """Cross-entropy of logits, with the usual options, or a custom loss in its place.

    Parameters
    ----------
    task
        ``"multiclass"`` (softmax cross-entropy) or ``"multilabel"`` (binary cross-entropy of each
        class).
    class_weights
        Weight of each class, finite and ≥ 0: of the labels for multi-class, of the positives for
        multi-label. ``None`` weighs all alike. A batch whose labels all have weight 0 has loss 0.
    label_smoothing
        s in [0, 1]: the share of a label that is spread over all classes (Szegedy et al., 2016);
        for multi-label each 0 or 1 moves by s/2 towards the other.
    focusing
        γ ≥ 0 of the focal loss (Lin et al., 2017): what is predicted with probability p counts
        (1 − p)^γ. 0 is cross-entropy.
    function
        A custom loss, a function or module of the logits ``[B, C]`` and labels to a scalar. It
        replaces the cross-entropy, so the options above must keep their defaults.

    Raises
    ------
    ValueError
        If a number is out of its range, a name is unknown, or a custom loss is given options.

    Examples
    --------
    >>> loss = ClassificationLoss(label_smoothing=0.1)
    >>> round(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
    0.2269
    >>> mixed = torch.tensor([[0.7, 0.3]])  # soft labels, as mixup makes them
    >>> round(loss(torch.tensor([[2.0, 0.0]]), mixed).item(), 4)
    0.7669
    """

    def __init__(
        self,
        task: str = "multiclass",
        class_weights: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
        focusing: float = 0.0,
        function: nn.Module | Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.task = check_choice("task", task, TASKS)
        weights = None if class_weights is None else torch.as_tensor(class_weights).float()
        if weights is not None and not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(f"class_weights must be finite and at least 0, got {weights.tolist()}")
        if weights is not None and (weights.dim() != 1 or not bool(weights.any())):
            raise ValueError(
                "class_weights must be one number for each class, not all of them 0, got "
                f"{weights.tolist()}"
            )
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = check_range("label_smoothing", label_smoothing, 0, 1)
        self.focusing = check_range("focusing", focusing, 0)
        if function is not None and (weights is not None or label_smoothing or focusing):
            raise ValueError(
                "class_weights, label_smoothing and focusing are of the cross-entropy; a custom "
                "function must bring its own"
            )
        self.function = function

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar.

        Parameters
        ----------
        logits
            ``[B, C]``, or ``[B, 1]`` or ``[B]`` of a network with a single logit for yes or no,
            whose labels are 1 or 0 as those of two classes.
        labels
            ``[B]`` int64, or soft labels ``[B, C]``, floating point in [0, 1] with the sum 1; for
            multi-label ``[B, C]`` in [0, 1].

        Raises
        ------
        TypeError
            If labels are no tensor, or of the wrong type.
        ValueError
            If a label is out of range; if a custom function returns no scalar.
        """
        logits = at_least_float32(class_logits(logits, self.task))
        check_labels(labels, logits, self.task)
        if self.function is not None:
            return _checked(self.function(logits, labels))
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        if weights is not None and len(weights) != logits.shape[1]:
            raise ValueError(
                f"class_weights must be one number for each of {logits.shape[1]} classes, got "
                f"{weights.tolist()}"
            )
        if self.task == "multilabel":
            return self._binary(logits, labels.to(logits), weights)
        if self.focusing:
            return self._focal(logits, labels, weights)
        if labels.is_floating_point():
            labels = labels.to(logits)
            return F.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing)
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        # A mean over samples whose weights are all 0 is no number; nothing counts, so it is 0.
        counts = weights[labels].any()
        weights = torch.where(counts, weights, torch.ones_like(weights))
        return counts * F.cross_entropy(
            logits, labels, weights, label_smoothing=self.label_smoothing
        )

    def _binary(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        if self.label_smoothing:
            labels = labels.lerp(torch.full_like(labels, 0.5), self.label_smoothing)
        if not self.focusing:
            return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
        positive, negative = F.logsigmoid(logits), F.logsigmoid(-logits)
        # (1 − p)^γ as exp(γ log(1 − p)), whose gradient is finite where p is 1, too.
        of_ones = labels * (self.focusing * negative).exp() * positive
        of_zeros = (1 - labels) * (self.focusing * positive).exp() * negative
        return -(of_ones * (1 if weights is None else weights) + of_zeros).mean()

    def _focal(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the focal loss; hard labels are averaged by their weights, as cross-entropy's."""
        classes = logits.shape[1]
        soft = labels.is_floating_point()
        target = labels.to(logits) if soft else F.one_hot(labels, classes).to(logits)
        smoothed = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        log_p = logits.log_softmax(1)
        # Where p is 1, the gradient of 0^γ would be infinite for γ < 1.
        rest = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)
        each = -smoothed * rest**self.focusing * log_p
        if weights is None:
            return each.sum(1).mean()
        if soft:
            return (each * weights).sum() / len(logits)
        number = (target * weights).sum()
        return (number > 0) * (each * weights).sum() / torch.where(number > 0, number, 1)


def _checked(loss: object) -> Tensor:
    if not (isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point()):
        shape = f" of shape {list(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise ValueError(
            f"the classification function must return a scalar, got {type(loss).__name__}{shape}; "
            "average over the batch (reduction='mean')"
        )
    return loss
