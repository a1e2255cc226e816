"""Measure how much a trained classifier depends on the background, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_range
from faster_isnet.common.progress import count_bar
from faster_isnet.data.dataset import ImageDataset, Item
from faster_isnet.data.samples import Sample
from faster_isnet.evaluation.attention import PREDICTION
from faster_isnet.evaluation.audit.parts import Parts
from faster_isnet.evaluation.audit.variants import (
    ENLARGED,
    FOREGROUND_REMOVED,
    MASK_CHANGES,
    UNCHANGED,
    ImageVariants,
)
from faster_isnet.evaluation.changes import Change, changed, probability_change
from faster_isnet.evaluation.localisation import background_area, background_share
from faster_isnet.evaluation.opinions import DrawnOpinion, check_methods
from faster_isnet.evaluation.predictions import Predictions, predict
from faster_isnet.evaluation.second_opinion import check_second_opinion, second_opinion
from faster_isnet.evaluation.thresholds import decisions
from faster_isnet.explaining.explainer import Explainer

INPUT_RULE = "zb"
"""The rule of the heatmaps' first layer: pixels are in [0, 1]."""
_CHUNK = 64  # images whose results are kept together
_NOTHING = "none"


@dataclass(frozen=True)
class AuditSettings:
    """Configure an audit.

    Parameters
    ----------
    composite
        Of the heatmaps, see :class:`~faster_isnet.Explainer`.
    mask_change
        By how much masks are grown and shrunk to see what the result owes to them, as a share of
        the square root of their area, in [0, 0.5].
    resamples
        Number of resamples of groups of images for an interval.
    level
        Of the intervals, in (0, 1).
    seed
        Of the resampling, of noise, and of the choice of other images.
    pictures
        Number of images shown: those whose prediction changes most.
    batch_size
        Images at a time; each is read with all of its backgrounds, ten pictures.
    workers
        Number of processes that read images; 0 reads in the main process.
    accelerator
        ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the best there is.
    second_opinion
        What explains the images shown beside LRP, by captum: ``"grad-cam"``,
        ``"integrated-gradients"``. None by default, since integrated gradients take 50 forward and
        backward passes of each image.

    Raises
    ------
    ValueError
        If a number is out of range, or a method is unknown.
    """

    composite: str = "flex"
    mask_change: float = 0.05
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0
    pictures: int = 6
    batch_size: int = 8
    workers: int = 0
    accelerator: str = "auto"
    second_opinion: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the numbers before a network is run."""
        least = {"resamples": 1, "pictures": 0, "batch_size": 1, "workers": 0, "seed": 0}
        for name, low in least.items():
            check_range(name, getattr(self, name), low)
        check_range("level", self.level, 0, 1, open_low=True)
        check_range("mask_change", self.mask_change, 0, 0.5)
        check_methods(self.second_opinion)


@dataclass(frozen=True)
class AuditedNetwork:
    """A trained classifier, and what must be known to audit it.

    Attributes
    ----------
    network
        From images ``[B, C, H, W]`` in [0, 1] to logits, in evaluation mode.
    class_names
        Of the logits; of a single one, of no and yes.
    task
        ``"multiclass"`` or ``"multilabel"``.
    differentiable
        Whether it has gradients, so that heatmaps can be made.
    """

    network: nn.Module
    class_names: Sequence[str]
    task: str = "multiclass"
    differentiable: bool = True


@dataclass(frozen=True, eq=False)
class Measured:
    """Hold what was measured, image by image.

    Attributes
    ----------
    images
        A row for each image, with the columns below.
    variants
        The images with all backgrounds.

    Columns: ``name``, ``group`` and ``attribute`` (empty if there is none), ``predicted`` and its
    ``probability``. For each kind of background ``changed: KIND`` (1 if the prediction changes, 0
    if not; of several labels, the share that change) and ``change of probabilities: KIND`` (½ Σ|Δp|
    over classes, or of several labels the mean of |Δp|). ``becomes``, what is predicted with the
    realistic background, and ``changed: masks grown`` and ``masks shrunk``, of that background.
    ``changed: enlarged``, of the whole image, and ``unchanged without foreground``. ``background
    area`` and, where heatmaps can be made, ``background share``, with ``: masks grown`` and
    ``: masks shrunk`` as well.
    """

    images: pd.DataFrame
    variants: ImageVariants


class Auditor:
    """Audit one classifier.

    Parameters
    ----------
    audited
        The classifier. It is moved to the accelerator.
    settings
        How; ``None`` for the defaults.

    Raises
    ------
    TypeError
        If heatmaps of the network are wanted and cannot be made.
    ImportError
        If a second opinion is wanted, and captum is not installed.
    """

    def __init__(self, audited: AuditedNetwork, settings: AuditSettings | None = None) -> None:
        self.settings = AuditSettings() if settings is None else settings
        self.audited = audited
        check_second_opinion(self.settings.second_opinion)
        self._fabric = lightning.Fabric(accelerator=self.settings.accelerator, devices=1)
        self._network = self._fabric.to_device(audited.network.eval())
        self._explainer = (
            Explainer(self._network, self.settings.composite, input_rule=INPUT_RULE)
            if audited.differentiable
            else None
        )

    def __call__(self, images: ImageDataset, parts: Parts) -> Measured:
        """Measure all images.

        Parameters
        ----------
        images
            Two or more with a mask; others, such as those whose mask vanishes when it is resized,
            are left out. Their labels are not used.
        parts
            Keeps what is measured, so that a measurement that is stopped goes on.

        Raises
        ------
        ValueError
            If there are fewer than two with a mask, or an image cannot be read.
        """
        before = parts.get("predictions", partial(self._predicted, images))
        chosen = np.flatnonzero(before["has_mask"]).tolist()
        if len(chosen) < 2:
            raise ValueError(
                f"an audit needs two images with a mask, got {len(chosen)}; name more images, or "
                "masks of them: --masks, --with"
            )
        samples = [images.samples[index] for index in chosen]
        variants = ImageVariants(
            Subset(images, chosen),
            before["predicted"][chosen].tolist(),
            self.settings.mask_change,
            self.settings.seed,
        )
        tables = []
        with count_bar(len(chosen), "image", what="backgrounds") as bar:
            for start in range(0, len(chosen), _CHUNK):
                indices = range(start, min(start + _CHUNK, len(chosen)))
                tables.append(
                    parts.get(
                        f"images-{start:07}",
                        partial(self._rows, samples, variants, indices, bar),
                    )
                )
                bar.update(indices.stop - bar.n)  # of those that are read, not measured
        return Measured(pd.concat(tables, ignore_index=True), variants)

    def heatmap(self, image: Tensor) -> Tensor | None:
        """Return the heatmap ``[C, H, W]`` of an image's prediction; ``None`` without gradients."""
        if self._explainer is None:
            return None
        batch = self._fabric.to_device(image[None])
        return self._explainer(batch, self._target).heatmap[0, 0].cpu()

    def opinions(self, image: Tensor, mask: Tensor, heatmap: Tensor | None) -> list[DrawnOpinion]:
        """Return what LRP and the methods of the second opinion say of an image, if any is asked.

        Parameters
        ----------
        image, mask
            ``[C, H, W]`` in [0, 1], ``[1, H, W]`` in {0, 1}.
        heatmap
            Of :meth:`heatmap`.
        """
        return second_opinion(
            self._network,
            self._fabric.to_device(image),
            self.settings.second_opinion,
            heatmap=heatmap,
            mask=mask,
            task=self.audited.task,
        )

    @property
    def _target(self) -> str:
        return PREDICTION if self.audited.task == "multiclass" else "highest-logit"

    def _batches(self, dataset: Dataset[Any]) -> Iterator[Any]:
        loader = DataLoader(dataset, self.settings.batch_size, num_workers=self.settings.workers)
        yield from self._fabric.setup_dataloaders(loader)

    def _predict(self, images: Tensor) -> Predictions:
        """Predict a batch; its labels, which nothing is made of, are 0."""
        count, names = len(images), self.audited.class_names
        if self.audited.task == "multilabel":
            labels = torch.zeros(count, len(names))
        else:
            labels = torch.zeros(count, dtype=torch.int64)
        return predict(self._network, [Batch(images, labels)], names)

    def _named(self, predictions: Predictions) -> list[str]:
        names = self.audited.class_names
        return [
            ", ".join(names[c] for c in np.flatnonzero(row).tolist()) or _NOTHING
            for row in decisions(predictions, None)
        ]

    def _predicted(self, images: Dataset[Item]) -> pd.DataFrame:
        found: dict[str, list[Any]] = {"predicted": [], "has_mask": []}
        with count_bar(len(images), "image", what="predictions") as bar:  # type: ignore[arg-type]
            for batch in self._batches(images):
                found["predicted"] += self._named(self._predict(batch[0]))
                found["has_mask"] += (batch[2] == 1).flatten(1).any(1).tolist()
                bar.update(len(batch[0]))
        return pd.DataFrame(found)

    def _rows(
        self,
        samples: Sequence[Sample],
        variants: ImageVariants,
        indices: Sequence[int],
        bar: tqdm[Any],
    ) -> pd.DataFrame:
        samples = [samples[index] for index in indices]
        described = pd.DataFrame(
            {
                "name": [sample.name for sample in samples],
                "group": [sample.group or "" for sample in samples],
                "attribute": [sample.attribute or "" for sample in samples],
            }
        )
        measured = []
        for shown, masks in self._batches(Subset(variants, list(indices))):
            measured.append(self._measured(variants, shown, masks))
            bar.update(len(shown))
        return pd.concat([described, pd.concat(measured, ignore_index=True)], axis=1)

    def _measured(self, variants: ImageVariants, shown: Tensor, masks: Tensor) -> pd.DataFrame:
        """Measure a batch: variants ``[B, V, C, H, W]`` and masks ``[B, 3, 1, H, W]``."""
        by_name = dict(zip(variants.names, shown.unbind(1), strict=True))
        predictions = {name: self._predict(images) for name, images in by_name.items()}
        before = predictions[UNCHANGED]
        changes = {
            name: Change.of(before, after, None)
            for name, after in predictions.items()
            if name != UNCHANGED
        }
        columns: dict[str, Any] = {
            "predicted": self._named(before),
            "probability": before.probabilities.max(1),
            "becomes": self._named(predictions[variants.realistic]),
        }
        for kind in (*variants.backgrounds, *MASK_CHANGES, ENLARGED):
            columns[f"changed: {kind}"] = changed(changes[kind])
        for kind in variants.backgrounds:
            columns[f"change of probabilities: {kind}"] = probability_change(changes[kind])
        columns["unchanged without foreground"] = 1 - changed(changes[FOREGROUND_REMOVED])
        return pd.DataFrame({**columns, **self._attention(by_name[UNCHANGED], masks)})

    def _attention(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Measure how much of area and relevance lies outside of each of the masks."""
        heatmap = None
        if self._explainer is not None:
            heatmap = self._explainer(images, self._target).heatmap
        found = {}
        for number, change in enumerate((None, *MASK_CHANGES)):
            mask, ending = masks[:, number], f": {change}" if change else ""
            found[f"background area{ending}"] = background_area(images, mask).cpu()
            if heatmap is not None:
                found[f"background share{ending}"] = background_share(heatmap, mask).cpu()
        return found
