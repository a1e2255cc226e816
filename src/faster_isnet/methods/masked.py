"""Train and test on the foreground alone, cut out by the true masks: an upper bound."""

from __future__ import annotations

from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_masks, check_range
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.foreground import keep_foreground
from faster_isnet.methods.mixing import MIXINGS


class Masked(Method):
    """Train and test a classifier on images whose background is replaced by a constant.

    It needs the true mask of each image, in tests too, so it is no product but an upper bound of
    what methods can reach that must find the foreground themselves. (A segmenter in place of the
    true masks is :class:`~faster_isnet.methods.segment_classify.SegmentClassify`.)

    Every image needs a mask: as a whole it would let the background in. ``fit`` leaves training and
    validation images without a mask out, and says how many; so does each step with those that an
    augmentation moved out of the image (``train/left_out`` is their share). Tests and predictions
    refuse them, since a comparison needs the same images for all methods. ``explain`` and
    ``export`` refuse the network, as they have no masks to give it.

    Parameters
    ----------
    fill
        The value of the background's pixels. 0, the default and the papers' way (images times
        masks), is black for images in [0, 1], and the mean colour for images that are normalised
        before the network gets them.
    classification
        The classification loss; ``None`` for cross-entropy.

    Raises
    ------
    ValueError
        If the fill is not finite; in tests, if an image has no mask.

    Examples
    --------
    >>> import torch
    >>> images, masks = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    >>> Masked().inputs(Batch(images, torch.tensor([0]), masks))
    tensor([[[[1., 0.]]]])
    """

    name = "masked"
    mixings = MIXINGS
    needs_every_mask = True

    def __init__(
        self, fill: float = 0.0, *, classification: ClassificationLoss | None = None
    ) -> None:
        super().__init__(classification)
        self.fill = check_range("fill", fill, float("-inf"), open_low=True)

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the classification loss of the images that have a mask.

        The others are left out: even of images with a mask an augmentation may leave none.

        Raises
        ------
        ValueError
            If no image of the batch has a mask.
        """
        masks, has_mask = check_masks(batch.masks, batch.images.unsqueeze(1))
        if masks is None:
            raise self._no_mask(has_mask)
        labels = batch.needed("labels")[has_mask]
        logits = network(keep_foreground(batch.images[has_mask], masks[has_mask], self.fill))
        loss = self.classification(logits, labels)
        left_out = (~has_mask).to(loss).mean()
        return Losses(loss, logits, loss, {"left_out": left_out}, has_mask)

    def training_losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the same of images whose background is filled before they are mixed.

        Otherwise that of one image would shine through in the foreground of the other.
        """
        masks, _ = check_masks(batch.masks, batch.images.unsqueeze(1))
        if self.mixing is not None and masks is not None:
            batch = batch._replace(images=keep_foreground(batch.images, masks, self.fill))
        return super().training_losses(network, batch)

    def inputs(self, batch: Batch) -> Tensor:
        """Return the images with their background filled.

        Raises
        ------
        ValueError
            If an image has no mask; the message has the positions in the batch.
        """
        masks, has_mask = check_masks(batch.masks, batch.images.unsqueeze(1))
        if masks is None or not bool(has_mask.all()):
            raise self._no_mask(has_mask)
        return keep_foreground(batch.images, masks, self.fill)

    def _no_mask(self, has_mask: Tensor) -> ValueError:
        return ValueError(
            f"method {self.name!r} reads the foreground alone, but images "
            f"{(~has_mask).nonzero().flatten().tolist()[:10]} of the batch have no mask; make "
            "masks for them (faster-isnet segment) or leave them out. A network that needs no "
            "masks in tests is trained by method 'segment-classify' or 'isnet'"
        )

    def needs_masks(self) -> bool:
        """Whether a training needs masks: always."""
        return True
