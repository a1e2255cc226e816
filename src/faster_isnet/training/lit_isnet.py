"""Train an ISNet with Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.methods.isnet.method import ISNetMethod
from faster_isnet.methods.isnet.network import ISNet
from faster_isnet.methods.swap.backgrounds import GENERATED, SWAPPED
from faster_isnet.training.lit_classifier import LitClassifier


class LitISNet(LitClassifier):
    """An ISNet as a Lightning module.

    Batches, logs and checkpoints are those of
    :class:`~faster_isnet.training.lit_classifier.LitClassifier`, the defaults those of
    ``faster-isnet fit``.

    Parameters
    ----------
    net
        What to train.
    criterion
        The loss; ``None`` for :class:`~faster_isnet.ISNetLoss` whose C1 and C2 are calibrated.
    heatmap_weight_schedule, calibration_epochs
        See :class:`~faster_isnet.methods.ISNetMethod`.
    supervised_part, supervise_every, swapped_backgrounds, generated_backgrounds
        See :class:`~faster_isnet.methods.ISNetMethod`.
    gamma
        Deprecated: ``milestone_factor``.
    **training
        Optimiser, schedule, gradient clipping and frozen epochs, see
        :class:`~faster_isnet.training.lit_classifier.LitClassifier`.

    Raises
    ------
    TypeError
        If ``net`` is not an :class:`~faster_isnet.ISNet`.
    ValueError
        If a name is unknown or a number is out of range.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> lit = LitISNet(ISNet(resnet18(num_classes=3)))
    >>> lit.method.swapped_backgrounds, lit.criterion.heatmap_weight
    (1.0, 0.1)
    >>> papers = LitISNet(ISNet(resnet18(num_classes=3)), swapped_backgrounds=0)
    >>> papers.criterion.heatmap_weight
    0.7
    """

    net: ISNet
    method: ISNetMethod

    def __init__(
        self,
        net: ISNet,
        criterion: ISNetLoss | None = None,
        *,
        heatmap_weight_schedule: Mapping[int, float] | None = None,
        calibration_epochs: int = 3,
        supervised_part: float = 1.0,
        supervise_every: int = 1,
        swapped_backgrounds: float = SWAPPED,
        generated_backgrounds: float = GENERATED,
        gamma: float | None = None,
        **training: Any,
    ) -> None:
        if not isinstance(net, ISNet):
            raise TypeError(
                f"net must be an ISNet, got {type(net).__name__}; wrap your model: ISNet(model)"
            )
        if gamma is not None:
            warnings.warn("gamma is called milestone_factor now", DeprecationWarning, stacklevel=2)
            training["milestone_factor"] = gamma
        method = ISNetMethod(
            criterion,
            heatmap_weight_schedule=heatmap_weight_schedule,
            calibration_epochs=calibration_epochs,
            supervised_part=supervised_part,
            supervise_every=supervise_every,
            swapped_backgrounds=swapped_backgrounds,
            generated_backgrounds=generated_backgrounds,
        )
        super().__init__(net, method, **training)

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments, with the loss that was made by default."""
        return super().recipe_arguments() | {"criterion": self.criterion}

    @property
    def criterion(self) -> ISNetLoss:
        """The loss."""
        return self.method.loss
