"""Testing a trained classifier: its scores, where it looks, and what the background does to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from faster_isnet.common.checks import NO_MASK, check_range
from faster_isnet.data.backgrounds import BACKGROUNDS, ReplacedBackground
from faster_isnet.data.dataset import Item
from faster_isnet.data.module import ImageSet
from faster_isnet.evaluation import (
    PREDICTION,
    Predictions,
    attention_scores,
    choose_thresholds,
    decisions,
    measure_attention,
    positions,
    predict,
    scores,
    sensitivity,
    worst,
)
from faster_isnet.evaluation.measures import Thresholds
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.plotting.heatmaps import explanation_figure, png


@dataclass(frozen=True)
class TestSettings:
    """How a classifier is tested.

    Parameters
    ----------
    composite
        Of the heatmaps, see :class:`~faster_isnet.Explainer`.
    samples
        How often groups of images are drawn for an interval, see
        :func:`~faster_isnet.evaluation.scores`.
    level
        Of the intervals, in (0, 1).
    seed
        Of the drawing, and of the backgrounds that are drawn.
    examples
        How many images of each class are shown with their heatmaps: the first ones, so that they
        are the same for every classifier.
    worst
        How many of the images with the most relevance in the background are shown.
    batch_size
        Images at a time.
    accelerator
        ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the best there is.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    __test__ = False  # for pytest, which takes the name for its own

    composite: str = "flex"
    samples: int = 1000
    level: float = 0.95
    seed: int = 0
    examples: int = 2
    worst: int = 6
    batch_size: int = 16
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        """Check the numbers before a network is asked anything."""
        for name, least in {"samples": 1, "examples": 0, "worst": 0, "batch_size": 1}.items():
            check_range(name, getattr(self, name), least)
        check_range("level", self.level, 0, 1, open_low=True)
        check_range("seed", self.seed, 0)

    @property
    def resampling(self) -> dict[str, Any]:
        """What functions that make intervals take."""
        return {"samples": self.samples, "level": self.level, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Picture:
    """An image beside its heatmap, and what was said of it.

    Attributes
    ----------
    kind
        ``"example"``, or ``"worst"`` for one of those with the most relevance in the background.
    image
        Its name.
    label, predicted
        Names of its classes.
    right
        Whether these are the same.
    background_share
        ``None`` if it has no mask.
    png
        The picture.
    """

    kind: str
    image: str
    label: str
    predicted: str
    right: bool
    background_share: float | None
    png: bytes

    def row(self) -> dict[str, Any]:
        """Return what is said of it, ready for JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "png"}


@dataclass(frozen=True, eq=False)
class Judgement:
    """What was found on one data set.

    Attributes
    ----------
    predictions
        Of all images.
    metrics
        Ready for JSON: the ``thresholds`` for several labels, the ``scores``, ``attention`` and
        ``sensitivity``; the last two ``None`` where fewer than two images have a mask.
    attention
        Of each image with a mask, see :func:`~faster_isnet.evaluation.measure_attention`.
    pictures
        To look at.
    """

    predictions: Predictions
    metrics: dict[str, Any]
    attention: pd.DataFrame
    pictures: list[Picture]


class Judge:
    """Judges one classifier on any number of data sets.

    Parameters
    ----------
    network
        Maps images ``[B, C, H, W]`` to logits ``[B, K]``. It is put into eval mode and onto the
        accelerator.
    class_names
        K names.
    settings
        How; ``None`` for the defaults.
    """

    def __init__(
        self, network: nn.Module, class_names: list[str], settings: TestSettings | None = None
    ) -> None:
        self.settings = TestSettings() if settings is None else settings
        self.class_names = class_names
        self._fabric = lightning.Fabric(accelerator=self.settings.accelerator, devices=1)
        self._network = self._fabric.to_device(network.eval())
        self._explainer = Explainer(self._network, self.settings.composite, input_rule="zb")

    def thresholds(self, validation: ImageSet) -> dict[str, float]:
        """Choose for several labels from where on an image has one, on validation images."""
        return choose_thresholds(self._predict(validation))

    def __call__(self, dataset: ImageSet, thresholds: Thresholds = None) -> Judgement:
        """Judge the classifier on a data set.

        Parameters
        ----------
        dataset
            Images that it has not seen, without augmentation, whose names differ.
        thresholds
            For several labels, see :func:`~faster_isnet.evaluation.scores`.

        Raises
        ------
        ValueError
            As :func:`~faster_isnet.evaluation.scores` and
            :func:`~faster_isnet.evaluation.attention_scores` do.
        """
        resampling = self.settings.resampling
        predictions = self._predict(dataset)
        target = PREDICTION if predictions.task == "multiclass" else "highest-logit"
        attention = measure_attention(
            self._explainer, self._loader(dataset), predictions.names, target
        )
        metrics: dict[str, Any] = {
            "thresholds": None if thresholds is None else dict(thresholds),
            "scores": scores(predictions, thresholds, **resampling),
            "attention": None,
            "sensitivity": None,
        }
        if len(attention) >= 2:
            metrics["attention"] = attention_scores(attention, predictions, **resampling)
            masked = positions(attention, predictions)
            metrics["sensitivity"] = self._sensitivity(
                Subset(dataset, masked), predictions.take(masked), thresholds
            )
        pictures = self._pictures(dataset, predictions, thresholds, attention, target)
        return Judgement(predictions, metrics, attention, pictures)

    def _loader(self, dataset: Dataset[Item]) -> DataLoader[Item]:
        loader = DataLoader(dataset, self.settings.batch_size)
        return self._fabric.setup_dataloaders(loader)  # type: ignore[return-value]

    def _predict(self, dataset: ImageSet) -> Predictions:
        names = [sample.name for sample in dataset.samples]
        groups = [sample.group or sample.name for sample in dataset.samples]
        return predict(self._network, self._loader(dataset), self.class_names, names, groups)

    def _sensitivity(
        self, dataset: Dataset[Item], before: Predictions, thresholds: Thresholds
    ) -> dict[str, Any]:
        """Say what other backgrounds do to the predictions of images that all have a mask."""
        labels, names, groups = list(before.labels), before.names, before.groups
        resampling = self.settings.resampling
        backgrounds = {}
        for kind in BACKGROUNDS:
            replaced = ReplacedBackground(dataset, kind, labels, self.settings.seed)
            loader = self._loader(replaced)
            after = predict(self._network, loader, self.class_names, names, groups)
            backgrounds[kind] = sensitivity(before, after, thresholds, **resampling)
        untouched = sensitivity(before, before, thresholds, **resampling)["accuracy"]
        return {"images": len(names), "accuracy": untouched, "backgrounds": backgrounds}

    def _pictures(
        self,
        dataset: ImageSet,
        predictions: Predictions,
        thresholds: Thresholds,
        attention: pd.DataFrame,
        target: str,
    ) -> list[Picture]:
        """Show examples of each class, and where most relevance is in the background."""
        names = list(predictions.names)
        shares = dict(zip(attention["name"], attention["background share"], strict=True))
        has, said = predictions.has_class, decisions(predictions, thresholds)
        shown = [("example", i) for i in _first_of_each_class(has, self.settings.examples)]
        most = worst(attention, self.settings.worst)
        shown += [("worst", i) for i in positions(most, predictions)]
        return [
            Picture(
                kind,
                names[i],
                self._called(has[i]),
                self._called(said[i]),
                bool((has[i] == said[i]).all()),
                shares.get(names[i]),
                self._draw(dataset[i], Path(names[i]).name, self._called(said[i]), target),
            )
            for kind, i in shown
        ]

    def _called(self, classes: Iterable[bool]) -> str:
        pairs = zip(self.class_names, classes, strict=True)
        return ", ".join(name for name, applies in pairs if applies) or "none"

    def _draw(self, item: Item, name: str, predicted: str, target: str) -> bytes:
        image, _, mask = item
        explanation = self._explainer(self._fabric.to_device(image[None]), target)
        outline = None if bool((mask == NO_MASK).all()) else mask
        figure = explanation_figure(
            image, explanation.heatmap[0, 0].cpu(), outline, name=name, title=predicted
        )
        return png(figure, dpi=100)  # a page holds dozens


def _first_of_each_class(has_class: np.ndarray[Any, np.dtype[np.bool_]], count: int) -> list[int]:
    """Return the positions of the first images of each class, none twice."""
    found = [int(i) for column in has_class.T for i in np.flatnonzero(column)[:count]]
    return list(dict.fromkeys(found))
