"""Training on images whose backgrounds are swapped, as a method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import at_least_float32
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.mixing import MIXINGS
from faster_isnet.methods.swap.backgrounds import (
    FILLS,
    GENERATED,
    PLAIN,
    SWAPPED,
    swap_backgrounds,
    swapping_summary,
)
from faster_isnet.methods.swap.inpainting import check_opencv
from faster_isnet.methods.swap.pool import BackgroundPool


class Swap(Method):
    """Train a classifier on images whose background is another image's.

    A background then says nothing of the class, so there is nothing to learn from it. That needs
    exact masks: what a mask leaves in the foreground stays with its class. The mixed-rand images
    of Xiao et al., ICLR 2021, "Noise or signal: the role of image backgrounds in object
    recognition", are made so. A training step costs as much as a standard one, and validation and
    tests see the images as they are. Images without a mask train the classification alone, from
    their own background as well.

    Parameters
    ----------
    classification
        The classification loss; ``None`` for cross-entropy.
    share
        In [0, 1]: of how many training images the background is swapped. 1 by default: an image
        that keeps its background teaches what that says of the class.
    plain
        In [0, 1]: how many of the swapped backgrounds are smooth, without any detail; see
        :func:`~faster_isnet.methods.swap_backgrounds`.
    fill
        What replaces the foreground of the image that lends its background. ``"blur"``: its
        background, continued smoothly; the default, since it is cheap and brings in nothing else.
        ``"image"``: the same place of a third image's background, which has detail everywhere, but
        a seam. ``"inpaint"``: OpenCV's inpainting, without a seam; slow, see
        :func:`~faster_isnet.methods.swap.inpainting.inpaint`
        (``pip install 'faster-isnet[inpaint]'``).
    pool
        ≥ 0: how many backgrounds of earlier batches are kept (on the images' device), to be drawn
        instead of those of the batch. 0 for none, the default: shuffled batches of any size have
        backgrounds enough, as it takes two. Set it (to 64, say) if a batch holds images of one
        class, whose backgrounds all say the same, or one image alone. A checkpoint does not keep
        them, for their size: a training that is resumed starts with an empty pool.
    consistency
        ≥ 0: the weight of a term that keeps the predictions for a swapped image and for the image
        as it is alike: the symmetric Kullback-Leibler divergence
        ½ KL(p‖q) + ½ KL(q‖p), the mean over the images that were swapped (for multi-label also
        over the classes). A difference of predictions rather than of logits, since it has the unit
        of cross-entropy, so that 1 is a fair weight, and since logits that predict the same need
        not be equal. Both views are run then, in one batch twice as large, so a step costs twice
        as much. 0 by default; images cannot be mixed (``mixing``) with it.
    generated
        In [0, 1]: how many of the swapped backgrounds are no image's, but one colour or noise, so
        that the classifier meets backgrounds that the training images do not have; see
        :func:`~faster_isnet.methods.swap.generated.generated_backgrounds`. Half by default
        (``docs/results/recipe.md``).

    Raises
    ------
    TypeError, ValueError
        If an option is not one of those above; if there is a ``consistency`` and nothing is
        swapped.
    ImportError
        If OpenCV is not installed, with ``fill="inpaint"``.

    Examples
    --------
    >>> masks = torch.zeros(4, 1, 8, 8)
    >>> masks[..., 2:6, 2:6] = 1
    >>> batch = Batch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]), masks)
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    >>> losses = Swap(consistency=1.0).training_losses(network, batch)
    >>> losses.logits.shape, list(losses.parts)
    (torch.Size([4, 2]), ['consistency'])
    """

    name = "swap"
    mixings = MIXINGS

    def __init__(
        self,
        classification: ClassificationLoss | None = None,
        *,
        share: float = SWAPPED,
        plain: float = PLAIN,
        fill: str = "blur",
        pool: int = 0,
        consistency: float = 0.0,
        generated: float = GENERATED,
    ) -> None:
        super().__init__(classification)
        self.share = check_range("share", share, 0, 1)
        self.plain = check_range("plain", plain, 0, 1)
        self.fill = check_choice("fill", fill, FILLS)
        if fill == "inpaint":
            check_opencv()
        self.pool = BackgroundPool(pool) if check_range("pool", pool, 0) else None
        self.consistency = check_range("consistency", consistency, 0)
        self.generated = check_range("generated", generated, 0, 1)
        if consistency and not share:
            raise ValueError(
                f"consistency={consistency!r} compares an image with the same one on another "
                "background, but share=0 swaps none; set consistency=0, or a share above 0"
            )
        if consistency:
            self.mixings = ()

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the classification loss of the images as they are."""
        return self._classified(network(batch.images), batch)

    def training_losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the classification loss of swapped images, and the consistency if so chosen."""
        swapped = swap_backgrounds(
            batch.images,
            batch.masks,
            self.share,
            plain=self.plain,
            fill=self.fill,
            pool=self.pool,
            generated=self.generated,
        )
        if not self.consistency:
            return super().training_losses(network, batch._replace(images=swapped))
        logits, of_originals = network(torch.cat([swapped, batch.images])).chunk(2)
        losses = self._classified(logits, batch)
        changed = (swapped != batch.images).flatten(1).any(1)
        apart = symmetric_divergence(logits, of_originals, self.task) * changed
        consistency = apart.sum() / changed.sum().clamp(min=1)
        total = losses.classification + self.consistency * consistency
        return Losses(total, logits, losses.classification, {"consistency": consistency})

    def summary(self) -> str:
        """Return what the training does with backgrounds."""
        return swapping_summary(self.share, self.generated)

    def needs_masks(self) -> bool:
        """Whether any background is swapped."""
        return self.share > 0

    def reads_masks(self) -> bool:
        """Whether any background is swapped."""
        return self.share > 0

    def _classified(self, logits: Tensor, batch: Batch) -> Losses:
        loss = self.classification(logits, batch.labels)
        return Losses(loss, logits, loss)


def symmetric_divergence(first: Tensor, second: Tensor, task: str = "multiclass") -> Tensor:
    """Compute how far two predictions are apart: ½ KL(p‖q) + ½ KL(q‖p), in nats.

    That is ½ Σ (p − q) (log p − log q).

    Parameters
    ----------
    first, second
        Logits ``[B, C]``, or ``[B]`` or ``[B, 1]`` of a network with a single logit.
    task
        ``"multiclass"``, or ``"multilabel"`` for the mean over the classes, each of which is
        present or not.

    Returns
    -------
    Tensor
        ``[B]``, ≥ 0.

    Examples
    --------
    >>> first = torch.tensor([[1.0, 0.0], [5.0, 4.0]])
    >>> symmetric_divergence(first, first - 4)
    tensor([0., 0.])
    >>> symmetric_divergence(first[:1], -first[:1])
    tensor([0.4621])
    """
    first, second = (at_least_float32(class_logits(each, task)) for each in (first, second))
    if task == "multilabel":
        # The sum over a class being present or not: log p − log(1 − p) is the logit.
        return ((first.sigmoid() - second.sigmoid()) * (first - second)).mean(1) / 2
    difference = first.log_softmax(1) - second.log_softmax(1)
    return ((first.softmax(1) - second.softmax(1)) * difference).sum(1) / 2
