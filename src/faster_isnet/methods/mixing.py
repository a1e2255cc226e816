"""Mix the images of a batch, with their masks and labels: mixup and CutMix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_choice, check_labels, check_masks, check_range
from faster_isnet.methods.batch_draws import by_image, shuffled_within

MixingName = Literal["mixup", "cutmix"]
MIXUP, CUTMIX = MIXINGS = get_args(MixingName)
_ALPHA = {MIXUP: 0.2, CUTMIX: 1.0}  # of the papers, on ImageNet
_LEAST_SHOWN = 0.5
"""How much of a foreground an image must show, of two together, to be labelled by it."""


@dataclass(frozen=True)
class Mixing:
    """Mix each image of a batch with another one, drawn at random; its labels become soft.

    *mixup* (Zhang et al., ICLR 2018): λ · image + (1 − λ) · other, with the labels mixed alike, and
    λ drawn from Beta(α, α) for each image. What is foreground in either is foreground. So the
    background of one image shines through in the foreground of the other. Methods that swap
    backgrounds do so first, and then it says nothing of a class; without swapped backgrounds it
    does, at a place where no heatmap loss forbids to read it, and CutMix is safer.

    *cutmix* (Yun et al., ICCV 2019): a rectangle of the other image is pasted at the same
    place, with its mask. Its share of the area is drawn from Beta(α, α) before its edges are cut
    off at the image's. The paper mixes labels by area, and so would label a pasted piece of
    background with a class: what classifiers of this library must not learn. So labels are mixed by
    what is to be seen of the foregrounds: with v the visible share of each foreground, the weights
    of the labels are v / (v + v'), whatever the size of the objects; for multi-label, v itself, as
    both objects may be there. An image that would show less than half a foreground (v + v' < 0.5)
    stays as it is: it would be scraps, or a background with a label. Images without a mask are
    mixed by area, as in the paper; so are all images by methods that use no masks.

    Images with a mask are mixed with such images only, and those without with those without. An
    image may draw itself, and then stays as it is. Attributes are unknown after mixing, as
    a mixed image has two backgrounds.

    Class weights multiply the loss of soft labels as in PyTorch, without division by
    their sum; balancing weights, whose mean over the images is 1, leave its size as it is. A loss
    function of your own is given soft labels.

    Which class the heatmap of an ISNet explains depends on the predictions and not on
    labels, so it is the same for mixed images: the selective ISNet's is the lowest class against
    all others, those of both labels included.

    Attributes
    ----------
    kind
        ``"mixup"`` or ``"cutmix"``.
    alpha
        α > 0: below 1 most images are nearly one of the two, above it half of both. ``None`` is the
        papers' for ImageNet: 0.2 for mixup, 1 for CutMix.

    Raises
    ------
    TypeError, ValueError
        If the kind is unknown or α is not above 0.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> batch = Batch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
    >>> mixed = Mixing("mixup", alpha=1.0)(batch, classes=2)
    >>> mixed.images.shape, mixed.labels.shape
    (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    kind: str
    alpha: float | None = None

    def __post_init__(self) -> None:
        """Check the kind and α."""
        check_choice("mixing", self.kind, MIXINGS)
        if self.alpha is not None:
            check_range("mixing_alpha", self.alpha, 0, open_low=True)

    def __call__(
        self, batch: Batch, classes: int, task: str = "multiclass", *, by_masks: bool = True
    ) -> Batch:
        """Return the batch mixed, with soft labels, without waiting for an accelerator.

        Parameters
        ----------
        batch
            Images ``[B, C, ...]`` with one to three spatial dimensions, labels, and masks or none.
        classes
            C, the number of classes.
        task
            ``"multiclass"`` or ``"multilabel"``.
        by_masks
            Whether masks are used; otherwise the result has none, and labels are mixed by area.

        Returns
        -------
        Batch
            Labels are ``[B, C]`` float32: probabilities, or for multi-label numbers in [0, 1].

        Raises
        ------
        TypeError, ValueError
            If labels or masks are wrong, as
            :class:`~faster_isnet.methods.ClassificationLoss` and
            :func:`~faster_isnet.methods.swap_backgrounds` have it.
        """
        images = batch.images
        masks, has_mask = check_masks(batch.masks if by_masks else None, images.unsqueeze(1))
        whole = Batch(images, _as_soft(batch.needed("labels"), images, classes, task), masks)
        others = whole.select(shuffled_within(has_mask))
        if self.kind == MIXUP:
            return _blended(whole, others, self._draw(images))
        return _pasted(whole, others, _boxes(images, self._draw(images)), has_mask, task)

    def summary(self) -> str:
        """Return in words what is done to training images.

        Examples
        --------
        >>> Mixing("cutmix").summary()
        'images are mixed by cutmix, alpha = 1'
        """
        return f"images are mixed by {self.kind}, alpha = {self._alpha:g}"

    @property
    def _alpha(self) -> float:
        return _ALPHA[self.kind] if self.alpha is None else self.alpha

    def _draw(self, images: Tensor) -> Tensor:
        """Return a share in [0, 1] for each image, ``[B]`` on the host."""
        alpha = torch.tensor(float(self._alpha))
        return torch.distributions.Beta(alpha, alpha).sample((len(images),))


def _blended(batch: Batch, others: Batch, share: Tensor) -> Batch:
    """Return mixup: of each image of ``batch`` a share, and the rest of the other one."""
    share = share.to(batch.images)
    masks = None
    if batch.masks is not None and others.masks is not None:
        masks = torch.maximum(batch.masks, others.masks)  # both are NO_MASK, or neither
    return Batch(
        torch.lerp(others.images, batch.images, by_image(share, batch.images)),
        torch.lerp(others.needed("labels"), batch.needed("labels"), share.float()[:, None]),
        masks,
    )


def _pasted(batch: Batch, others: Batch, box: Tensor, has_mask: Tensor, task: str) -> Batch:
    """Return CutMix: each other image inside of its box ``[B, 1, ...]``, the image around it."""
    pasted = box.float().flatten(1).mean(1)
    own, new = 1 - pasted, pasted  # how much is to be seen, ``[B]``
    if batch.masks is not None and others.masks is not None:
        own = torch.where(has_mask, _visible(batch.masks, ~box), own)
        new = torch.where(has_mask, _visible(others.masks, box), new)
    shown = own + new
    enough = shown >= _LEAST_SHOWN
    box = box & by_image(enough, box)
    if task != "multilabel":
        own, new = own / shown.clamp(min=_LEAST_SHOWN), new / shown.clamp(min=_LEAST_SHOWN)
    labels = batch.needed("labels")
    mixed = own[:, None] * labels + new[:, None] * others.needed("labels")
    masks = None
    if batch.masks is not None and others.masks is not None:
        masks = torch.where(box, others.masks, batch.masks)
    return Batch(
        torch.where(box, others.images, batch.images),
        torch.where(enough[:, None], mixed.clamp(max=1), labels),
        masks,
    )


def _visible(masks: Tensor, place: Tensor) -> Tensor:
    """Return the share ``[B]`` of each foreground that lies in a place ``[B, 1, ...]``."""
    foreground = masks == 1
    inside = (foreground & place).flatten(1).sum(1)
    return inside / foreground.flatten(1).sum(1).clamp(min=1)


def _boxes(images: Tensor, share: Tensor) -> Tensor:
    """Return boxes ``[B, 1, ...]`` of a share of the area, at random places, cut at the edges."""
    count, _, *size = images.shape
    side, axes = share ** (1 / len(size)), range(1, images.dim())
    boxes = torch.ones(count, *[1] * (len(size) + 1), dtype=torch.bool)
    for axis, length in enumerate(size, start=2):
        centre, half = torch.rand(count) * length, side * length / 2
        low, high = ((centre + end).round()[:, None] for end in (-half, half))
        place = torch.arange(length)
        within = (place >= low) & (place < high)
        boxes = boxes & within.reshape(count, *(length if a == axis else 1 for a in axes))
    return boxes.to(images.device)


def _as_soft(labels: Tensor, images: Tensor, classes: int, task: str) -> Tensor:
    """Return labels ``[B]`` or ``[B, C]`` as ``[B, C]`` float32, checked."""
    check_labels(labels, images.new_empty(len(images), classes), task)
    if labels.dim() == 2:
        return labels.float()
    return (labels[:, None] == torch.arange(classes, device=labels.device)).float()
