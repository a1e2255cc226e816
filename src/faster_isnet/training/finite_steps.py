"""Stop a training before a step that is not finite changes its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from faster_isnet.methods.base import Losses


class FiniteSteps:
    """Stop a training step whose losses or gradient are not finite, before it changes the weights.

    Losses of the step's batches are kept until its gradient is known, and all are looked at
    together: that is the one place where a training step waits for an accelerator.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[str, str, Tensor]] = []

    def keep(self, losses: Losses, where: str) -> None:
        """Keep the losses of a batch, of which ``where`` says which it is."""
        named = {"classification": losses.classification, **losses.parts, "total": losses.total}
        self._kept += [(where, f"{name} loss", value.detach()) for name, value in named.items()]

    def check(self, gradients: Sequence[Tensor]) -> None:
        """Check the losses that are kept, which are dropped then, and a step's gradients.

        Raises
        ------
        FloatingPointError
            If one is not finite; the message names it and the batch.
        """
        kept, self._kept = self._kept, []
        if not kept:
            return
        if gradients:
            first, last = kept[0][0], kept[-1][0]
            where = first if first == last else f"{first} to {last}"  # accumulated
            kept.append((where, "gradient's largest element", _largest(gradients)))
        device = kept[0][2].device
        found = torch.stack([value.to(device, torch.float32) for _, _, value in kept]).tolist()
        bad: dict[str, list[str]] = {}
        for (where, name, _), value in zip(kept, found, strict=True):
            if not math.isfinite(value):
                bad.setdefault(where, []).append(f"the {name} is {value}")
        for where, what in bad.items():
            raise FloatingPointError(
                f"{where}: {' and '.join(what)}. Training stops before this batch touches the "
                "weights; lower the learning rate or the heatmap weight and resume from the last "
                "checkpoint"
            )


def _largest(gradients: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute element of several tensors, NaN if one is; without waiting."""
    largest: Tensor = torch.nn.utils.get_total_norm(gradients, math.inf)
    whole = getattr(largest, "full_tensor", None)  # of parameters that are split over processes
    return largest if whole is None else whole()
