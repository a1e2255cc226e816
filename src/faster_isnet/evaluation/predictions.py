"""Predict the images of a data set, and save and load the predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import TASKS, check_choice
from faster_isnet.common.files import write_atomically
from faster_isnet.common.logits import class_logits
from faster_isnet.common.spreadsheets import original_cell, safe_csv

_COLUMNS = ("name", "group", "task", "label")


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays gives no single truth value
class Predictions:
    """Hold the labels and the predicted probabilities of N images and C classes.

    Parameters
    ----------
    names
        N names of images.
    labels
        ``[N]`` indices of classes, or if multi-label ``[N, C]`` of zeros and ones.
    probabilities
        ``[N, C]`` in [0, 1].
    class_names
        C names.
    groups
        N names of groups of images that belong together, such as patients; by default each image is
        a group of its own.

    Raises
    ------
    ValueError
        If lengths do not fit, there are no images, a label is not the index of a class, or a
        probability is not in [0, 1] (NaN included).

    Examples
    --------
    >>> labels, probabilities = np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> Predictions(["a.png", "b.png"], labels, probabilities, ["cat", "dog"]).task
    'multiclass'
    """

    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    class_names: Sequence[str]
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check lengths, labels and probabilities."""
        n, classes = len(self.names), len(self.class_names)
        if n == 0:
            raise ValueError("there are no images to evaluate")
        if self.probabilities.shape != (n, classes):
            raise ValueError(
                f"probabilities must be {[n, classes]}, images by classes, got "
                f"{list(self.probabilities.shape)}"
            )
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise ValueError("probabilities must lie in [0, 1]; look at the model's logits")
        if self.labels.shape not in ((n,), (n, classes)):
            raise ValueError(
                f"labels must be {[n]}, or {[n, classes]} if multi-label, got "
                f"{list(self.labels.shape)}"
            )
        largest = 1 if self.task == "multilabel" else classes - 1
        if self.labels.min() < 0 or self.labels.max() > largest:
            raise ValueError(f"labels must be whole numbers from 0 to {largest}")
        if self.groups is not None and len(self.groups) != n:
            raise ValueError(f"there are {len(self.groups)} groups for {n} images")

    @property
    def task(self) -> str:
        """``"multiclass"`` or ``"multilabel"``."""
        return TASKS[self.labels.ndim - 1]

    @property
    def has_class(self) -> npt.NDArray[np.bool_]:
        """``[N, C]`` of booleans: which classes each image has."""
        if self.task == "multilabel":
            return self.labels.astype(bool)
        return np.equal(self.labels[:, None], np.arange(len(self.class_names)))

    def take(self, positions: Sequence[int]) -> Predictions:
        """Select images by their positions."""
        chosen = list(positions)
        return Predictions(
            [self.names[i] for i in chosen],
            self.labels[chosen],
            self.probabilities[chosen],
            self.class_names,
            None if self.groups is None else [self.groups[i] for i in chosen],
        )

    def save(self, path: str | Path) -> None:
        """Write them as a CSV file, with a column for each class."""
        table = pd.DataFrame({"name": self.names, "group": self.groups or "", "task": self.task})
        table["label"] = [" ".join(map(str, np.atleast_1d(label))) for label in self.labels]
        for number, name in enumerate(self.class_names):
            table[f"probability of {name}"] = self.probabilities[:, number]
        write_atomically(Path(path), safe_csv(table))

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what :meth:`save` has written.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        try:
            table = pd.read_csv(
                path,
                dtype=dict.fromkeys(_COLUMNS, str),
                keep_default_na=False,
                float_precision="round_trip",
            )
            of_classes = [str(c) for c in table.columns if c not in _COLUMNS]
            labels = np.array([[int(x) for x in cell.split()] for cell in table["label"]])
            multilabel = check_choice("task", table["task"].iloc[0], TASKS) == "multilabel"
            groups = (
                None if (table["group"] == "").all() else list(table["group"].map(original_cell))
            )
            return cls(
                list(table["name"].map(original_cell)),
                labels if multilabel else labels[:, 0],
                table[of_classes].to_numpy(np.float64),
                [c.removeprefix("probability of ") for c in of_classes],
                groups,
            )
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"{str(path)!r} holds no predictions ({error}); give a file of Predictions.save"
            ) from error


def check_same_images(first: Predictions, second: Predictions) -> None:
    """Raise ``ValueError`` unless both are of the same images, labels, groups and classes."""
    if list(first.class_names) != list(second.class_names):
        raise ValueError(
            f"the classes differ: {list(first.class_names)} and {list(second.class_names)}"
        )
    if list(first.names) != list(second.names):
        only = sorted(set(first.names) ^ set(second.names))[:3]
        raise ValueError(
            f"the images differ or are in another order ({len(first.names)} and "
            f"{len(second.names)}{f'; only one has {only}' if only else ''}); test both on the same"
        )
    if not np.array_equal(first.labels, second.labels) or first.groups != second.groups:
        raise ValueError("the same images have other labels or groups; test both on the same data")


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterable[Any],
    class_names: Sequence[str],
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> Predictions:
    """Predict all images of a loader.

    Parameters
    ----------
    model
        Maps images ``[B, ...]`` to logits ``[B, C]``, or for two classes to a single one, that of
        the second; call its ``eval()`` first.
    batches
        In the order of ``names``, see :class:`~faster_isnet.methods.Batch`, with labels ``[B]``, or
        ``[B, C]`` of zeros and ones if multi-label.
    class_names
        C names.
    names, groups
        See :class:`Predictions`; by default images are numbered.

    Raises
    ------
    ValueError
        If the model is in training mode, or as :class:`Predictions` does.
    """
    if model.training:
        raise ValueError("the model is in training mode; call its eval() first")
    pairs = [
        (model(batch.images).cpu().double(), batch.needed("labels").cpu())
        for batch in map(Batch.of, batches)
    ]
    if not pairs:
        raise ValueError("there are no images to evaluate")
    logits, labels = (torch.cat(each) for each in zip(*pairs, strict=True))
    logits = class_logits(logits, TASKS[labels.dim() - 1])
    probabilities = logits.sigmoid() if labels.dim() == 2 else logits.softmax(1)
    names = [str(number) for number in range(len(labels))] if names is None else list(names)
    return Predictions(names, labels.long().numpy(), probabilities.numpy(), class_names, groups)
