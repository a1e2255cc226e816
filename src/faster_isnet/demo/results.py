"""What a run found: the scores of its models, and test images with what the models made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from faster_isnet.plotting.pictures import check_image, check_mask, check_tensor

TEST_SETS = ("biased", "unbiased", "deceiving")
NOT_MODELS = ("settings", "seconds")  # the keys of the metrics that do not name a model


@dataclass(frozen=True, eq=False)  # eq=False: comparing tensors gives no single truth value
class Example:
    """One test image with what the models made of it.

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
        """Refuse what could not be drawn while the caller still knows where it came from."""
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


def models_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``metrics`` that are scores of a model, in order."""
    return {name: entry for name, entry in metrics.items() if name not in NOT_MODELS}


def model_scores(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the scores of each model in ``metrics``, checked.

    ``metrics`` is the content of ``metrics.json``: under each model's name the accuracies
    ``biased``, ``unbiased``, ``deceiving`` and the ``background_share``, fractions in [0, 1].
    ``settings`` and ``seconds`` are passed over.

    Raises
    ------
    TypeError
        If a model's entry is not a mapping, or a score not a number.
    ValueError
        If there is no model, a score is missing, or outside [0, 1] (NaN included).

    Examples
    --------
    >>> model_scores({"isnet": {"biased": 1, "unbiased": 1, "deceiving": 0.9}})
    Traceback (most recent call last):
    ...
    ValueError: metrics['isnet'] lacks 'background_share'
    """
    models = models_of(metrics)
    if not models:
        raise ValueError(f"metrics names no model; its keys: {list(metrics)}")
    return {name: _checked_scores(f"metrics[{name!r}]", entry) for name, entry in models.items()}


def _checked_scores(where: str, entry: object) -> dict[str, float]:
    if not isinstance(entry, Mapping):
        raise TypeError(f"{where} must be a mapping of scores, got {entry!r}")
    keys = (*TEST_SETS, "background_share")
    missing = [repr(key) for key in keys if key not in entry]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    for key in keys:
        if isinstance(entry[key], bool) or not isinstance(entry[key], Real):
            raise TypeError(f"{where}[{key!r}] must be a number, got {entry[key]!r}")
        if not 0 <= entry[key] <= 1:  # written so that NaN fails too
            raise ValueError(f"{where}[{key!r}] must be a fraction in [0, 1], got {entry[key]!r}")
    return {key: float(entry[key]) for key in keys}
