"""Classify by the features of any classifier through hierarchical attention."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from faster_isnet.common.checks import check_logits
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.common.precision import at_least_float32
from faster_isnet.methods.layer_grids import on_grid, possible_places
from faster_isnet.methods.stages import find_stages
from faster_isnet.relevance import check_layers, hidden_outputs

log = logging.getLogger(__name__)

_INNER = 4  # the foreground attention has a fourth of the features' channels
_REDUCTION = 8  # of its channel attention


@dataclass(frozen=True)
class AttentionMaps:
    """What a HAM network attends to.

    Attributes
    ----------
    logits
        ``[B, C]``, of the classes.
    abnormality
        ``[B, 1]``, the logit of whether any class is present.
    class_maps
        ``[B, C, h, w]``, the class activation maps, ≥ 0.
    abnormality_map
        ``[B, 1, h, w]``, the activation map of ``abnormality``, ≥ 0.
    """

    logits: Tensor
    abnormality: Tensor
    class_maps: Tensor
    abnormality_map: Tensor


class HAMNetwork(nn.Module):
    """Read the last feature maps of a classifier by hierarchical attention.

    What the classifier does behind these maps is not used: it has a head of its own, of which the
    parameters are frozen.

    Parameters
    ----------
    classifier
        From images ``[B, C_in, H, W]`` to logits ``[B, C]``. It is run in evaluation mode on an
        image of noise, and left as it was.
    image_shape
        ``(C_in, H, W)`` of the images to train on.
    layer
        Name of the module whose output is read, feature maps or tokens; ``None`` for the last
        stage, see :func:`~faster_isnet.methods.stages.find_stages`.
    width
        The largest number of channels of the maps that the classes are read from: there are as many
        as the classifier's, but not more.
    dropout
        Of these channels, in [0, 1).
    sharpness
        r > 0 of the pooling log(mean(exp(r · x))) / r: between the mean (0) and the maximum (∞).

    Raises
    ------
    ValueError
        If images are not of two dimensions, the layer is unknown or its output is neither maps nor
        tokens of known places.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> network = HAMNetwork(resnet18(num_classes=4), (3, 64, 64))
    >>> network.layer, network(torch.rand(2, 3, 64, 64)).shape
    ('layer4', torch.Size([2, 4]))
    >>> network.attend(torch.rand(2, 3, 64, 64)).class_maps.shape
    torch.Size([2, 4, 2, 2])
    """

    def __init__(
        self,
        classifier: nn.Module,
        image_shape: Sequence[int],
        layer: str | None = None,
        width: int = 512,
        dropout: float = 0.1,
        sharpness: float = 6.0,
    ) -> None:
        super().__init__()
        if len(image_shape) != 3:
            raise ValueError(
                f"HAM is for images (C, H, W), got image_shape={tuple(image_shape)}; choose "
                "another method"
            )
        self.classifier = classifier
        self.layer = _last_stage(classifier, image_shape) if layer is None else layer
        check_layers(classifier, [self.layer])
        self.sharpness = sharpness
        channels, classes = self._look(image_shape)
        inner, width = max(channels // _INNER, 1), min(width, channels)
        self.foreground = nn.Sequential(
            Conv2dNormActivation(channels, inner, activation_layer=None),
            ForegroundAttention(inner),
            Conv2dNormActivation(inner, inner, activation_layer=None),
        )
        self.mix = nn.Sequential(
            Conv2dNormActivation(channels + inner, width), nn.Dropout2d(dropout)
        )
        self.abnormality = nn.Linear(width, 1, bias=False)
        self.classes = nn.Linear(width, classes, bias=False)
        for module in (*self.foreground.modules(), *self.mix.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of images ``[B, C_in, H, W]``."""
        logits: Tensor = self.classes(self._pool(self._attended(images)))
        return logits

    def attend(self, images: Tensor) -> AttentionMaps:
        """Return the logits, and where in the images they come from.

        The weights of a map are constants in its gradient: it trains the features.
        """
        maps = self._attended(images)
        pooled = self._pool(maps)
        class_maps, abnormality_map = (
            F.relu(F.conv2d(maps, head.weight.detach()[:, :, None, None]))
            for head in (self.classes, self.abnormality)
        )
        return AttentionMaps(
            self.classes(pooled), self.abnormality(pooled), class_maps, abnormality_map
        )

    def _attended(self, images: Tensor) -> Tensor:
        """Return the maps ``[B, width, h, w]`` that the classes are read from."""
        features = self._features(images)[0]
        mixed: Tensor = self.mix(torch.cat([features, self.foreground(features)], 1))
        return mixed

    def _pool(self, maps: Tensor) -> Tensor:
        scaled = self.sharpness * at_least_float32(maps).flatten(2)
        return (scaled.logsumexp(2) - math.log(scaled.shape[2])) / self.sharpness

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features ``[B, C, h, w]``, and the classifier's own logits."""
        with hidden_outputs(self.classifier, [self.layer]) as outputs:
            logits = self.classifier(images)
        if self.layer not in outputs:
            raise ValueError(f"layer {self.layer!r} does not run; name one that runs (layer)")
        features, where = outputs[self.layer].unsqueeze(1), (self.classifier, self.layer)
        # Not on_grid alone, which looks at the size of the batch: an exported one has none.
        places = possible_places(features.shape[2:], images.shape[2:], *where)
        placed = (
            places[0].place(features) if len(places) == 1 else on_grid(features, images, *where)
        )
        return placed.squeeze(1), logits

    def _look(self, image_shape: Sequence[int]) -> tuple[int, int]:
        """Return the numbers of channels and of classes; freeze what does not lead to the maps."""
        trained = [p for p in self.classifier.parameters() if p.requires_grad]
        like = next(iter(self.classifier.parameters()), torch.empty(0))
        image = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0)).to(like)
        with torch.inference_mode(False), torch.enable_grad(), isolate_rng():
            with eval_mode(self.classifier):
                features, logits = self._features(image)
            used: Sequence[Tensor | None] = ()
            if features.requires_grad:
                used = torch.autograd.grad(features.sum(), trained, allow_unused=True)
        check_logits(logits, 1)
        if features.dim() != 4 or features[0, 0].numel() < 2:
            raise ValueError(
                f"layer {self.layer!r} returns {list(features.shape[1:])} for an image "
                f"{list(image_shape)}; HAM needs maps [C, h, w] or tokens of several places: name "
                "an earlier layer, or give larger images"
            )
        for parameter, gradient in zip(trained, used, strict=False):
            parameter.requires_grad_(gradient is not None)
        channels, height, width = features.shape[1:]
        log.info(
            "HAM reads %s of %s: %d maps of %d x %d places; what follows it is not used",
            *(self.layer, type(self.classifier).__name__, channels, height, width),
        )
        return channels, logits.numel()


