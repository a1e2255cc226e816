"""Evaluate a trained classifier: scores, attention, and sensitivity to the background."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_MASK, check_range
from faster_isnet.common.progress import count_bar
from faster_isnet.common.renaming import renamed_arguments
from faster_isnet.data.backgrounds import BACKGROUNDS, ReplacedBackground
from faster_isnet.data.dataset import Item
from faster_isnet.data.image_data import ImageSet
from faster_isnet.evaluation.attention import (
    PREDICTION,
    attention_scores,
    measure_attention,
    positions,
    worst,
)
from faster_isnet.evaluation.localisation import background_area
from faster_isnet.evaluation.measures import (
    BACKGROUND_SHARE,
    MEASURES,
    Measure,
    SensitivityMeasure,
    check_measures,
    of_type,
)
from faster_isnet.evaluation.operating_points import operating_points
from faster_isnet.evaluation.opinions import check_methods
from faster_isnet.evaluation.predictions import Predictions, predict
from faster_isnet.evaluation.results import DrawnPicture, Results, Sensitivity
from faster_isnet.evaluation.scores import scores
from faster_isnet.evaluation.second_opinion import check_second_opinion, second_opinion
from faster_isnet.evaluation.sensitivity import sensitivity
from faster_isnet.evaluation.subgroups import Measured, members
from faster_isnet.evaluation.thresholds import Thresholds, decisions
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.plotting.heatmaps import explanation_figure, png

_FEWEST_MASKS = 2  # for an interval


@dataclass(frozen=True)
class EvaluationSettings:
    """Configure how a classifier is evaluated.

    Parameters
    ----------
    composite
        Of the heatmaps, see :class:`~faster_isnet.Explainer`.
    resamples
        Number of resamples of groups of images for an interval, see
        :func:`~faster_isnet.evaluation.scores`.
    level
        Of the intervals, in (0, 1).
    seed
        Of the resampling, and of the backgrounds that are random.
    specificity
        That operating points have on validation images, at least, in [0, 1]; their sensitivity is
        what is asked.
    examples
        Number of images of each class that are shown with their heatmaps: the first ones, so that
        they are the same for every classifier.
    worst
        Number of images shown that have the most relevance in the background.
    batch_size
        Images at a time.
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
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0
    specificity: float = 0.95
    examples: int = 2
    worst: int = 6
    batch_size: int = 16
    accelerator: str = "auto"
    second_opinion: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the numbers before a network is run."""
        for name, least in {"resamples": 1, "examples": 0, "worst": 0, "batch_size": 1}.items():
            check_range(name, getattr(self, name), least)
        check_range("level", self.level, 0, 1, open_low=True)
        check_range("seed", self.seed, 0)
        check_range("specificity", self.specificity, 0, 1)
        check_methods(self.second_opinion)

    @property
    def resampling(self) -> dict[str, Any]:
        """Return the arguments of functions that make intervals."""
        return {"resamples": self.resamples, "level": self.level, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Hold what was found on one data set.

    Attributes
    ----------
    predictions
        Of all images.
    results
        What was measured.
    attention
        Of each image with a mask, see :func:`~faster_isnet.evaluation.measure_attention`.
    pictures
        Of examples, and of the images with the most relevance in the background.
    """

    predictions: Predictions
    results: Results
    attention: pd.DataFrame
    pictures: list[DrawnPicture]


