"""The ISNet as a method: classification and heatmap loss in each training step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_range
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.isnet.calibration import Calibration, CutCalibration
from faster_isnet.methods.isnet.cuts import AUTO, Cuts
from faster_isnet.methods.isnet.loss import WEIGHT, WEIGHT_IF_SWAPPED, ISNetLoss, LossParts
from faster_isnet.methods.isnet.network import ISNet
from faster_isnet.methods.mixing import MIXINGS
from faster_isnet.methods.swap.backgrounds import (
    GENERATED,
    SWAPPED,
    swap_backgrounds,
    swapping_summary,
)


class ISNetMethod(Method):
    """Train a classifier as an ISNet, on swapped backgrounds: its heatmap is kept off them.

    With ``loss.heatmap_weight == 0`` no relevance is computed at all; and with
    ``swapped_backgrounds=0``, too, it trains the standard classifier. The papers' ISNet has
    ``swapped_backgrounds=0`` alone.

    Where images are mixed (``mixing``, see :class:`~faster_isnet.methods.mixing.Mixing`), their
    backgrounds are swapped before; C1 and C2 are calibrated on mixed images then. What is explained
    does not depend on labels.

    Parameters
    ----------
    loss
        The loss; ``None`` for :class:`~faster_isnet.ISNetLoss` whose C1 and C2 are calibrated.
    heatmap_weight_schedule
        P by epoch, as ``{epoch: P}``: linear between the epochs named, constant outside of them.
        ``None`` keeps the loss's weight.
    calibration
        A file that ``faster-isnet calibrate`` wrote, from which C1 and C2 are read.
    calibration_epochs
        With ``ISNetLoss(cut_low="auto")``: for how many epochs a standard classifier is trained
        that C1 and C2 are calibrated on, see :class:`~faster_isnet.CutCalibration`.
    supervised_part
        In (0, 1]: of each training batch, the share of samples that are explained, sampled anew
        and rounded up; all count for the classification. Below 1 a step is cheaper and resists
        bias a little less (``docs/results/speed.md``), and batch norm sees the batch in two parts.
    supervise_every
        k ≥ 1: only every k-th optimiser step, from the first on, has a heatmap loss. Above 1
        training is cheaper and may resist no bias at all: the demo's does not. 1 for every step.
    swapped_backgrounds
        In [0, 1]: of how many images of a training batch the background is replaced by another
        image's, see :func:`~faster_isnet.methods.swap_backgrounds`. All by default: by the heatmap
        loss alone a classifier is less accurate, or reads the background all the same
        (``docs/which-method.md``), which one with attention does with a clean heatmap
        (``docs/results/attention.md``).
    generated_backgrounds
        In [0, 1]: how many of the swapped backgrounds are no image's, but one colour or noise, see
        :class:`~faster_isnet.methods.Swap`, of which it is the option ``generated``.
    **network
        The options of :class:`~faster_isnet.ISNet`.

    Raises
    ------
    ValueError
        If a number is out of its range; when the network is built, as
        :class:`~faster_isnet.ISNet` does.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> method = ISNetMethod(ISNetLoss(0.5), variant="dual", deep_supervision=True)
    >>> method.build(resnet18(num_classes=3)).layers
    ('layer1', 'layer2', 'layer3', 'layer4')
    """

    name = "isnet"
    mixings = MIXINGS
    falling_parts = MappingProxyType(
        {
            "heatmap": "Supervise hidden layers (--method.deep_supervision true), train for more "
            "epochs, or weigh the heatmap loss more (--method.loss.heatmap_weight)"
        }
    )
    rare_parts = MappingProxyType(
        {
            "out_of_range": "Calibrate C1 and C2 on this network and these images "
            "(--method.loss.cut_low auto, without --method.calibration), or train for more epochs"
        }
    )

    def __init__(
        self,
        loss: ISNetLoss | None = None,
        *,
        heatmap_weight_schedule: Mapping[int, float] | None = None,
        calibration: str | Path | None = None,
        calibration_epochs: int = 3,
        supervised_part: float = 1.0,
        supervise_every: int = 1,
        swapped_backgrounds: float = SWAPPED,
        generated_backgrounds: float = GENERATED,
        **network: Any,
    ) -> None:
        loss = ISNetLoss(cut_low=AUTO) if loss is None else loss
        super().__init__(loss.classification)
        self.loss = loss
        if calibration is not None:
            loss.cuts = Calibration.load(calibration).cuts
        self.calibration_epochs = int(check_range("calibration_epochs", calibration_epochs, 1))
        self.supervised_part = check_range("supervised_part", supervised_part, 0, 1, open_low=True)
        self.supervise_every = int(check_range("supervise_every", supervise_every, 1))
        self.swapped_backgrounds = check_range("swapped_backgrounds", swapped_backgrounds, 0, 1)
        self.generated_backgrounds = check_range(
            "generated_backgrounds", generated_backgrounds, 0, 1
        )
        if swapped_backgrounds:  # a heatmap loss of small weight need not reach its range
            self.rare_parts = MappingProxyType({})
        if not loss.weight_is_given:
            loss.heatmap_weight = WEIGHT_IF_SWAPPED if swapped_backgrounds else WEIGHT
        schedule = heatmap_weight_schedule or {}
        self.heatmap_weight_schedule = {int(epoch): weight for epoch, weight in schedule.items()}
        for epoch, weight in self.heatmap_weight_schedule.items():
            check_range(f"heatmap_weight_schedule[{epoch}]", weight, 0, 1)
        self._network_options = network
        self._step = 0

    def build(self, classifier: nn.Module) -> ISNet:
        """Return an ISNet of the classifier; one that is an ISNet already stays as it is."""
        if isinstance(classifier, ISNet):
            return classifier
        return ISNet(classifier, **self._network_options)

    def deployed(self, network: nn.Module) -> nn.Module:
        """Return the ISNet's backbone."""
        assert isinstance(network, ISNet)
        return network.backbone

    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the losses, all samples explained.

        In validation with ``out_of_range`` among the parts: the share of the samples whose
        foreground has relevance outside of [C1, C2]; those without a mask are none of them.
        """
        assert isinstance(network, ISNet)
        if not self._supervises:
            return self._classification_losses(network, batch)
        explanation = network.explain(batch.images)
        losses = _losses(self.loss(explanation, batch.labels, batch.masks), explanation.logits)
        if network.training:
            return losses
        outside = self.loss.share_out_of_range(explanation, batch.masks)
        return replace(losses, parts={**losses.parts, "out_of_range": outside})

    def training_losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the losses of a training step.

        Backgrounds may be swapped, images mixed, and a part of the samples alone may be explained.
        """
        assert isinstance(network, ISNet)
        batch = self.training_batch(network, batch)
        return replace(self._training_losses(network, batch), labels=batch.labels)

    def training_batch(self, network: nn.Module, batch: Batch) -> Batch:
        """Return a batch to train on, with backgrounds swapped and then images mixed."""
        return self.mixed(network, batch._replace(images=self.training_images(batch)))

    def training_images(self, batch: Batch) -> Tensor:
        """Return the images of a batch to train on, with backgrounds swapped if so chosen."""
        return swap_backgrounds(
            batch.images,
            batch.masks,
            self.swapped_backgrounds,
            generated=self.generated_backgrounds,
        )

    def _training_losses(self, network: ISNet, batch: Batch) -> Losses:
        if self._step % self.supervise_every:
            return self._classification_losses(network, batch)
        explained = math.ceil(self.supervised_part * len(batch.images))
        if explained == len(batch.images) or not self._supervises:
            return self.losses(network, batch)
        order = torch.randperm(len(batch.images)).to(batch.images.device)
        chosen, others = batch.select(order[:explained]), batch.select(order[explained:])
        explanation = network.explain(chosen.images)
        heatmap = self.loss(explanation, chosen.labels, chosen.masks).heatmap
        shuffled = torch.cat([explanation.logits, network(others.images)])
        logits = torch.empty_like(shuffled).index_copy(0, order, shuffled)
        classification = self.classification(logits, batch.labels)
        return _losses(self.loss.join(classification, heatmap), logits)

    def check_pixels(self, network: nn.Module, images: Tensor) -> None:
        """Check that images are finite and, if they are to be explained, lie in zB's bounds."""
        assert isinstance(network, ISNet)
        if self.loss.heatmap_weight > 0:
            network.explainer.check_pixels(images)
        else:
            super().check_pixels(network, images)

    def see_image_shape(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Find the hidden layers to supervise, and say which; nothing is supervised without a mask.

        Raises
        ------
        ValueError
            As :meth:`faster_isnet.ISNet.find_layers` does.
        """
        assert isinstance(network, ISNet)
        if self.needs_masks():
            network.find_layers(image_shape)

    def summary(self) -> str:
        """Return what the training does with backgrounds."""
        parts = [swapping_summary(self.swapped_backgrounds, self.generated_backgrounds)]
        if self._has_heatmap_loss:
            weights = self.heatmap_weight_schedule.values() or [self.loss.heatmap_weight]
            parts.append(
                "relevance in the background is penalised, P = "
                + ", ".join(f"{weight:g}" for weight in weights)
            )
        return "; ".join(filter(None, parts))

    def set_progress(self, epoch: int, step: int) -> None:
        """Set P by its schedule, and count steps."""
        self._step = step
        if schedule := self.heatmap_weight_schedule:
            epochs = sorted(schedule)
            weights = [schedule[each] for each in epochs]
            self.loss.heatmap_weight = float(np.interp(epoch, epochs, weights))

    def callbacks(self) -> list[Callback]:
        """Return the calibration of C1 and C2, if they are needed and not known yet."""
        unknown = self.loss.cuts is None and self._has_heatmap_loss
        return [CutCalibration(self.calibration_epochs)] if unknown else []

    def state(self) -> dict[str, Any]:
        """Return C1 and C2, if they are known."""
        return {} if self.loss.cuts is None else {"cuts": asdict(self.loss.cuts)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore C1 and C2 that were calibrated."""
        if "cuts" in state and self.loss.cuts is None:
            self.loss.cuts = Cuts.of(**state["cuts"])

    def needs_masks(self) -> bool:
        """Whether there is a heatmap loss in any epoch, or backgrounds are swapped."""
        return self._has_heatmap_loss or self.swapped_backgrounds > 0

    def reads_masks(self) -> bool:
        """Whether there is a heatmap loss, or backgrounds are swapped."""
        return self.loss.heatmap_weight > 0 or self.swapped_backgrounds > 0

    def check_precision(self, network: nn.Module, precision: str) -> None:
        """Raise ``ValueError`` if heatmaps cannot be computed in a precision.

        Float32 and float64 always can. Autocast (``"…-mixed"``) has enough digits for LRP-Flex
        and Gradient × Input, but not for rules for layers; weights in half precision never have.
        """
        assert isinstance(network, ISNet)
        if not self._has_heatmap_loss or precision in ("32-true", "64-true"):
            return
        composite = network.explainer.composite
        mixed = precision.endswith("-mixed")
        if mixed and composite.half_precision:
            return
        why = f"rules for layers ({composite.name!r})" if mixed else "heatmaps"
        cure = ", 'bf16-mixed'" if composite.half_precision else ""
        raise ValueError(
            f"an ISNet of variant {network.variant!r} cannot be trained with precision "
            f"{precision!r}, which has too few digits for {why}; give '32-true'{cure} or '64-true' "
            "(--trainer.precision)"
        )

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments, and not a calibration's file: the loss has its C1 and C2."""
        arguments = super().recipe_arguments() | {"loss": self.loss}
        arguments.pop("calibration", None)
        return arguments

    @property
    def _has_heatmap_loss(self) -> bool:
        weights = (self.loss.heatmap_weight, *self.heatmap_weight_schedule.values())
        return any(weight > 0 for weight in weights)

    @property
    def _supervises(self) -> bool:
        # Before the calibration Lightning's sanity check alone finds no cuts.
        return self.loss.heatmap_weight > 0 and self.loss.cuts is not None

    def _classification_losses(self, network: ISNet, batch: Batch) -> Losses:
        logits = network(batch.images)
        classification = self.classification(logits, batch.labels)
        return Losses(
            classification,
            logits,
            classification,
            {"heatmap": torch.zeros_like(classification)},
        )


def _losses(parts: LossParts, logits: Tensor) -> Losses:
    return Losses(parts.total, logits, parts.classification, {"heatmap": parts.heatmap})
