"""Draw explanations of a batch, for a notebook."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from faster_isnet.common.checks import NO_MASK, TASKS, check_choice, check_range
from faster_isnet.common.logits import class_logits
from faster_isnet.plotting.heatmaps import (
    class_name,
    draw_heatmap,
    draw_image,
    new_figure,
    percent,
)

_MOST_HEATMAPS = 4
_SIDE = 2.4  # of a picture, in inches


def explanation_plot(
    logits: Tensor,
    heatmaps: Tensor,
    images: Tensor,
    masks: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    task: str = "multiclass",
    most: int = 8,
) -> Figure:
    """Draw images, and beside each its heatmaps, laid over the image in grey.

    Parameters
    ----------
    logits
        ``[B, C]``, or a single one, ``[B, 1]`` or ``[B]``.
    heatmaps
        ``[B, K, 1|3, H, W]``.
    images
        ``[B, 1|3, H, W]``. Values outside of [0, 1], such as normalised ones, are drawn from the
        batch's lowest to its highest.
    masks
        ``[B, 1, H, W]`` in {0, 1}: their outlines are drawn, except of those that are
        :data:`~faster_isnet.NO_MASK`.
    class_names
        Of the logits; by default their numbers. Above an image is that of its highest logit.
    task
        What the logits are, and so its probability: ``"multiclass"`` (softmax) or ``"multilabel"``
        (sigmoid).
    most
        How many images are drawn at most, ≥ 1; of each four heatmaps at most.

    Raises
    ------
    ValueError
        If images, masks or names do not fit the explanation.
    """
    count = min(len(images), int(check_range("most", most, 1)))
    if images.dim() != 4 or images.shape != heatmaps[:, 0].shape:
        raise ValueError(
            f"images must be {list(heatmaps[:, 0].shape)}, as those that were explained, "
            f"got {list(images.shape)}"
        )
    shown = _in_unit_range(images.detach().cpu())
    of_classes = class_logits(logits.detach().cpu(), check_choice("task", task, TASKS)).double()
    probabilities = of_classes.sigmoid() if task == "multilabel" else of_classes.softmax(1)
    numbers = map(str, range(of_classes.shape[1]))
    names = list(numbers if class_names is None else class_names)
    heatmaps = heatmaps.detach().cpu()[:, :_MOST_HEATMAPS]
    columns = 1 + heatmaps.shape[1]
    height = _SIDE * images.shape[2] / images.shape[3] + 0.3
    figure = new_figure(_SIDE * columns, height * count, dpi=100)
    axes = figure.subplots(count, columns, squeeze=False)
    for row, (image, row_of_axes) in enumerate(zip(shown, axes, strict=False)):
        mask = None if masks is None or bool((masks[row] == NO_MASK).all()) else masks[row].cpu()
        predicted = int(of_classes[row].argmax())
        probability = percent(float(probabilities[row, predicted]))
        title = f"{class_name(names, predicted)}, {probability}"
        draw_image(row_of_axes[0], image, mask)
        row_of_axes[0].set_title(title, fontsize=9, parse_math=False)
        for place, heatmap in zip(row_of_axes[1:], heatmaps[row], strict=True):
            draw_heatmap(place, heatmap, image=image, mask=mask)
    return figure


def _in_unit_range(images: Tensor) -> Tensor:
    low, high = (float(each) for each in torch.aminmax(images))
    if low >= 0 and high <= 1:
        return images
    return (images - low) / (high - low)