class Evaluator:
    """Evaluate one classifier on any number of data sets.

    Parameters
    ----------
    network
        Maps images ``[B, C, H, W]`` to logits ``[B, K]``. It is put into eval mode and onto the
        accelerator.
    class_names
        K names.
    settings
        How; ``None`` for the defaults.
    measures
        What is measured, see :mod:`faster_isnet.evaluation.measures`.
    inputs
        Makes the network's input of a batch, see :meth:`faster_isnet.methods.Method.inputs`;
        ``None`` for its images.

    Raises
    ------
    ValueError
        If two measures have one name, or the share of relevance in the background is missing.
    ImportError
        If a second opinion is wanted, and captum is not installed.
    """

    def __init__(
        self,
        network: nn.Module,
        class_names: list[str],
        settings: EvaluationSettings | None = None,
        measures: Sequence[Measure] = MEASURES,
        inputs: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        check_measures(measures)
        self.settings = EvaluationSettings() if settings is None else settings
        check_second_opinion(self.settings.second_opinion)
        self.class_names = class_names
        self.measures = tuple(measures)
        self._inputs = attrgetter("images") if inputs is None else inputs
        self._fabric = lightning.Fabric(accelerator=self.settings.accelerator, devices=1)
        self._network = self._fabric.to_device(network.eval())
        self._explainer = Explainer(self._network, self.settings.composite, input_rule="zb")

    def __call__(
        self,
        dataset: ImageSet,
        thresholds: Thresholds = None,
        operating_thresholds: Mapping[str, float] | None = None,
    ) -> Evaluation:
        """Evaluate the classifier on a data set.

        Parameters
        ----------
        dataset
            Images that are not in the training set, without augmentation, whose names differ.
        thresholds
            If multi-label, see :func:`~faster_isnet.evaluation.scores`.
        operating_thresholds
            Of :func:`~faster_isnet.evaluation.operating_points.choose_operating_thresholds`;
            ``None`` for no operating points.

        Raises
        ------
        ValueError
            As :func:`~faster_isnet.evaluation.scores` and
            :func:`~faster_isnet.evaluation.attention_scores` do; if a column of subgroups has too
            many values.
        """
        subgroups = members(dataset.samples)
        predictions = self.predict(dataset)
        target = PREDICTION if predictions.task == "multiclass" else "highest-logit"
        attention = measure_attention(
            self._explainer,
            self._loader(dataset, "heatmaps"),
            predictions.names,
            target,
            self.measures,
        )
        found = Measured(predictions, attention, self._replaced(dataset, predictions, attention))
        summarise = partial(
            self._results, thresholds=thresholds, operating=operating_thresholds or {}
        )
        results = replace(
            summarise(found),
            subgroups={
                column: {value: summarise(found.take(chosen)) for value, chosen in values.items()}
                for column, values in subgroups.items()
            },
        )
        pictures = self._pictures(dataset, predictions, thresholds, attention, target)
        return Evaluation(predictions, results, attention, pictures)

    def _results(
        self, found: Measured, thresholds: Thresholds, operating: Mapping[str, float]
    ) -> Results:
        """Score what was found, of all images or of a subgroup."""
        predictions, attention, options = found.predictions, found.attention, self._options
        has_masks = len(attention) >= _FEWEST_MASKS
        return Results(
            thresholds=None if thresholds is None else dict(thresholds),
            scores=scores(predictions, thresholds, **options),
            attention=attention_scores(attention, predictions, **options) if has_masks else None,
            sensitivity=self._sensitivity(found, thresholds) if has_masks else None,
            operating_points=operating_points(predictions, operating, **self.settings.resampling),
        )

    @property
    def _options(self) -> dict[str, Any]:
        return {**self.settings.resampling, "measures": self.measures}

    def _loader(self, dataset: ImageSet | ReplacedBackground, what: str) -> Iterator[Batch]:
        loader = DataLoader(dataset, self.settings.batch_size)
        with count_bar(len(dataset), "image", what=what) as bar:
            for batch in map(Batch.of, self._fabric.setup_dataloaders(loader)):
                yield batch._replace(images=self._inputs(batch))
                bar.update(len(batch.images))

    def predict(self, dataset: ImageSet) -> Predictions:
        """Predict the images of a data set, such as those that thresholds are chosen on."""
        names = [sample.name for sample in dataset.samples]
        groups = [sample.group or sample.name for sample in dataset.samples]
        loader = self._loader(dataset, "predictions")
        return predict(self._network, loader, self.class_names, names, groups)

    def _replaced(
        self, dataset: ImageSet, predictions: Predictions, attention: pd.DataFrame
    ) -> dict[str, Predictions]:
        """Predict the images with a mask again, before other backgrounds, by kind."""
        if len(attention) < _FEWEST_MASKS:
            return {}
        masked = positions(attention, predictions)
        images, before = Subset(dataset, masked), predictions.take(masked)
        labels, names, groups = list(before.labels), before.names, before.groups
        found = {}
        for kind in BACKGROUNDS:
            replaced = ReplacedBackground(images, kind, labels, self.settings.seed)
            loader = self._loader(replaced, f"background: {kind}")
            found[kind] = predict(self._network, loader, self.class_names, names, groups)
        return found

    def _sensitivity(self, found: Measured, thresholds: Thresholds) -> Sensitivity:
        """Measure how other backgrounds change the predictions of the images with a mask."""
        before = found.predictions.take(positions(found.attention, found.predictions))
        untouched = sensitivity(before, before, thresholds, **self._options)
        states = [m.name for m in of_type(self.measures, SensitivityMeasure) if not m.compares]
        return Sensitivity(
            len(before.names),
            {name: untouched[name] for name in states},
            {
                kind: sensitivity(before, after, thresholds, **self._options)
                for kind, after in found.replaced.items()
            },
        )

    def _pictures(
        self,
        dataset: ImageSet,
        predictions: Predictions,
        thresholds: Thresholds,
        attention: pd.DataFrame,
        target: str,
    ) -> list[DrawnPicture]:
        """Draw examples of each class, and the images with the most relevance in the background."""
        names = list(predictions.names)
        shares = dict(zip(attention["name"], attention[BACKGROUND_SHARE], strict=True))
        has, decided = predictions.has_class, decisions(predictions, thresholds)
        shown = [("example", i) for i in _first_of_each_class(has, self.settings.examples)]
        most = worst(attention, self.settings.worst)
        shown += [("worst", i) for i in positions(most, predictions)]
        return [
            DrawnPicture(
                kind=kind,
                image=names[i],
                label=self._named(has[i]),
                predicted=self._named(decided[i]),
                right=bool((has[i] == decided[i]).all()),
                background_share=shares.get(names[i]),
                **self._draw(
                    dataset[i],
                    Path(names[i]).name,
                    self._named(decided[i]),
                    target,
                    predictions.task,
                ),
            )
            for kind, i in shown
        ]

    def _named(self, classes: Iterable[bool]) -> str:
        pairs = zip(self.class_names, classes, strict=True)
        return ", ".join(name for name, applies in pairs if applies) or "none"

    def _draw(
        self, item: Item, name: str, predicted: str, target: str, task: str
    ) -> dict[str, Any]:
        """Return those parts of a picture for which the image is explained."""
        image, _, mask = item[:3]
        batch = self._fabric.to_device(Batch.of([part[None] for part in item]))
        inputs = self._inputs(batch)
        heatmap = self._explainer(inputs, target).heatmap[0, 0].cpu()
        outline = None if bool((mask == NO_MASK).all()) else mask
        figure = explanation_figure(image, heatmap, outline, name=name, title=predicted)
        return {
            "background_area": None
            if outline is None
            else float(background_area(image[None], outline[None])),
            "png": png(figure, dpi=100),  # a page holds dozens
            "opinions": second_opinion(
                self._network,
                inputs[0],
                self.settings.second_opinion,
                heatmap=heatmap,
                mask=outline,
                picture=image,
                task=task,
            ),
        }


def _first_of_each_class(has_class: npt.NDArray[np.bool_], count: int) -> list[int]:
    """Return the positions of the first images of each class, none twice."""
    found = [int(i) for column in has_class.T for i in np.flatnonzero(column)[:count]]
    return list(dict.fromkeys(found))


def __getattr__(name: str) -> Any:
    """Return a class by the name that it had before 0.2, with a warning."""
    renamed: dict[str, type] = {"Judge": Evaluator, "TestSettings": EvaluationSettings}
    if name not in renamed:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = renamed[name]
    warnings.warn(
        f"{name} is called {new.__name__} now; the old name will go",
        DeprecationWarning,
        stacklevel=2,
    )
    return renamed_arguments(samples="resamples")(new) if new is EvaluationSettings else new
