"""Hierarchical attention mining: attention that is learnt from labels and from masks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_masks, check_range
from faster_isnet.common.precision import at_least_float32
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.ham.losses import mask_loss, outside_loss, soft_mask
from faster_isnet.methods.ham.network import AttentionMaps, HAMNetwork


class HAM(Method):
    """Train a classifier by hierarchical attention mining (HAM).

    The classifier's last feature maps pass through an attention block for the foreground; a
    pooling between mean and maximum and one linear layer give the logits of the classes, and of
    whether any class is present, the abnormality. With the same weights the maps give a class
    activation map for each of them. The loss is

    L = L_class + w_a L_abnormality + w_m L_mask + w_b L_bound + w_u L_union

    where L_mask compares the maps of the classes that are present with the mask, L_bound is the
    share of a class's map that lies outside of the abnormality's, and L_union the share of this map
    that lies outside of the maps of all classes present. Images without a mask have all terms but
    L_mask.
    What is trained and deployed is a :class:`~faster_isnet.methods.ham.network.HAMNetwork`.

    What differs from the paper:

    - masks are of the foreground, whatever the class, where the paper has boxes for each class. So
      a mask is that of each class of the image, and of the abnormality as well;
    - the classifier keeps its strides, where the paper has dilated convolutions and maps of an
      eighth of the image;
    - so images cannot be mixed (``mixing``): a mask would be that of two classes;
    - in multi-class tasks one class is always present, and the cross-entropy is softmax's. There is
      no class that means "nothing found".

    The maps show what speaks for a class that is present, not what speaks against one, and only
    what is above 0.4 of a map's largest value is compared with the mask. So a network can read the
    background with clean maps. In the test of this method (a mark in the background gives the class
    away) the masks move the maps into the foreground, which the network then learns to read, but
    where the mark says another class it still follows the mark.

    Parameters
    ----------
    classification
        The classification loss; ``None`` for cross-entropy.
    mask_weight
        w_m ≥ 0; 0 learns attention from the labels alone.
    abnormality_weight
        w_a ≥ 0.
    bound_weight, union_weight
        w_b, w_u ≥ 0.
    layer
        Name of the module whose feature maps or tokens are read; ``None`` for the classifier's last
        stage of several places, found by running it once.
    width
        The largest number of channels that the classes are read from, ≥ 1; there are not more than
        the layer has.
    dropout
        Of these channels, in [0, 1). The classifier's own head is not used, nor its dropout.
    sharpness
        r > 0 of the pooling log(mean(exp(r · x))) / r.
    image_shape
        ``(C, H, W)`` of the images to train on. ``faster-isnet fit`` knows it; in Python it must be
        given, unless the classifier is an
        :class:`~faster_isnet.training.image_classifier.ImageClassifier`.

    Raises
    ------
    TypeError, ValueError
        If a number is out of its range; when the network is built, if the image shape is not known,
        or as :class:`~faster_isnet.methods.ham.network.HAMNetwork` does.

    References
    ----------
    Ouyang et al., "Learning hierarchical attention for weakly-supervised chest X-ray abnormality
    localization and diagnosis", IEEE Transactions on Medical Imaging 40, 2021. The defaults, the
    attention block and the formulas are those of the code that the authors published.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> method = HAM(image_shape=(3, 64, 64))
    >>> network = method.build(resnet18(num_classes=3))
    >>> batch = Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 2]), torch.ones(2, 1, 64, 64))
    >>> sorted(method.losses(network, batch).parts)
    ['abnormality', 'bound', 'mask', 'union']
    """

    name = "ham"

    def __init__(
        self,
        classification: ClassificationLoss | None = None,
        *,
        mask_weight: float = 0.5,
        abnormality_weight: float = 0.01,
        bound_weight: float = 0.001,
        union_weight: float = 0.001,
        layer: str | None = None,
        width: int = 512,
        dropout: float = 0.1,
        sharpness: float = 6.0,
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(classification)
        self.weights = {
            part: check_range(f"{part}_weight", weight, 0)
            for part, weight in (
                ("mask", mask_weight),
                ("abnormality", abnormality_weight),
                ("bound", bound_weight),
                ("union", union_weight),
            )
        }
        check_range("dropout", dropout, 0, 1)
        self._network_options: dict[str, Any] = {
            "layer": layer,
            "width": int(check_range("width", width, 1)),
            "dropout": dropout,
            "sharpness": check_range("sharpness", sharpness, 0, open_low=True),
        }
        self.image_shape = image_shape

    def build(self, classifier: nn.Module) -> HAMNetwork:
        """Return a HAM network of the classifier; one that is a HAM network already stays so."""
        if isinstance(classifier, HAMNetwork):
            return classifier
        if self.image_shape is None:
            raise ValueError(
                "HAM must know the shape of the images to find the classifier's last feature maps; "
                "give image_shape=(C, H, W)"
            )
        return HAMNetwork(classifier, self.image_shape, **self._network_options)

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the weighted sum of all losses, and each of them."""
        assert isinstance(network, HAMNetwork)
        found = network.attend(batch.images)
        labels = batch.needed("labels")
        classification = self.classification(found.logits, labels)
        present = _present(labels, found.logits)
        any_present = present.amax(1, keepdim=True)
        parts = {
            "abnormality": F.binary_cross_entropy_with_logits(
                at_least_float32(found.abnormality), any_present
            ),
            "bound": outside_loss(found.class_maps, found.abnormality_map, present),
            "union": outside_loss(
                found.abnormality_map,
                (found.class_maps * present[:, :, None, None]).amax(1, keepdim=True),
                any_present,
            ),
            "mask": self._mask_loss(found, batch, torch.cat([present, any_present], 1)),
        }
        total = classification + sum(self.weights[part] * loss for part, loss in parts.items())
        return Losses(total, found.logits, classification, parts)

    def _mask_loss(self, found: AttentionMaps, batch: Batch, present: Tensor) -> Tensor:
        if not self.reads_masks():
            return present.new_zeros(())
        masks, has_mask = check_masks(batch.masks, batch.images.unsqueeze(1))
        if masks is None:
            return present.new_zeros(())
        maps = torch.cat([found.class_maps, found.abnormality_map], 1)
        attended = soft_mask(maps, tuple(batch.images.shape[2:]))
        return mask_loss(attended, (masks == 1).to(attended), present * has_mask[:, None])

    def needs_masks(self) -> bool:
        """Whether attention is compared with masks."""
        return self.reads_masks()

    def reads_masks(self) -> bool:
        """Whether attention is compared with masks."""
        return self.weights["mask"] > 0


def _present(labels: Tensor, logits: Tensor) -> Tensor:
    """Return how much of each class is present, ``[B, C]`` in [0, 1]; checked labels."""
    classes = logits.shape[1]
    if labels.dim() == 1 and classes == 1:  # yes or no
        return labels[:, None].float()
    if labels.dim() == 1:
        return F.one_hot(labels, classes).float()
    return labels[:, -classes:].float()  # of soft labels of no and yes, those of yes
