"""``faster-isnet fit`` and ``validate``: Lightning's own command line, with our defaults."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from signal import SIGTERM
from typing import Any, Literal

import lightning
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from faster_isnet.commands import missing_masks
from faster_isnet.commands.foreign_classes import OPTION, check_own_classes
from faster_isnet.commands.model_bundle import check_runs
from faster_isnet.commands.run_configuration import (
    HELP_ALL,
    ISNET,
    HelpAll,
    RunParser,
    current_arguments,
    data_options,
    names_a_data_class,
)
from faster_isnet.commands.run_folder import (
    BEST,
    CONFIG,
    CURVES,
    DIVISION,
    LAST,
    MASKS,
    best_checkpoint,
    check_unused,
    checkpoint_folder,
    how_to_go_on,
    last_checkpoint,
    only_writer,
    recorded_division,
    remove_run,
    run_folder,
    save_training_warnings,
)
from faster_isnet.common.checks import check_range
from faster_isnet.common.files import write_atomically
from faster_isnet.common.progress import progress_bar
from faster_isnet.common.stopping import Stopped, stopped_by
from faster_isnet.data import ClassifierData, ImageData
from faster_isnet.methods import Method
from faster_isnet.methods.isnet.cuts import AUTO
from faster_isnet.models.weight_files import read_checkpoint
from faster_isnet.training.background_scores import MONITOR
from faster_isnet.training.checkpoint_files import (
    AtomicCheckpointIO,
    check_complete,
    check_same_optimizer,
    check_weights_fit,
    trained_class_names,
)
from faster_isnet.training.convergence import ConvergenceChecks
from faster_isnet.training.image_classifier import ImageClassifier

log = logging.getLogger(__name__)


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    with users_errors():
        RunCLI(words)


@contextmanager
def users_errors() -> Iterator[None]:
    """Raise Lightning's errors of options as ``ValueError``, and its endings as ``Stopped``."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if "conditioned on metric" not in str(error):  # EarlyStopping's, which has no other type
            raise
        raise ValueError(str(error)) from error
    except SIGTERMException as ending:
        raise Stopped(SIGTERM) from ending


