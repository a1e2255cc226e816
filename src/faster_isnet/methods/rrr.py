"""Right for the right reasons: penalise the gradient of the predictions in the background."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_masks, check_range
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32
from faster_isnet.explaining.targets import all_log_probabilities
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.mixing import MIXINGS
from faster_isnet.methods.score_gradients import score_gradient, twice_differentiable

WEIGHT = 1000 / 255**2
"""λ of the paper, 1000 for pixels in [0, 255], for pixels in [0, 1]."""


class RightReasons(Method):
    """Train a classifier whose predictions do not change with the background, to first order.

    loss = classification + λ · mean over samples of Σ (∂/∂x Σ_k log p_k)², summed over the
    pixels and channels of the background, p being the class probabilities (Ross, Hughes and
    Doshi-Velez, "Right for the right reasons", IJCAI 2017). The paper's third term, weight decay,
    is an option of the optimiser.

    For multi-label each class is a decision between yes and no, whose log probabilities are summed
    as those of two classes are: Σ_k log p_k + log(1 − p_k).

    Images without a mask contribute to the classification only, as the paper's samples without an
    annotation do.

    Parameters
    ----------
    classification
        The classification loss; ``None`` for cross-entropy.
    weight
        λ ≥ 0. The sum grows with the number of background pixels, and is divided by c² where pixel
        values are multiplied by c. The paper has 1000 in most experiments, on pixels
        in [0, 255]; the default is the same for pixels in [0, 1], 1000/255² = 0.0154. The paper's
        rule for other data is to raise λ until both terms are about equal: λ times the logged
        ``gradient``, and the classification loss. With λ too large the classifier predicts nothing.
        The accuracy on validation data that share the bias is no guide.

    Raises
    ------
    ValueError
        If the weight is out of its range.

    Notes
    -----
    The second derivative of networks of ReLUs is zero almost everywhere in the images, but not in
    the weights, which is what is needed. A step costs 2.3 standard ones (the small
    network for the biased digits, on a CPU).

    Examples
    --------
    >>> import torch
    >>> images, masks = torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    >>> masks[..., :2] = 1
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> batch = Batch(images, torch.tensor([0, 1]), masks)
    >>> losses = RightReasons(weight=0.5).losses(network, batch)
    >>> bool(losses.total == losses.classification + 0.5 * losses.parts["gradient"])
    True
    """

    name = "rrr"
    mixings = MIXINGS
    needs_gradients_in_validation = True

    def __init__(
        self, classification: ClassificationLoss | None = None, *, weight: float = WEIGHT
    ) -> None:
        super().__init__(classification)
        self.weight = check_range("weight", weight, 0)

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the classification loss and the penalty; ``gradient`` is without λ."""
        masks, images = None, batch.images
        if self.weight:
            masks, _ = check_masks(batch.masks, images.unsqueeze(1))
        if masks is None:
            logits = network(images)
            penalty = at_least_float32(logits[:0]).sum()
        else:
            images = images.detach().requires_grad_()
            with twice_differentiable():
                logits = network(images)
            score = sum_of_log_probabilities(logits, self.task)
            gradient = at_least_float32(score_gradient(score, images))
            penalty = gradient.where(masks == 0, 0).square().flatten(1).sum(1).mean()
        classification = self.classification(logits, batch.labels)
        total = classification + self.weight * penalty
        return Losses(total, logits, classification, {"gradient": penalty})

    def needs_masks(self) -> bool:
        """Whether there is a penalty."""
        return self.weight > 0

    def reads_masks(self) -> bool:
        """Whether there is a penalty."""
        return self.weight > 0


def sum_of_log_probabilities(logits: Tensor, task: str) -> Tensor:
    """Return the sum of all log probabilities that a network gives: the score that is explained.

    Parameters
    ----------
    logits
        ``[B, C]``, or ``[B, 1]`` or ``[B]`` of a network with a single logit for yes or no.
    task
        ``"multiclass"``: Σ_k log p_k, p = softmax(logits). ``"multilabel"``:
        Σ_k log p_k + log(1 − p_k), p = sigmoid(logits).

    Returns
    -------
    Tensor
        ``[B, 1]``.

    Examples
    --------
    >>> import torch
    >>> sum_of_log_probabilities(torch.zeros(1, 2), "multiclass")  # 2 log ½
    tensor([[-1.3863]])
    >>> sum_of_log_probabilities(torch.zeros(1, 2), "multilabel")  # 4 log ½
    tensor([[-2.7726]])
    """
    logits = at_least_float32(class_logits(logits, task))
    if task == "multilabel":
        return (F.logsigmoid(logits) + F.logsigmoid(-logits)).sum(1, keepdim=True)
    return all_log_probabilities(logits)
