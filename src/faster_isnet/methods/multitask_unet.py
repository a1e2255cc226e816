"""Train one encoder for two tasks: the class of an image and its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import compress
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_MASK, check_choice, check_masks, check_range
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.layer_grids import on_grid
from faster_isnet.methods.mixing import CUTMIX
from faster_isnet.methods.stages import find_stages
from faster_isnet.models.unet import MaskDecoder, segmentation_loss, smp

Shape = tuple[int, int, int]


class MultiTaskNetwork(nn.Module):
    """A classifier, and a U-Net's decoder of some of its hidden layers.

    Parameters
    ----------
    classifier
        From images ``[B, C, H, W]`` to logits. It is left as it is, without hooks.
    layers
        Names of its hidden layers, from the first to the last; empty for :func:`find_stages`.

    Attributes
    ----------
    layers : tuple of str
        The layers that are decoded; empty until the size of the images is known.
    decoder : MaskDecoder or None
        ``None`` until the size of the images is known.
    """

    def __init__(self, classifier: nn.Module, layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.classifier = classifier
        self.layers = tuple(layers)
        self.decoder: MaskDecoder | None = None

    def add_decoder(self, image_shape: Shape) -> None:
        """Find the layers if they are not known, and make the decoder if there is none.

        Raises
        ------
        ValueError
            If the classifier does not take such images, or it is not known where in the image the
            values of a layer lie.
        """
        if self.decoder is not None:
            return
        found = not self.layers
        self.layers = self.layers or tuple(find_stages(self.classifier, image_shape))
        like = next((p for p in self.classifier.parameters()), torch.empty(0))
        images = torch.zeros(1, *image_shape, dtype=like.dtype, device=like.device)
        with torch.no_grad(), isolate_rng(), eval_mode(self.classifier):
            _, features = self._features(images)
        if found:  # an adaptive pooling enlarges small maps, which tells a decoder nothing new
            pixels = [each.shape[2:].numel() for each in features]
            kept = [now <= min(pixels[: i + 1]) for i, now in enumerate(pixels)]
            self.layers = tuple(compress(self.layers, kept))
            features = list(compress(features, kept))
        self.decoder = MaskDecoder([each.shape[1] for each in features]).to(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return the classifier's logits."""
        return self.classifier(images)  # type: ignore[no-any-return]

    def with_masks(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the classifier's logits ``[B, K]``, and those of the masks ``[B, 1, H, W]``.

        Raises
        ------
        ValueError
            If there is no decoder, as the size of the images is not known.
        """
        if self.decoder is None:
            raise ValueError(
                "multitask-unet must know the size of the images before the training, to build its "
                "decoder: give MultiTaskUNet(image_shape=(C, H, W)), here "
                f"{tuple(images.shape[1:])}"
            )
        logits, features = self._features(images)
        return logits, self.decoder(images, features)

    def _features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and the outputs of the layers, ``[B, C, h, w]`` each."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Tensor) -> None:
                found[name] = output

            return hook

        with ExitStack() as hooks:
            for name in self.layers:
                module = self.classifier.get_submodule(name)
                hooks.enter_context(module.register_forward_hook(keep(name)))
            logits = self.classifier(images)
        features = [
            on_grid(found[name].unsqueeze(1), images, self.classifier, name)[:, 0]
            for name in self.layers
        ]
        return logits, features


class MultiTaskUNet(Method):
    """Train the classifier together with a U-Net's decoder that predicts the masks.

    The classifier is the encoder: hidden layers of it, one of each resolution, are decoded to a
    mask of the image's size (Ronneberger et al., 2015). The loss is
    (1 − P) · classification + P · segmentation, with the segmentation loss binary cross-entropy
    plus Dice loss, as for the segmenters of this library. The network that is deployed is the
    classifier itself, without the decoder, so it costs no more than a standard one.

    Images without a mask count for the classification alone.

    Training images may be mixed by CutMix, which pastes masks as well, but not by mixup: the mask
    of an image that hardly shines through cannot be found.

    What the hidden layers know of the foreground does not oblige the classification to use it: the
    multi-task U-Nets of Bassi et al. learnt planted marks and masks alike. This method is here as
    the baseline that it is in their comparison.

    Parameters
    ----------
    segmentation_weight
        P in (0, 1]. 0.5, the default, gives both tasks the same weight; both losses begin near 1.
        (The published code of the papers holds the network, not the weights of its losses.)
    layers
        Names of the hidden layers that are decoded, from the first to the last; ``None`` for the
        ends of the classifier's stages, found by running it on one image.
    image_shape
        ``(C, H, W)`` of the images, from which the decoder is built. ``fit`` gives it.
    classification
        The classification loss; ``None`` for cross-entropy.

    Raises
    ------
    ImportError
        If segmentation-models-pytorch is not installed.
    ValueError
        If a number is out of range or a layer is unknown; in the training, if ``image_shape`` is
        missing.

    References
    ----------
    P. R. A. S. Bassi, S. S. J. Dertkigil, A. Cavalli: Improving deep neural network generalization
    and robustness to background bias via layer-wise relevance propagation optimization. Nature
    Communications 15, 291 (2024).

    O. Ronneberger, P. Fischer, T. Brox: U-Net: convolutional networks for biomedical image
    segmentation. MICCAI 2015.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> method = MultiTaskUNet(image_shape=(3, 64, 64))
    >>> network = method.build(resnet18(num_classes=3))
    >>> network.layers
    ('layer1', 'layer2', 'layer3', 'layer4')
    >>> logits, masks = network.with_masks(torch.rand(2, 3, 64, 64))
    >>> logits.shape, masks.shape
    (torch.Size([2, 3]), torch.Size([2, 1, 64, 64]))
    """

    name = "multitask-unet"
    mixings = (CUTMIX,)

    def __init__(
        self,
        segmentation_weight: float = 0.5,
        layers: Sequence[str] | None = None,
        image_shape: Shape | None = None,
        *,
        classification: ClassificationLoss | None = None,
    ) -> None:
        super().__init__(classification)
        smp()  # before anything is trained
        self.segmentation_weight = check_range(
            "segmentation_weight", segmentation_weight, 0, 1, open_low=True
        )
        self.layers = None if layers is None else tuple(layers)
        self.image_shape = None if image_shape is None else _shape(image_shape)

    def build(self, classifier: nn.Module) -> MultiTaskNetwork:
        """Return the classifier with a decoder, if the size of the images is known."""
        for name in self.layers or ():
            check_choice("layer", name, [each for each, _ in classifier.named_modules()])
        network = MultiTaskNetwork(classifier, self.layers or ())
        if self.image_shape is not None:
            self._add_decoder(network, self.image_shape)
        return network

    def deployed(self, network: nn.Module) -> nn.Module:
        """Return the classifier."""
        assert isinstance(network, MultiTaskNetwork)
        return network.classifier

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the weighted sum of both losses."""
        assert isinstance(network, MultiTaskNetwork)
        masks, _ = check_masks(batch.masks, batch.images.unsqueeze(1))
        logits, of_masks = network.with_masks(batch.images)
        classification = self.classification(logits, batch.labels)
        # Also without a mask the decoder is part of the loss, so that all processes sum the same.
        masks = torch.full_like(of_masks, NO_MASK) if masks is None else masks
        segmentation = segmentation_loss(of_masks, masks)
        p = self.segmentation_weight
        total = (1 - p) * classification + p * segmentation
        return Losses(total, logits, classification, {"segmentation": segmentation})

    def see_image_shape(self, network: nn.Module, image_shape: Shape) -> None:
        """Build the decoder.

        Raises
        ------
        ValueError
            If another shape was given as an option, or as :meth:`MultiTaskNetwork.add_decoder`.
        """
        assert isinstance(network, MultiTaskNetwork)
        if self.image_shape not in (None, image_shape):
            raise ValueError(
                f"multitask-unet has image_shape {self.image_shape}, the images have {image_shape};"
                " leave the option out"
            )
        self._add_decoder(network, image_shape)

    def _add_decoder(self, network: MultiTaskNetwork, image_shape: Shape) -> None:
        network.add_decoder(image_shape)
        self.image_shape, self.layers = image_shape, network.layers  # what a checkpoint keeps

    def needs_masks(self) -> bool:
        """Whether a training needs masks: always."""
        return True

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments, with the image's shape and the layers that were found."""
        found = {"layers": self.layers, "image_shape": self.image_shape}
        return super().recipe_arguments() | found


def _shape(image_shape: Sequence[int]) -> Shape:
    """Return ``(C, H, W)``, which a file has as a list, checked."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(
            f"image_shape must be (C, H, W), each at least 1, got {tuple(image_shape)!r}"
        )
    channels, height, width = (int(side) for side in image_shape)
    return channels, height, width
