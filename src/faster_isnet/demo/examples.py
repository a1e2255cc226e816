"""Hold test images with each model's heatmap and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from faster_isnet.plotting.pictures import check_image, check_mask, check_tensor


@dataclass(frozen=True, eq=False)  # eq=False: comparing tensors gives no single truth value
class Example:
    """Hold one test image with each model's heatmap and prediction.

    Parameters
    ----------
    image
        Picture, shape ``[3, H, W]`` or ``[1, H, W]``, values in [0, 1].
    mask
        Foreground, shape ``[1, H, W]``, values in {0, 1}.
    label
        True class.
    caption
        What the picture shows, e.g. ``"deceiving: mark of class 7"``.
    heatmaps
        Relevance by model name, each of shape ``[C, H, W]``; summed over channels when drawn.
    predictions
        Predicted class by model name; the same names as ``heatmaps``.

    Raises
    ------
    ValueError
        If a tensor has the wrong shape or values, if sizes differ, or if ``heatmaps`` and
        ``predictions`` name different models.
    """

    image: Tensor
    mask: Tensor
    label: int
    caption: str
    heatmaps: Mapping[str, Tensor]
    predictions: Mapping[str, int]

    def __post_init__(self) -> None:
        """Refuse at once what could not be drawn later."""
        check_image(self.image)
        size = self.image.shape[1:]
        check_mask(self.mask, size)
        for model, heatmap in self.heatmaps.items():
            check_tensor(f"heatmap of {model!r}", heatmap, size=size)
        if set(self.heatmaps) != set(self.predictions):
            raise ValueError(
                f"heatmaps are of the models {sorted(self.heatmaps)}, "
                f"predictions of {sorted(self.predictions)}"
            )
