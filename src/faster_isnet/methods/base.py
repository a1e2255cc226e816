"""What a method is: how a classifier is trained with masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_image_values
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.common.logits import class_logits
from faster_isnet.common.precision import autocasts
from faster_isnet.common.recipes import Recorded
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.mixing import Mixing


@dataclass(frozen=True)
class Losses:
    """What a method returns for a batch.

    Attributes
    ----------
    total
        A scalar: what to minimise.
    logits
        ``[B, C]``, of the samples of the batch, in their order; for the accuracy.
    classification
        A scalar: the classification loss alone.
    parts
        Other scalars to log, by name.
    samples
        ``[B]`` of booleans: which samples of the batch the logits are of; ``None`` for all.
    labels
        Of all samples of the batch, the labels that were trained on where they are not the batch's
        own, as those of mixed images; ``None`` for the batch's.
    """

    total: Tensor
    logits: Tensor
    classification: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    samples: Tensor | None = None
    labels: Tensor | None = None


class Method(Recorded, nn.Module, ABC):
    """How a classifier is trained with masks.

    All else (optimiser, schedule, gradient clipping, logs, checkpoints, evaluation, export) knows
    only this interface, so a new method is one class: in a new file of ``faster_isnet/methods``,
    where the command line finds it by its :attr:`name`, or anywhere else, where the command line
    finds it by its path (``--method my_module.MyMethod``). Its options are the arguments of its
    ``__init__``, documented in its docstring.

    Only :meth:`losses` must be defined.

    Parameters
    ----------
    classification
        The classification loss; ``None`` for cross-entropy.

    Attributes
    ----------
    name
        What the command line calls the method; ``None`` for its class path alone.
    needs_gradients_in_validation
        Whether :meth:`losses` differentiates, so that validation must not disable it.
    image_shape
        ``(C, H, W)`` of the images to train on, set before :meth:`build` where it is known;
        otherwise ``None``.
    falling_parts
        Which parts of the loss fall in a training that works, with what to do if one does not.
    rare_parts
        Which parts are shares of the validation images that are below a half after a training that
        works, with what to do if one is not.
    needs_every_mask
        Whether :meth:`inputs` needs the mask of each image. Commands then leave images without one
        out of a training, refuse them in a test, and refuse to use the network where there are no
        masks.
    mixings
        By which kinds of :class:`~faster_isnet.methods.mixing.Mixing` training images may be
        mixed: where the loss is right for two foregrounds in one image, and for soft labels. None,
        unless a method says so.

    Examples
    --------
    >>> import torch
    >>> class Blackened(Method):
    ...     def losses(self, network, batch):
    ...         logits = network(batch.images * (batch.masks != 0))
    ...         loss = self.classification(logits, batch.labels)
    ...         return Losses(loss, logits, loss)
    >>> batch = Batch(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 1, 0]), torch.ones(4, 1, 2, 2))
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> Blackened().losses(network, batch).logits.shape
    torch.Size([4, 2])
    """

    name: ClassVar[str | None] = None
    needs_gradients_in_validation: bool = False
    image_shape: tuple[int, int, int] | None = None
    falling_parts: Mapping[str, str] = MappingProxyType({})
    rare_parts: Mapping[str, str] = MappingProxyType({})
    needs_every_mask: bool = False
    mixings: Collection[str] = ()
    _mixing: Mixing | None = None
    _classes: int | None = None  # found where they are needed, to make soft labels of indices

    def __init__(self, classification: ClassificationLoss | None = None) -> None:
        super().__init__()
        self.classification = ClassificationLoss() if classification is None else classification

    @property
    def task(self) -> str:
        """``"multiclass"`` or ``"multilabel"``."""
        return self.classification.task

    @task.setter
    def task(self, task: str) -> None:
        self.classification.task = task

    def build(self, classifier: nn.Module) -> nn.Module:
        """Return the network to train, made of a classifier from images to logits.

        By default the classifier itself. All parameters of the result are trained.
        """
        return classifier

    def summary(self) -> str:
        """Return in a few words what the training does with backgrounds, for the log.

        Empty, the default, for nothing.
        """
        return ""

    def deployed(self, network: nn.Module) -> nn.Module:
        """Return the network to use after the training, from images to logits, without masks.

        Parameters
        ----------
        network
            What :meth:`build` returned.
        """
        return network

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the losses of a batch.

        Parameters
        ----------
        network
            What :meth:`build` returned, in training mode, or in evaluation mode for validation.
        batch
            Images, labels and masks.
        """

    def training_losses(self, network: nn.Module, batch: Batch) -> Losses:
        """Return the losses of a batch in training: of mixed images, if so chosen.

        A method whose training differs more from validation defines it; one with :attr:`mixings`
        then calls :meth:`mixed`.
        """
        mixed = self.mixed(network, batch)
        return replace(self.losses(network, mixed), labels=mixed.labels)

    @property
    def mixing(self) -> Mixing | None:
        """How training images are mixed; ``None``, the default, for not at all.

        Raises
        ------
        ValueError
            When it is set, if the method is not among those that can be trained on such images.
        """
        return self._mixing

    @mixing.setter
    def mixing(self, mixing: Mixing | None) -> None:
        if mixing is not None and mixing.kind not in self.mixings:
            known = f"{' or '.join(map(repr, self.mixings)) or 'no mixing'} alone"
            raise ValueError(
                f"mixing={mixing.kind!r} is not for method {self.name or type(self).__name__!r} as "
                f"it is set, whose loss is right for {known} (see its documentation); leave mixing "
                "out, or train by isnet, swap or standard. A method of your own says in its "
                "attribute `mixings` which it takes"
            )
        self._mixing, self._classes = mixing, None

    def mixed(self, network: nn.Module, batch: Batch) -> Batch:
        """Return a training batch with its images mixed, or the same if none are to be.

        Backgrounds are swapped before: an image lends its background without a foreground in it,
        and by mixup, what shines through of a background in the foreground of another image then
        says nothing of a class.

        Parameters
        ----------
        network
            What :meth:`build` returned.
        batch
            Images, labels and masks.
        """
        if self._mixing is None:
            return batch
        if self._classes is None:
            self._classes = self._count_classes(network, batch.images)
        by_masks = self.reads_masks()
        return self._mixing(batch, self._classes, self.task, by_masks=by_masks)

    def _count_classes(self, network: nn.Module, images: Tensor) -> int:
        """Return how many classes a network has, which runs for it, unchanged, on one image."""
        # Autocast would keep the weights that it casts here, which have no gradient.
        device = images.device.type
        exact = torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()
        with eval_mode(network), torch.no_grad(), exact:
            logits = self.deployed(network)(images[:1])
        return class_logits(logits, self.task).shape[1]

    def inputs(self, batch: Batch) -> Tensor:
        """Return what the deployed network is given in a test; by default the images."""
        return batch.images

    def check_pixels(self, network: nn.Module, images: Tensor) -> None:
        """Check the values of a batch's images, in host memory, before they go to an accelerator.

        Parameters
        ----------
        network
            What :meth:`build` returned.
        images
            ``[B, C, ...]``.

        Raises
        ------
        ValueError
            If they cannot be trained on; by default if a value is not finite.
        """
        check_image_values(images)

    def see_image_shape(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Take the shape of the images before a training by ``fit`` begins; by default ignored.

        Parameters
        ----------
        network
            What :meth:`build` returned.
        image_shape
            ``(C, H, W)``.

        Raises
        ------
        ValueError
            If the network cannot be trained on images of this shape.
        """

    def set_progress(self, epoch: int, step: int) -> None:
        """Take the number of the epoch and of the optimiser step, from 0; for schedules."""

    def callbacks(self) -> list[Callback]:
        """Return Lightning callbacks that the training needs."""
        return []

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep beside weights: tensors and plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""

    def needs_masks(self) -> bool:
        """Whether a training without a single mask would not be this method's; by default no."""
        return False

    def reads_masks(self) -> bool:
        """Whether the masks of the next batch are used, and must be valid."""
        return True

    def check_precision(self, network: nn.Module, precision: str) -> None:
        """Check that a network can be trained in a precision; by default any.

        Parameters
        ----------
        network
            What :meth:`build` returned.
        precision
            Of a Lightning trainer, such as ``"32-true"`` or ``"bf16-mixed"``.

        Raises
        ------
        ValueError
            If it cannot.
        """
