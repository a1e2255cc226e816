"""Train a classifier by any method, with Lightning."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from typing_extensions import Self

from faster_isnet.common.batch import Batch, says_too_few_samples
from faster_isnet.common.checks import (
    check_choice,
    check_mask_values,
    check_range,
)
from faster_isnet.common.recipes import Recorded
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.mixing import Mixing, MixingName
from faster_isnet.models.weight_files import read_checkpoint
from faster_isnet.training.background_scores import BackgroundScores
from faster_isnet.training.checkpoint_arguments import construct, describe, kept_arguments
from faster_isnet.training.convergence import ConvergenceChecks
from faster_isnet.training.finite_steps import FiniteSteps
from faster_isnet.training.frozen_backbone import ALL_EPOCHS, Backbone, FrozenBackbone
from faster_isnet.training.logged_values import accuracy_of, stage_of_loader
from faster_isnet.training.random_states import random_states, restore_random_states
from faster_isnet.training.schedules import (
    CONSTANT,
    EPOCH,
    LEARNING_RATES,
    MILESTONES,
    ONE_CYCLE,
    OPTIMIZERS,
    SCHEDULES,
    STEP,
    OptimizerFactory,
    OptimizerName,
    Parameters,
    ScheduleName,
    SchedulerFactory,
    build_optimizer,
    build_schedule,
    make_schedule,
)
from faster_isnet.training.training_checks import TrainingChecks

log = logging.getLogger(__name__)


class LitClassifier(Recorded, lightning.LightningModule):
    """A classifier and the method that it is trained by, as a Lightning module.

    Batches are ``(images, labels, masks)``, ``(images, labels)`` where no sample has a mask,
    ``(images, labels, masks, attributes)`` where groups are known, or dictionaries, see
    :class:`~faster_isnet.methods.Batch`.

    Logs ``train/loss``, ``train/classification``, ``train/accuracy`` and the parts that the method
    names (the ISNet's is ``train/heatmap``), and the same under ``val/`` and ``test/``; with
    several loaders under ``val/NAME/``, NAME being the loader's key if they are given as a dict
    (``"val"`` itself goes without), its number if as a list. All are means over the samples of all
    processes. Validation also logs ``val/background_error`` and ``val/worst_accuracy``, of images
    with replaced backgrounds: monitor the first to keep the best epoch, see
    :class:`~faster_isnet.training.background_scores.BackgroundScores`.

    Checkpoints hold the state of each process's random number generators, so that a
    resumed run of as many processes goes on as if it had not stopped.

    A last batch of a single sample, which batch norm cannot be trained on, is left out with a
    warning.

    Parameters
    ----------
    classifier
        Maps images ``[B, C_in, ...]`` to logits ``[B, C]``, or to a single logit for yes or no.
    method
        How it is trained, such as :class:`~faster_isnet.methods.ISNetMethod`.
    optimizer
        ``"sgd"``, ``"adam"``, ``"adamw"``; or a class of ``torch.optim``, or a function that makes
        an optimiser of parameters (``functools.partial(torch.optim.SGD, nesterov=True, …)``).
    learning_rate
        The largest learning rate, > 0. ``None`` is 0.002 for ``"adam"`` and ``"adamw"``
        (``docs/results/recipe.md``), 0.01 for ``"sgd"``; a class or function keeps its own.
    momentum
        Of ``"sgd"``, in [0, 1].
    weight_decay
        ≥ 0, of an optimiser by name.
    schedule
        ``"constant"``, ``"cosine"``, ``"one-cycle"`` or ``"milestones"``, see
        :func:`~faster_isnet.training.schedules.build_schedule`; or a class of
        ``torch.optim.lr_scheduler``, or a function that makes a schedule of an optimiser. ``None``
        is ``"milestones"`` if there are any, else ``"one-cycle"``.
    schedule_interval
        ``"epoch"`` or ``"step"``: when a schedule that is a class or function is stepped.
    schedule_monitor
        The logged value that ``torch.optim.lr_scheduler.ReduceLROnPlateau`` follows.
    warmup_epochs
        For how long the learning rate rises linearly first, ≥ 0, in epochs, with a schedule by
        name. ``None`` is 0, and the schedule's own rise for ``"one-cycle"``.
    milestones, milestone_factor
        The epochs after which the learning rate is multiplied by the factor.
    gradient_clip
        The largest norm of the gradient; ``None`` for no clipping. Lightning's own
        ``Trainer(gradient_clip_val=…)`` goes before it.
    mixing
        ``"mixup"`` or ``"cutmix"``: training images are mixed with others of the batch, with their
        masks and labels, see :class:`~faster_isnet.methods.mixing.Mixing`. ``None``, the default,
        for neither. ``train/accuracy`` is the share of images that are given the larger of
        their two labels then, which is lower than that of images as they are. Validation and tests
        never mix.
    mixing_alpha
        α > 0 of ``mixing``; ``None`` is 0.2 for mixup and 1 for CutMix.
    frozen_epochs
        For how many epochs the classifier keeps its weights but for its head, and the statistics of
        its batch norms, ≥ 0; ``-1`` for all epochs. It makes sense where the weights are
        pretrained and the head is new. What the method adds to the classifier is trained. Several
        processes need ``Trainer(strategy="ddp_find_unused_parameters_true")``, see
        :class:`~faster_isnet.training.frozen_backbone.FrozenBackbone`.
    backbone_learning_rate_factor
        What the learning rate is multiplied by for all of the classifier but its head, > 0; smaller
        than 1 changes pretrained weights less. If it is not 1, an optimiser that is a function gets
        two groups of parameters, of which the second is this.
    head
        Name of the classifier's head, as in ``named_modules()``, for these two; ``None`` for the
        linear layer that runs last on a black image (of the method's ``image_shape``, if it has
        one), or what timm says.

    Attributes
    ----------
    net : torch.nn.Module
        The network that is trained: what the method makes of the classifier.
    method : Method
        The method.

    Raises
    ------
    TypeError
        If the classifier is no module or the method no :class:`~faster_isnet.methods.Method`.
    ValueError
        If a name is unknown or a number is out of range; if the method cannot be trained on mixed
        images; if the head is needed and cannot be told from the rest, or the method trains
        something else than the classifier.
    ValueError
        In training, as :class:`~faster_isnet.training.training_checks.TrainingChecks` does: if no
        sample of the first epoch has a mask and the method needs some.
    FloatingPointError
        In training, if a loss or the gradient is not finite: names the batch and the part. The
        weights and the checkpoints that were written before are left as they are.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from faster_isnet.methods import Standard
    >>> lit = LitClassifier(resnet18(num_classes=3), Standard(), schedule="cosine")
    >>> lit(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 3])
    """

    net: nn.Module
    method: Method

    def __init__(
        self,
        classifier: nn.Module,
        method: Method,
        *,
        optimizer: OptimizerName | OptimizerFactory = "adamw",
        learning_rate: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: ScheduleName | SchedulerFactory | None = None,
        schedule_interval: str = EPOCH,
        schedule_monitor: str = "val/loss",
        warmup_epochs: float | None = None,
        milestones: Sequence[int] = (),
        milestone_factor: float = 0.1,
        gradient_clip: float | None = 1.0,
        mixing: MixingName | None = None,
        mixing_alpha: float | None = None,
        frozen_epochs: int = 0,
        backbone_learning_rate_factor: float = 1.0,
        head: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(method, Method):
            raise TypeError(
                f"method must be a faster_isnet.methods.Method, got {type(method).__name__}"
            )
        if not isinstance(classifier, nn.Module):
            raise TypeError(
                f"classifier must be a torch.nn.Module, got {type(classifier).__name__}"
            )
        if mixing is None and mixing_alpha is not None:
            raise ValueError(
                f"mixing_alpha={mixing_alpha!r} is of images that are mixed; set mixing='mixup' or "
                "'cutmix' as well"
            )
        method.mixing = None if mixing is None else Mixing(mixing, mixing_alpha)
        self.method = method
        self.net = method.build(classifier)
        self._finite_steps = FiniteSteps()
        if isinstance(optimizer, str):
            check_choice("optimizer", optimizer, OPTIMIZERS)
        self.optimizer = optimizer
        if learning_rate is not None:
            check_range("learning_rate", learning_rate, 0, open_low=True)
        self.learning_rate = learning_rate
        self.momentum = check_range("momentum", momentum, 0, 1)
        self.weight_decay = check_range("weight_decay", weight_decay, 0)
        if isinstance(schedule, str):
            check_choice("schedule", schedule, SCHEDULES)
        by_default = MILESTONES if milestones else ONE_CYCLE
        self.schedule = by_default if schedule is None else schedule
        if milestones and self.schedule != MILESTONES:
            raise ValueError(
                f"milestones={list(milestones)} are of schedule='milestones', got {schedule!r}"
            )
        self.schedule_interval = check_choice("schedule_interval", schedule_interval, (EPOCH, STEP))
        self.schedule_monitor = schedule_monitor
        if warmup_epochs is not None:
            check_range("warmup_epochs", warmup_epochs, 0)
            if warmup_epochs and not isinstance(self.schedule, str):
                raise ValueError(
                    f"warmup_epochs={warmup_epochs} is for a schedule by name; put the warm-up "
                    "into your own (torch.optim.lr_scheduler.SequentialLR)"
                )
        self.warmup_epochs = warmup_epochs
        self.milestones = list(milestones)
        self.milestone_factor = check_range(
            "milestone_factor", milestone_factor, 0, 1, open_low=True
        )
        if gradient_clip is not None:
            check_range("gradient_clip", gradient_clip, 0, open_low=True)
        self.gradient_clip = gradient_clip
        self.frozen_epochs = int(check_range("frozen_epochs", frozen_epochs, ALL_EPOCHS))
        self.backbone_learning_rate_factor = check_range(
            "backbone_learning_rate_factor", backbone_learning_rate_factor, 0, open_low=True
        )
        self._backbone = self._find_backbone(classifier, head)

    def _find_backbone(self, classifier: nn.Module, head: str | None) -> Backbone | None:
        """Find what is frozen or has a learning rate of its own; ``None`` if nothing has."""
        if self.frozen_epochs == 0 and self.backbone_learning_rate_factor == 1:
            if head is not None:
                raise ValueError(
                    f"head={head!r} is of frozen_epochs and backbone_learning_rate_factor; give "
                    "one of them, or leave it out"
                )
            return None
        shape = self.method.image_shape
        like = next(classifier.parameters(), torch.empty(0))
        images = None if shape is None else like.new_zeros(1, *shape)
        backbone = Backbone(classifier, head, images)
        trained = set(map(id, self.net.parameters()))
        if not all(id(parameter) in trained for parameter in backbone.parameters):
            raise ValueError(
                f"{type(self.method).__name__} trains something else than the classifier, so "
                "nothing of that can be frozen or have a learning rate of its own; leave out "
                "frozen_epochs and backbone_learning_rate_factor"
            )
        return backbone

    @property
    def deployed(self) -> nn.Module:
        """The network to use, save and export after the training."""
        return self.method.deployed(self.net)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of ``images``."""
        return self.net(images)  # type: ignore[no-any-return]

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the logits ``[B, C]`` of a batch."""
        return self.deployed(self.method.inputs(Batch.of(batch)))  # type: ignore[no-any-return]

    def on_train_epoch_start(self) -> None:
        """Tell the method which epoch it is."""
        self.method.set_progress(self.current_epoch, self.global_step)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Read the batch, and check its values before they go to an accelerator.

        There, reading them would wait for all that the device computes.
        """
        named = Batch.of(batch)
        # On a CPU the training step checks. What is only predicted has no labels.
        if self.device.type != "cpu" and named.labels is not None:
            self.method.check_pixels(self.net, named.images)
            if named.masks is not None and self.method.reads_masks():
                check_mask_values(named.masks)
        return named

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Return the loss of a batch, ``None`` for one that is left out."""
        batch = Batch.of(batch)
        self.method.set_progress(self.current_epoch, self.global_step)
        where = f"batch {batch_idx} of epoch {self.current_epoch}"
        try:
            losses = self.method.training_losses(self.net, batch)
        except FloatingPointError as error:
            raise FloatingPointError(f"{where}: {error}") from error
        except ValueError as error:
            if batch_idx > 0 and says_too_few_samples(error):
                log.warning("%s is left out: batch norm needs more than one sample", where)
                return None
            raise ValueError(f"{where}: {error}") from error
        self._finite_steps.keep(losses, where)
        self._log_losses("train", losses, batch)
        return losses.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before the weights change if a loss or the gradient is not finite."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        # A scaler has infinite gradients now and then, and leaves out the step itself.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self._finite_steps.check([] if scaled else [g for g in gradients if g is not None])

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor | None]:
        """Log the losses and the accuracy of a batch; return logits, and of which samples."""
        loaders = self.trainer.val_dataloaders
        losses = self._evaluate("val", loaders, Batch.of(batch), dataloader_idx)
        return {"logits": losses.logits.detach(), "samples": losses.samples}

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the losses and the accuracy of a batch."""
        self._evaluate("test", self.trainer.test_dataloaders, Batch.of(batch), dataloader_idx)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser, with its schedule if the learning rate changes."""
        optimizer = self.build_optimizer(self._parameters_to_train())
        if self.backbone_learning_rate_factor != 1:
            optimizer.param_groups[1]["lr"] *= self.backbone_learning_rate_factor
        if not isinstance(self.schedule, str):
            scheduler = make_schedule(self.schedule, optimizer)
            interval = self.schedule_interval
        elif self.schedule == CONSTANT and not self.warmup_epochs:
            return optimizer
        else:
            scheduler, interval = self._schedule_by_name(optimizer, self.schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": interval,
                "monitor": self.schedule_monitor,
            },
        }

    def build_optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Return an optimiser of these parameters, or groups of them, as the settings say."""
        rate = self.learning_rate
        options: dict[str, Any] = {} if rate is None else {"lr": rate}
        if isinstance(self.optimizer, str):
            rate = rate or LEARNING_RATES[self.optimizer]
            options = {"lr": rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            options["momentum"] = self.momentum
        return build_optimizer(self.optimizer, parameters, options)

    def configure_callbacks(self) -> list[lightning.Callback]:
        """Return the callbacks that the method needs, and those of all trainings."""
        frozen = self._backbone and [FrozenBackbone(self._backbone, self.frozen_epochs)]
        checks = [
            TrainingChecks(self.method, self.net),
            ConvergenceChecks(self.method, self.frozen_epochs),
        ]
        return [*(frozen or ()), *self.method.callbacks(), *checks, BackgroundScores(self.method)]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says, or else at the norm of this module."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif self.gradient_clip is not None:
            self.clip_gradients(optimizer, self.gradient_clip, "norm")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the states of all processes' random number generators, and the method's state."""
        checkpoint["random_states"] = random_states()
        checkpoint["method_state"] = self.method.state()
        checkpoint.update(describe(self))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the random number generators and the method's state."""
        self._load_method_state(checkpoint)
        restore_random_states(checkpoint.get("random_states", []), self.global_rank)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        strict: bool = True,
        weights_only: bool | None = True,
        **arguments: Any,
    ) -> Self:
        """Read a checkpoint of this class.

        Parameters
        ----------
        checkpoint_path
            The file. Only tensors and plain values are read: code that it holds is never run.
        map_location
            As ``torch.load`` has it: the device that the weights, and so the module, go to.
        strict
            Whether all weights must be in the file, and no others.
        weights_only
            True: nothing else is ever read.
        **arguments
            Arguments of this class, which go before those that the checkpoint keeps. All that were
            plain values or parts of this library, such as a network of
            :func:`~faster_isnet.models.build_backbone`, need not be given; modules and functions of
            your own must be.

        Raises
        ------
        TypeError
            If an argument is missing that the checkpoint could not keep.
        ValueError
            If the checkpoint was written by another class, or by a method whose module has not been
            imported; if its weights do not fit; if ``weights_only`` is False.
        """
        if weights_only is False:
            raise ValueError("weights_only=False would run code of the file; it must be True")
        content = read_checkpoint(checkpoint_path, map_location)
        made = construct(cls, content, cls._arguments_of(content, arguments) | arguments)
        made._load_method_state(content)
        weights = (each for each in content["state_dict"].values() if isinstance(each, Tensor))
        made.to(next(weights, torch.empty(0)).device)
        try:
            made.load_state_dict(content["state_dict"], strict=strict)
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {str(checkpoint_path)!r} do not fit: {error}"
            ) from error
        return made

    @classmethod
    def _arguments_of(cls, content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that a checkpoint keeps, without those that are given."""
        return kept_arguments(content, given)

    def _load_method_state(self, checkpoint: Mapping[str, Any]) -> None:
        # Before 0.2 there was one method, and its C1 and C2 lay beside the weights.
        before = {"cuts": checkpoint["cuts"]} if "cuts" in checkpoint else {}
        self.method.load_state(checkpoint.get("method_state", before))

    def _parameters_to_train(self) -> Parameters:
        """Return the network's parameters, and those of the method; the backbone's as a group."""
        parameters = [*self.net.parameters(), *self.method.parameters()]
        if self._backbone is None or self.backbone_learning_rate_factor == 1:
            return parameters
        slow = set(map(id, self._backbone.parameters))
        others = [parameter for parameter in parameters if id(parameter) not in slow]
        return [{"params": others}, {"params": self._backbone.parameters}]

    def _schedule_by_name(
        self, optimizer: torch.optim.Optimizer, name: str
    ) -> tuple[torch.optim.lr_scheduler.LRScheduler, str]:
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError(
                f"schedule={name!r} needs the length of the training; set max_epochs or max_steps"
            )
        batches = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        per_epoch = math.ceil(min(batches, steps))  # endless data are one epoch
        warmup = None if self.warmup_epochs is None else round(self.warmup_epochs * per_epoch)
        if warmup and self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            warmup = min(warmup, int(steps) - 1)
        return build_schedule(
            optimizer,
            name,
            int(steps),
            per_epoch,
            warmup_steps=warmup,
            milestones=self.milestones,
            factor=self.milestone_factor,
        )

    def _evaluate(self, stage: str, loaders: Any, batch: Batch, index: int) -> Losses:
        with ExitStack() as stack:
            if self.method.needs_gradients_in_validation:
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.enable_grad())
                batch = batch.clone()
            losses = self.method.losses(self.net, batch)
        self._log_losses(stage_of_loader(stage, loaders, index), losses, batch)
        return losses

    def _log_losses(self, stage: str, losses: Losses, batch: Batch) -> None:
        labels = batch.needed("labels") if losses.labels is None else losses.labels
        labels = labels if losses.samples is None else labels[losses.samples]
        accuracy = accuracy_of(losses.logits, labels, self.method.task)
        shown = {"loss": losses.total, "accuracy": accuracy}
        kept = {"classification": losses.classification, **losses.parts}
        for values, in_progress_bar in ((shown, True), (kept, False)):
            self.log_dict(
                {f"{stage}/{name}": value.detach() for name, value in values.items()},
                on_step=False,
                on_epoch=True,
                prog_bar=in_progress_bar,
                batch_size=len(losses.logits),
                sync_dist=True,
                add_dataloader_idx=False,
            )
