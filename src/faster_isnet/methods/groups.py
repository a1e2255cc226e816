"""Find the groups of images, pairs of a label and a spurious attribute, and check them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from typing import Any

import lightning

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_ATTRIBUTE
from faster_isnet.common.processes import gather

log = logging.getLogger(__name__)

Group = tuple[int, int]
"""A label, and what the background shows: an attribute from 0, −1 if it is not known."""
GIVE_ATTRIBUTES = (
    "give batches (images, labels, masks, attributes), or name them in the data: a column "
    "'attribute' of a table (data.fields: {attribute: NAME_OF_THE_COLUMN})"
)


def groups_of(batch: Batch) -> list[Group]:
    """Return the group of each image of a batch; attributes are unknown where it has none.

    Raises
    ------
    ValueError
        If labels are not one class for each image.

    Examples
    --------
    >>> import torch
    >>> labels, attributes = torch.tensor([0, 1, 1]), torch.tensor([2, 2, -1])
    >>> groups_of(Batch(torch.zeros(3, 1, 2, 2), labels, attributes=attributes))
    [(0, 2), (1, 2), (1, -1)]
    """
    labels = batch.needed("labels")
    if labels.dim() != 1 or labels.is_floating_point():
        raise ValueError(
            "groups are of one class and one attribute each, so labels must be class indices "
            f"[B], got {labels.dtype} {list(labels.shape)}; for soft or several labels train with "
            "another method"
        )
    if batch.attributes is None:
        return [(label, NO_ATTRIBUTE) for label in labels.tolist()]
    return list(zip(labels.tolist(), batch.attributes.tolist(), strict=True))


def check_multiclass(task: str, method: str | None) -> None:
    """Check that images have one class each, without which groups are not defined.

    Raises
    ------
    ValueError
        For multi-label data.
    """
    if task != "multiclass":
        raise ValueError(
            f"method {method!r} needs groups, which are of one class and one attribute each, but "
            "the task is 'multilabel'; train a network for each class, or with another method"
        )


def are_tied(groups: Collection[Group]) -> bool:
    """Return whether label and attribute always go together, so that groups tell nothing new.

    They do where each attribute is of one class only, or each class has one attribute only.

    Examples
    --------
    >>> are_tied([(0, 0), (1, 1), (1, 2)]), are_tied([(0, 0), (1, 0), (1, 1)])
    (True, False)
    """
    labels, attributes = ({group[part] for group in groups} for part in (0, 1))
    return len(set(groups)) in (len(labels), len(attributes))


class GroupCheck(lightning.Callback):
    """Check that groups are known in the first epoch, and that they can help.

    Where an epoch is only tried (``fast_dev_run``), an error is a warning.

    Parameters
    ----------
    method
        Name of the method that needs groups, for messages.

    Raises
    ------
    ValueError
        After the first epoch and before its checkpoint, if no image had an attribute.
    """

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method
        self._seen: Counter[Group] | None = None

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Count groups in the first epoch."""
        self._seen = Counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count groups."""
        if self._seen is not None:
            self._seen.update(groups_of(Batch.of(batch)))

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Check the groups of all processes, once."""
        if self._seen is None:
            return
        seen, self._seen = sum(gather(self._seen), Counter[Group]()), None
        known = {group: count for group, count in seen.items() if group[1] != NO_ATTRIBUTE}
        number, of_all = sum(known.values()), sum(seen.values())
        if not known:
            text = (
                f"none of the {of_all} images of the first epoch has an attribute, without which "
                f"method {self._method!r} has no groups; {GIVE_ATTRIBUTES}; or train without "
                "groups: --method standard"
            )
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                raise ValueError(text)
            log.warning("%s", text)
            return
        if are_tied(known):
            log.warning(
                "Each attribute goes with one class only, or each class with one attribute: no "
                "image shows a class on another background, so method %r cannot help. Add images "
                "of other pairs, however few (planted marks: planting.correlation below 1).",
                self._method,
            )
        if number < of_all:
            log.warning(
                "%d of the %d images of the first epoch have no attribute; those of a class are a "
                "group of their own",
                *(of_all - number, of_all),
            )
