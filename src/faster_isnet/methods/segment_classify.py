"""Train a U-Net that cuts out the foreground, and a classifier that reads what it cuts out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_MASK, check_masks, check_range
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.foreground import keep_foreground
from faster_isnet.methods.mixing import CUTMIX
from faster_isnet.models.unet import build_unet, mask_logits, segmentation_loss, smp


class SegmentedClassifier(nn.Module):
    """Segment images, fill the background with a constant, and classify what is left.

    Parameters
    ----------
    segmenter
        From images ``[B, 3, H, W]`` to logits ``[B, 1, H, W]`` of the foreground.
    classifier
        From images ``[B, C, H, W]`` to logits.
    threshold, fill
        See :class:`SegmentClassify`.
    """

    def __init__(
        self, segmenter: nn.Module, classifier: nn.Module, threshold: float, fill: float
    ) -> None:
        super().__init__()
        self.segmenter, self.classifier = segmenter, classifier
        self.fill = fill
        self.least_logit = math.log(threshold / (1 - threshold))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of images ``[B, C, H, W]``."""
        with torch.no_grad():  # the threshold has no gradient
            foreground = self.segment(images.detach())
        return self.classify(images, foreground)

    def segment(self, images: Tensor) -> Tensor:
        """Return logits ``[B, 1, H, W]``: how likely each pixel is foreground."""
        return mask_logits(self.segmenter, images)

    def classify(self, images: Tensor, foreground: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of the images' foreground.

        Parameters
        ----------
        images
            ``[B, C, H, W]``.
        foreground
            What :meth:`segment` returned of them, or others.
        """
        masks = (foreground > self.least_logit).to(images.dtype)
        logits: Tensor = self.classifier(keep_foreground(images, masks, self.fill))
        return logits


class SegmentClassify(Method):
    """Train a U-Net on the masks, and the classifier on the foreground that the U-Net finds.

    The U-Net's output, thresholded, multiplies the image, and the classifier reads the product
    (Bassi and Attux, 2021; Bassi et al., 2024: "U-Net followed by a classifier"). No mask is needed
    in tests. The deployed network holds both networks, so it is larger and slower than the
    classifier; its background is what the U-Net takes for it.

    Both are trained at the same time and by losses of their own, whose sum is logged as the loss:
    binary cross-entropy plus Dice loss for the U-Net, the classification loss for the classifier.
    A threshold passes no gradient on, so neither is trained for the other's task, as in the papers,
    which train the U-Net before the classifier in a run of its own. In one run, to train the U-Net
    first would take epochs and the high learning rates of a schedule from the classifier, and make
    the losses of early and late epochs no comparison for a choice of the best. On small images with
    a planted mark both orders ended with the same masks and accuracies.

    Images without a mask count for the classification alone: the U-Net finds their foreground.
    Training images may be mixed by CutMix, which pastes masks as well, but not by mixup: the mask
    of an image that hardly shines through cannot be found.

    Images have any size that the encoder takes (those that this was tried with: from 32 pixels on;
    sides need no common factor), and any number of channels.

    Parameters
    ----------
    encoder
        Name of the U-Net's encoder in segmentation-models-pytorch; ``"tu-…"`` are from timm.
    encoder_weights
        ``None`` trains it from scratch. A name, mostly ``"imagenet"``, downloads weights.
    threshold
        In (0, 1): from which probability on a pixel is foreground. 0.5 is the more likely one.
    fill
        The value of the background's pixels. 0, as in the papers, is black for images in [0, 1],
        and the mean colour for images that are normalised before the network gets them.
    classification
        The classification loss; ``None`` for cross-entropy.

    Raises
    ------
    ImportError
        If segmentation-models-pytorch is not installed.
    ValueError
        If a number is out of range; when the network is built, if the encoder is unknown.

    References
    ----------
    P. R. A. S. Bassi, R. Attux: COVID-19 detection using chest X-rays: is lung segmentation
    important for generalization? Research on Biomedical Engineering (2022), arXiv 2104.06176.

    P. R. A. S. Bassi, S. S. J. Dertkigil, A. Cavalli: Improving deep neural network generalization
    and robustness to background bias via layer-wise relevance propagation optimization. Nature
    Communications 15, 291 (2024).

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> network = SegmentClassify().build(resnet18(num_classes=3)).eval()
    >>> network(torch.rand(2, 3, 48, 64)).shape
    torch.Size([2, 3])
    """

    name = "segment-classify"
    mixings = (CUTMIX,)

    def __init__(
        self,
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        threshold: float = 0.5,
        fill: float = 0.0,
        *,
        classification: ClassificationLoss | None = None,
    ) -> None:
        super().__init__(classification)
        smp()  # before anything is built
        self.encoder, self.encoder_weights = encoder, encoder_weights
        self.threshold = check_range("threshold", threshold, 0, 1, open_low=True)
        if threshold == 1:
            raise ValueError("threshold must be below 1, got 1: nothing would be foreground")
        self.fill = check_range("fill", fill, float("-inf"), open_low=True)

    def build(self, classifier: nn.Module) -> SegmentedClassifier:
        """Return the U-Net and the classifier."""
        segmenter = build_unet(self.encoder, self.encoder_weights)
        return SegmentedClassifier(segmenter, classifier, self.threshold, self.fill)

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the sum of both networks' losses.

        Raises
        ------
        ValueError
            If images are not ``[B, C, H, W]``.
        """
        assert isinstance(network, SegmentedClassifier)
        if batch.images.dim() != 4:
            raise ValueError(
                f"a U-Net takes images [B, C, H, W], got {list(batch.images.shape)}; train another "
                "method"
            )
        masks, _ = check_masks(batch.masks, batch.images.unsqueeze(1))
        foreground = network.segment(batch.images)
        masks = torch.full_like(foreground, NO_MASK) if masks is None else masks
        segmentation = segmentation_loss(foreground, masks)
        logits = network.classify(batch.images, foreground.detach())
        classification = self.classification(logits, batch.labels)
        total = classification + segmentation
        return Losses(total, logits, classification, {"segmentation": segmentation})

    def needs_masks(self) -> bool:
        """Whether a training needs masks: always."""
        return True

    def recipe_arguments(self) -> dict[str, object]:
        """Return the arguments; built again, the U-Net takes its weights from a file."""
        return super().recipe_arguments() | {"encoder_weights": None}
