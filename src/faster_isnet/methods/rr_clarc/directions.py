"""Keep the directions in which the background moves a layer's activations."""

from __future__ import annotations

import torch
from torch import Tensor


class BackgroundDirections:
    """Keep the mean shift of a layer's features by the background, for the images of each class.

    The signal CAV of Pahde et al., 2022, "Navigating neural space: revisiting concept activation
    vectors to overcome directional divergence", is cov(a, t) / var(t) of features a and labels t.
    Where t says whether an image has its own background or another one, that is the difference of
    the two means, which is kept here for the images of each class. They are running means, so they
    follow the network while it is trained.

    Parameters
    ----------
    decay
        In [0, 1): the weight of the earlier mean where a batch brings a new one.

    Examples
    --------
    >>> kept = BackgroundDirections(0.5)
    >>> kept.update(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.eye(2))
    >>> kept.update(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    >>> kept.unit_vectors()
    tensor([[0.7071, 0.7071],
            [0.0000, 1.0000]])
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.shifts: Tensor | None = None

    def update(self, shifts: Tensor, members: Tensor) -> None:
        """Take the shifts of a batch.

        Parameters
        ----------
        shifts
            ``[B, D]``: features of the images minus those of the same on another background.
        members
            ``[B, C]``, in [0, 1]: which images count for which class.
        """
        number = members.sum(0).unsqueeze(1)
        means = members.T @ shifts / number.where(number > 0, 1)
        if self.shifts is None or self.shifts.shape != means.shape:
            self.shifts = torch.zeros_like(means)
        kept = self.shifts.to(means)
        known = kept.any(1, keepdim=True)
        mixed = torch.where(known, kept.lerp(means, 1 - self.decay), means)
        self.shifts = torch.where(number > 0, mixed, kept)

    def unit_vectors(self) -> Tensor | None:
        """Return ``[C, D]`` of length 1, or 0 for unknown ones; ``None`` before any is known."""
        if self.shifts is None:
            return None
        length = self.shifts.norm(dim=1, keepdim=True)
        units: Tensor = self.shifts / length.where(length > 0, 1)
        return units
