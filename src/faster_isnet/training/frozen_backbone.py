"""Keep the weights of a pretrained backbone as they are for the first epochs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import lightning
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from faster_isnet.methods.stages import module_name
from faster_isnet.models.heads import head_names

log = logging.getLogger(__name__)

ALL_EPOCHS = -1
"""For how many epochs a backbone is frozen that is never trained."""
_FIND_UNUSED = "find_unused_parameters"


class Backbone:
    """All of a classifier but its head: parameters to freeze, and modules to evaluate meanwhile.

    Parameters
    ----------
    classifier
        From images to logits.
    head
        Name of its head; ``None`` for what :func:`~faster_isnet.models.heads.head_names` finds.
    images
        Images ``[B, ...]`` to find it by; by default one black image.

    Attributes
    ----------
    head : list of str
        Names of the modules that are the head.
    parameters : list of torch.nn.Parameter
        Those that are trained, but for the head's.

    Raises
    ------
    ValueError
        If the head cannot be told from the rest, or there is no rest.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> backbone = Backbone(resnet18())
    >>> backbone.head, sum(each.numel() for each in backbone.parameters)
    (['fc'], 11176512)
    """

    def __init__(
        self, classifier: nn.Module, head: str | None = None, images: Tensor | None = None
    ) -> None:
        self.head = _head(classifier, head, images)
        of_head = [p for name in self.head for p in classifier.get_submodule(name).parameters()]
        left_out = set(map(id, of_head))
        trained = (p for p in classifier.parameters() if p.requires_grad)
        self.parameters = [p for p in trained if id(p) not in left_out]
        if not self.parameters:
            raise ValueError(
                f"{type(classifier).__name__} has no weights to train but those of its head, "
                f"{self.head[0]!r}; leave out frozen_epochs and backbone_learning_rate_factor, or "
                "name a smaller head: head=…"
            )
        self._modules = list(_beside(classifier, self.head))
        self._modes: list[tuple[nn.Module, bool]] | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether it keeps its weights."""
        return self._modes is not None

    def freeze(self) -> None:
        """Have it keep its weights, and the statistics of its batch norms; again if need be."""
        if self._modes is None:
            whole = [each for module in self._modules for each in module.modules()]
            self._modes = [(module, module.training) for module in whole]
            for parameter in self.parameters:
                parameter.requires_grad_(False)
        for module in self._modules:
            module.eval()

    def unfreeze(self) -> None:
        """Have it trained again, each module in the mode that it was in."""
        if self._modes is None:
            return
        for module in self._modules:
            module.train()  # clears what some networks keep of their weights while evaluated
        for module, training in self._modes:
            module.training = training
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self._modes = None


class FrozenBackbone(lightning.Callback):
    """Train the head alone for the first epochs, then all.

    Frozen weights are in the optimiser from the beginning, but have no gradient, without which
    optimisers pass them over, weight decay included. So the schedule of learning rates is one for
    the whole training, and a checkpoint of any epoch can be gone on from; Lightning's
    ``BaseFinetuning``, which adds weights to the optimiser later, fits no one-cycle schedule. A
    frozen backbone is in evaluation mode: batch norms use the statistics that they have (with
    ``BaseFinetuning`` those of the batch), and dropout, but for that directly before the head, is
    off.

    After the training, and if it ends in an error, all can be trained again.

    Parameters
    ----------
    backbone
        What is frozen.
    epochs
        For how many epochs; 0 for none, ``-1`` for all.

    Raises
    ------
    ValueError
        When a training is set up, if its strategy shares out the weights (FSDP, DeepSpeed), or does
        not look for parameters without gradient (DDP without ``find_unused_parameters=True``).
    """

    def __init__(self, backbone: Backbone, epochs: int) -> None:
        super().__init__()
        self._backbone, self._epochs = backbone, epochs

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that the strategy can do it."""
        strategy = trainer.strategy
        if stage != "fit" or isinstance(strategy, SingleDeviceStrategy):
            return
        if not isinstance(strategy, DDPStrategy):
            raise ValueError(
                "frozen_epochs and backbone_learning_rate_factor know a single device and ddp, not "
                f"{type(strategy).__name__}; choose one of them (--trainer.strategy), or leave "
                "these options out"
            )
        if self._epochs and not strategy._ddp_kwargs.get(_FIND_UNUSED, False):
            raise ValueError(
                f"frozen_epochs is {self._epochs}: by ddp, weights can be frozen only if it looks "
                f"for those without gradient; give --trainer.strategy ddp_{_FIND_UNUSED}_true"
            )

    # Not when an epoch starts, which Lightning does not say of one that is gone on with.
    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Freeze or unfreeze as the epoch says; what has been set to training mode since, too."""
        before = self._backbone.is_frozen
        if self._epochs == ALL_EPOCHS or trainer.current_epoch < self._epochs:
            self._backbone.freeze()
        else:
            self._backbone.unfreeze()
        if self._backbone.is_frozen != before and trainer.is_global_zero:
            self._tell(trainer, pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Unfreeze."""
        self._backbone.unfreeze()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Unfreeze."""
        self._backbone.unfreeze()

    def _tell(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        if not self._backbone.is_frozen:
            log.info(
                "Unfrozen in epoch %d: %s parameters are trained", self._epochs, f"{trained:,}"
            )
            return
        frozen = sum(p.numel() for p in self._backbone.parameters)
        until = f"until epoch {self._epochs}"
        if self._epochs == ALL_EPOCHS:
            until = "in all epochs"
        elif 0 <= (trainer.max_epochs or 0) <= self._epochs:
            until += f", which is after the last of this training's {trainer.max_epochs}"
        log.info(
            "Frozen %s: %s parameters of the backbone, and the statistics of its batch norms; "
            "trained are %s others, the head's (%s) among them",
            *(until, f"{frozen:,}", f"{trained:,}", ", ".join(self._backbone.head)),
        )


def _head(classifier: nn.Module, head: str | None, images: Tensor | None) -> list[str]:
    """Return the names of what is the head, as given or as found."""
    if head is None:
        try:
            return head_names(classifier, images)
        except ValueError as error:
            raise ValueError(
                "frozen_epochs and backbone_learning_rate_factor must know the head of "
                f"{type(classifier).__name__}, and {error}; or name it: head=…"
            ) from error
    name = module_name(classifier, head)
    known = [each for each, _ in classifier.named_modules() if each]
    if name not in known:
        raise ValueError(
            f"head is {head!r}, but {type(classifier).__name__} has no such module; its last are: "
            f"{', '.join(known[-5:])}"
        )
    return [name]


def _beside(module: nn.Module, head: list[str], prefix: str = "") -> Iterator[nn.Module]:
    """Yield the largest modules that have nothing of the head in them, and are not in it."""
    for name, child in module.named_children():
        path = prefix + name
        if path in head:
            continue
        if any(each.startswith(f"{path}.") for each in head):
            yield from _beside(child, head, f"{path}.")
        else:
            yield child
