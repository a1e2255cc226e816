"""Declare what data must offer to be trained and evaluated on by the commands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningDataModule

from faster_isnet.common.checks import check_choice
from faster_isnet.data.division import Division


class ClassifierData(LightningDataModule, ABC):
    """Provide images, labels and masks to ``faster-isnet fit``, ``validate`` and ``test``.

    A subclass defines the loaders of Lightning as well. Those of validation and test are by name,
    or a single one, whose name is that of the stage.

    Attributes
    ----------
    division
        How images were divided in an earlier run; ``None`` where they are divided anew.
    """

    division: Division | None = None

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by index."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images."""

    @property
    def task(self) -> str:
        """``"multiclass"`` or ``"multilabel"``; by default the former."""
        return "multiclass"

    @property
    @abstractmethod
    def datasets(self) -> Mapping[str, Any]:
        """The data sets by name, ``"train"`` and those of the loaders.

        Each is a data set of ``(image, label, mask)`` or ``(image, label, mask, attribute)`` as
        tensors, with ``samples``, a :class:`~faster_isnet.data.Sample` for each item, whose names
        differ.
        """

    def evaluation_sets(self, stage: str) -> dict[str, Any]:
        """Return the data sets of a stage, ``"val"`` or ``"test"``, by name; the order is fixed."""
        check_choice("stage", stage, ("val", "test"))
        loaders = self.val_dataloader() if stage == "val" else self.test_dataloader()
        names = loaders if isinstance(loaders, Mapping) else [stage]
        return {name: self.datasets[name] for name in names}

    def match_classes(self, class_names: Sequence[str]) -> None:
        """Give the classes the indices that they have in a trained network.

        By default their order is fixed, and it is checked.

        Parameters
        ----------
        class_names
            Names of the network's classes, by index.

        Raises
        ------
        ValueError
            If the data have other classes.
        """
        if list(self.class_names) != list(class_names):
            raise ValueError(
                f"the data have the classes {list(self.class_names)}, but the network was trained "
                f"on {list(class_names)}; train a new run on them"
            )

    def record_division(self) -> Division | None:
        """Record which image is in which data set; ``None`` if the settings alone decide that."""
        return None

    def unmasked_images(self, name: str) -> list[str]:
        """Return the names of a data set's images that have no mask."""
        return [sample.name for sample in self.datasets[name].samples if sample.mask is None]

    def leave_out_unmasked(self) -> None:
        """Leave images without a mask out of training and validation.

        By default they stay, and a method that needs every mask leaves them out of each batch.
        """