class ForegroundAttention(nn.Module):
    """Strengthen places of the foreground: the foreground attention block of HAM.

    One channel attention weighs the channels by what a softmax over the places collects; one
    attention of places is a sigmoid of their mixture. What both leave, times a weight γ that is
    learnt from 0 on, is added to the features.

    Parameters
    ----------
    channels
        Of the features ``[B, channels, h, w]``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(channels // _REDUCTION, 1)
        self.collect = nn.Conv2d(channels, 1, 1, bias=False)
        self.channels = nn.Sequential(
            nn.Linear(channels, reduced, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(reduced, channels, bias=False),
        )
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.merge = nn.Conv2d(channels, 1, 1, bias=False)
        self.places = Conv2dNormActivation(1, 1, activation_layer=nn.Sigmoid, inplace=None)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        shares = self.collect(features).flatten(2).softmax(2)
        collected = (features.flatten(2) @ shares.transpose(1, 2)).squeeze(2)
        gates = self.channels(collected).sigmoid()[:, :, None, None]
        merged = self.merge(self.value(features) * gates)
        strengthened: Tensor = features + self.gamma * (merged * self.places(merged))
        return strengthened


def _last_stage(classifier: nn.Module, image_shape: Sequence[int]) -> str:
    try:
        return find_stages(classifier, image_shape)[-1]
    except ValueError as error:
        raise ValueError(
            f"HAM found no feature maps of {type(classifier).__name__} ({error}); name the module "
            "that returns them (layer)"
        ) from error