class KeepConfig(SaveConfigCallback):
    """Writes the configuration of a training into its folder.

    How a training was continued is no part of it: the configuration is that of the whole run.
    """

    def save_config(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Write it, if this is a training."""
        if stage == "fit":
            config = self.config.clone()
            config.ckpt_path, config.overwrite, config.trust_config = None, False, False
            if "new_images" in (data := data_options(config)):
                data.new_images = None
            text = self.parser.dump(config, skip_none=False)
            write_atomically(Path(self.config.out) / CONFIG, text.encode())


class RunCLI(LightningCLI):
    """Lightning's command line for image classifiers.

    All that a run leaves lies in one folder, ``--out``: ``config.yaml``, which it was made with,
    ``checkpoints/best.ckpt`` and ``last.ckpt``, and its curves.

    Parameters
    ----------
    words
        The command's name and its arguments.
    trainer_class
        A Lightning trainer, with the methods that are commands.
    """

    def __init__(
        self, words: Sequence[str], trainer_class: type[lightning.Trainer] = lightning.Trainer
    ) -> None:
        if words[0] != "fit":
            check_own_classes(words[1:], f"faster-isnet {words[0]}")
        of_class = names_a_data_class(words[1:])
        self._command = words[0]
        super().__init__(
            ImageClassifier,
            ClassifierData if of_class else ImageData,
            subclass_mode_data=of_class,
            trainer_class=trainer_class,
            args=current_arguments(words),
            parser_class=RunParser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=KeepConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={"max_epochs": 45, "log_every_n_steps": 10},
            parser_kwargs={"prog": "faster-isnet"},
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the trainer's method that is called, and the arguments that it has anyway.

        A parser of the other commands would be built for nothing.
        """
        return {self._command: LightningCLI.subcommands()[self._command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where a run goes, how its best epoch is chosen, and what the data tell the model."""
        parser.add_argument(HELP_ALL, action=HelpAll, help="show all options, and exit")
        parser.add_argument(
            "--out", type=str, default="run", help="folder of the run (default: run)"
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="of fit: replace an earlier run in the folder, and what was tested of it",
        )
        parser.add_argument(
            OPTION,
            type=bool,
            default=False,
            help="of other commands than fit: import the classes that a configuration names, also "
            "those of other libraries, which runs their code; on the command line only",
        )
        parser.add_argument(
            missing_masks.OPTION,
            type=Literal[missing_masks.CHOICES] | None,
            default=None,
            help="what to do with training images without a mask, where the method uses masks: "
            "draw their masks with a segmenter that is trained on the masks there are; leave_out "
            "the images; or keep them, which teaches the network to use their background "
            "(default: draw, if there are enough to learn from)",
        )
        parser.add_argument(
            "--drawn_masks",
            type=str | None,
            default=None,
            help="folder that missing masks are drawn into; those that it has for the same images "
            "are used again, so that trainings can share them (default: masks, in the run's "
            "folder)",
        )
        parser.add_subclass_arguments(Method, "method")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "method": {
                    "class_path": ISNET,
                    "init_args": {
                        "loss": {"class_path": "ISNetLoss", "init_args": {"cut_low": AUTO}}
                    },
                },
                "checkpoint.monitor": MONITOR,
                "checkpoint.filename": BEST,
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("out", "trainer.default_root_dir")
        parser.link_arguments("out", "checkpoint.dirpath", compute_fn=_checkpoints)
        parser.link_arguments("data.class_names", "model.class_names", apply_on="instantiate")
        parser.link_arguments("data.image_shape", "model.image_shape", apply_on="instantiate")
        parser.link_arguments("data.task", "model.task", apply_on="instantiate")
        parser.link_arguments("method", "model.method", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Find the checkpoint that is evaluated or trained on."""
        super().parse_arguments(parser, args)
        options = self._options
        seed = options.seed_everything
        if isinstance(seed, int) and not isinstance(seed, bool):
            check_range("seed_everything", seed, 0, 2**32 - 1)
        out = Path(options.out)
        if self._trains:
            if options.trust_config:
                raise ValueError(f"{OPTION} is of other commands; fit trusts its configuration")
            if options.model.frozen_epochs and not options.model.pretrained:
                raise ValueError(
                    f"--model.frozen_epochs {options.model.frozen_epochs} would keep random "
                    "weights as they are; start from pretrained ones (--model.pretrained), or "
                    "leave it out"
                )
            if options.ckpt_path == LAST:
                options.ckpt_path = str(last_checkpoint(out))
        elif options.overwrite:
            raise ValueError(f"--overwrite is of fit; {self.config.subcommand} replaces no run")
        if options.ckpt_path == BEST or (options.ckpt_path is None and not self._trains):
            options.ckpt_path = str(best_checkpoint(out))

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the options of a checkpoint do not replace those that the user gives."""

    @property
    def _options(self) -> Namespace:
        options: Namespace = self.config[self.config.subcommand]
        return options

    @property
    def _trains(self) -> bool:
        return bool(self.config.subcommand == "fit")

    def instantiate_classes(self) -> None:
        """Construct data, model and trainer; the data are divided as the checkpoint's run was."""
        options = self._options
        config = self.config
        if options.ckpt_path is not None and data_options(options).get("division", "") is None:
            recorded = recorded_division(run_folder(Path(options.ckpt_path)))
            config = self.config.clone()
            data_options(config[config.subcommand]).division = recorded
        self.config_init = self.parser.instantiate_classes(config)
        made = self.config_init[config.subcommand]
        self.datamodule, self.model = made.data, made.model
        if self.model.method.needs_every_mask:
            self.datamodule.leave_out_unmasked()
        self.trainer = self.instantiate_trainer()
        if options.ckpt_path is not None:
            self._compare_with_checkpoint(Path(options.ckpt_path))

    def _compare_with_checkpoint(self, path: Path) -> None:
        """Give the data's classes the order of the checkpoint's; raise if it does not fit."""
        content = read_checkpoint(path)
        names = trained_class_names(content, path)
        self.datamodule.match_classes(names)
        self.model.class_names = list(names)
        if hasattr(self.trainer, "calibrate"):
            return  # an ISNet is measured on the weights of another method
        self.model.method.see_image_shape(self.model.net, self.model.image_shape)
        check_weights_fit(self.model, content, path)
        check_complete(content, path, trains=self._trains)
        if self._trains:
            check_same_optimizer(self.model, content, path)

    def fit(self, **arguments: Any) -> None:
        """Look at all data before anything is trained or written, then train."""
        out = Path(self._options.out)
        writes = self.trainer.is_global_zero and not self._options.trainer.fast_dev_run
        prepared = False
        if type(self.model.method).inputs is Method.inputs:  # others' networks take more
            check_runs(self.model.deployed, self.model.image_shape, self.model.backbone_name)
        self.model.method.check_precision(self.model.net, str(self.trainer.precision))
        self.model.method.see_image_shape(self.model.net, self.model.image_shape)
        with only_writer(out) if writes else nullcontext():
            try:
                if writes:
                    self._prepare_folder(out)
                prepared = writes
                self._check_data()
                self._complete_masks(out)
                with users_errors():
                    self.trainer.fit(**arguments)
                if writes:
                    self._save_warnings(out)
            except BaseException as ending:
                number = stopped_by(ending)
                if number is not None:
                    raise Stopped(number, how_to_go_on(out) if prepared else None) from ending
                if isinstance(ending, OSError) and ending.errno is not None:
                    # Lightning's loggers do not say which file
                    ending.filename = ending.filename or str(out)
                raise

    def _save_warnings(self, out: Path) -> None:
        """Save what the training did not reach, for the report of a test."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        checks = (each for each in callbacks if isinstance(each, ConvergenceChecks))
        save_training_warnings(out, [warning for each in checks for warning in each.warnings])

    def _check_data(self) -> None:
        self.datamodule.setup()
        method = self.model.method
        if method.needs_masks() and not method.needs_every_mask:  # whose data have been filtered
            check_masks(self.datamodule)

    def _complete_masks(self, out: Path) -> None:
        """Draw masks that images lack, or leave the images out."""
        options, method = self._options, self.model.method
        if not method.needs_masks() or options.trainer.fast_dev_run:
            return  # a trial of one batch writes nothing
        seed = options.seed_everything
        seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else 0
        choice = options.missing_masks
        own = options.drawn_masks is None
        folder = out / MASKS if own else Path(options.drawn_masks)
        if choice is None and own and self._goes_on(out) and not folder.is_dir():
            choice = missing_masks.KEEP  # as the run did, which is of an earlier version
        missing_masks.complete_masks(self.datamodule, choice, folder, seed)

    def _goes_on(self, out: Path) -> bool:
        """Tell whether this training goes on with the run in a folder."""
        path = self._options.ckpt_path
        return path is not None and run_folder(Path(path)).resolve() == out.resolve()

    def _prepare_folder(self, out: Path) -> None:
        """Refuse or remove an earlier run, and record the division of the data."""
        options = self._options
        goes_on = self._goes_on(out)
        if goes_on and options.overwrite:
            raise ValueError(
                f"--overwrite would remove {options.ckpt_path}, which --ckpt_path goes on from; "
                "give one of them"
            )
        if not goes_on and not options.overwrite:
            check_unused(out)
        self._check_data()
        if options.overwrite:
            given = data_options(options).get("masks")
            if given is not None and Path(given).resolve().is_relative_to(out.resolve()):
                raise ValueError(
                    f"--overwrite would remove masks in {str(given)!r}, which --data.masks names; "
                    "move them out of the run's folder"
                )
            remove_run(out)
        if options.ckpt_path is None or self.datamodule.division is not None:
            division = self.datamodule.record_division()
            if division is not None:
                division.save(out / DIVISION)

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Make the trainer, whose curves go to the run's folder, a new one each time."""
        options = self.config_init[self.config_init.subcommand]
        curves = CSVLogger(options.out, name=CURVES)
        loggers = [curves, TensorBoardLogger(options.out, name=CURVES, version=curves.version)]
        chosen = any(isinstance(each, ProgressBar) for each in options.trainer.callbacks or ())
        bar = options.trainer.enable_progress_bar is not False and not chosen
        self.trainer_defaults["callbacks"] = [
            _last_checkpoint(options.out),
            *([progress_bar()] if bar else ()),
        ]
        trainer = super().instantiate_trainer(logger=loggers, **kwargs)
        # Others, such as those that share out a model, write their checkpoints themselves.
        if isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            io = trainer.strategy.checkpoint_io
            if type(io) is TorchCheckpointIO:
                trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer


def check_masks(data: ClassifierData) -> None:
    """Raise ``ValueError`` if no training image has a mask."""
    total = len(data.datasets["train"].samples)
    if total == len(data.unmasked_images("train")):
        raise ValueError(
            f"none of the {total} training images has a mask, without which this method trains a "
            "standard classifier; name masks (--data.masks), draw those of a tenth of the images "
            "at least, by which the others are drawn, or train without on purpose: --method "
            "standard"
        )


def _last_checkpoint(run: str | Path) -> ModelCheckpoint:
    """Keep the last epoch, whatever it is worth: ``save_last`` of the other keeps the last best."""
    return ModelCheckpoint(
        _checkpoints(run),
        LAST,
        save_top_k=1,
        every_n_epochs=1,
        enable_version_counter=False,
    )


def _checkpoints(run: str | Path) -> str:
    return str(checkpoint_folder(run))
