"""``faster-isnet fit`` and ``validate``: Lightning's own command line, with our defaults."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import lightning
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from faster_isnet.commands.arguments import CommandParser
from faster_isnet.commands.run_folder import (
    BEST,
    CONFIG,
    CURVES,
    DIVISION,
    LAST,
    best_checkpoint,
    check_unused,
    checkpoint_folder,
    how_to_go_on,
    last_checkpoint,
    only_writer,
    recorded_division,
    remove_run,
    run_folder,
)
from faster_isnet.common.files import write_atomically
from faster_isnet.common.progress import progress_bar
from faster_isnet.data import ImageData
from faster_isnet.methods import Method, method_names
from faster_isnet.methods.isnet.cuts import AUTO
from faster_isnet.models.weight_files import read_checkpoint
from faster_isnet.training.checkpoint_files import (
    AtomicCheckpointIO,
    check_complete,
    check_same_optimizer,
    check_weights_fit,
    trained_class_names,
)
from faster_isnet.training.image_classifier import ImageClassifier
from faster_isnet.training.options_of_0_1 import NEW_NAMES, split_model_options

log = logging.getLogger(__name__)

SHORT = {
    "--skip-unreadable": "--data.skip_unreadable=true",
    "--allow-duplicates": "--data.allow_duplicates=true",
}
"""What messages advise, as the parser has it."""
ISNET = "faster_isnet.methods.isnet.method.ISNetMethod"
_METHOD_OPTIONS = ("--method", "--method.class_path", "--method.help")


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    RunCLI(words)


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
            config.ckpt_path, config.overwrite, config.data.new_images = None, False, None
            text = self.parser.dump(config, skip_none=False)
            write_atomically(Path(self.config.out) / CONFIG, text.encode())


class RunParser(CommandParser, LightningArgumentParser):
    """Parse one dialect, methods by name, and the options of version 0.1."""

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a configuration, the text of a YAML file."""
        config = yaml.safe_load(content)
        if isinstance(config, dict):
            content = yaml.safe_dump(current_config(config), sort_keys=False)
        return super().parse_string(content, *args, **kwargs)


def current_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with methods by their class paths, and today's names of options."""
    config = dict(config)
    if isinstance(options := config.get("model"), dict):
        config["model"], of_isnet = split_model_options(options)
        if of_isnet:
            config.setdefault("method", {"class_path": ISNET, "init_args": of_isnet})
    method = config.get("method")
    if isinstance(method, str):
        config["method"] = _method_path(method)
    elif isinstance(method, dict):
        if not method.keys() & {"class_path", "init_args"}:
            method = {"init_args": method}
        path = _method_path(method.get("class_path", ISNET))
        config["method"] = {**method, "class_path": path}
    return config


def current_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments with methods by their class paths, and today's names of options.

    Examples
    --------
    >>> current_arguments(["fit", "--model.variant", "dual"])
    ['fit', '--method.variant', 'dual']
    """
    before = ("", *arguments)
    return [_current(*pair) for pair in zip(before, arguments, strict=False)]


def _current(before: str, argument: str) -> str:
    """Return an argument, which follows the one ``before``, as it is spelt today."""
    if before in _METHOD_OPTIONS:
        return _method_path(argument)
    name, equals, value = argument.partition("=")
    if equals and name in _METHOD_OPTIONS:
        return f"{name}={_method_path(value)}"
    new = NEW_NAMES.get(name.removeprefix("--").replace("-", "_"))
    if new is not None and name.startswith("--"):
        log.warning("%s is called --%s now", name, new)
        return f"--{new}{equals}{value}"
    return SHORT.get(argument, argument)


def _method_path(name: str) -> str:
    name = name.removeprefix("class_path=")
    kind = method_names().get(name)
    return name if kind is None else f"{kind.__module__}.{kind.__qualname__}"


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
        super().__init__(
            ImageClassifier,
            ImageData,
            trainer_class=trainer_class,
            args=current_arguments(words),
            parser_class=RunParser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=KeepConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={"max_epochs": 30, "log_every_n_steps": 10},
            parser_kwargs={"prog": "faster-isnet"},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the trainer's methods that are commands, and the arguments they have anyway."""
        commands = LightningCLI.subcommands()
        return {name: commands[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where a run goes, how its best epoch is chosen, and what the data tell the model."""
        parser.add_argument(
            "--out", type=str, default="run", help="folder of the run (default: run)"
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="of fit: replace an earlier run in the folder, and what was tested of it",
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
                "checkpoint.monitor": "val/loss",
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
        out = Path(options.out)
        if self._trains:
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
        if options.ckpt_path is not None and options.data.division is None:
            recorded = recorded_division(run_folder(Path(options.ckpt_path)))
            config = self.config.clone()
            config[config.subcommand].data.division = recorded
        self.config_init = self.parser.instantiate_classes(config)
        made = self.config_init[config.subcommand]
        self.datamodule, self.model = made.data, made.model
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
        check_weights_fit(self.model, content, path)
        check_complete(content, path, trains=self._trains)
        if self._trains:
            check_same_optimizer(self.model, content, path)

    def fit(self, **arguments: Any) -> None:
        """Look at all data before anything is trained or written, then train."""
        out = Path(self._options.out)
        writes = self.trainer.is_global_zero and not self._options.trainer.fast_dev_run
        with only_writer(out) if writes else nullcontext():
            if writes:
                self._prepare_folder(out)
            self._check_data()
            try:
                self.trainer.fit(**arguments)
            except SystemExit as stop:  # so Lightning ends after SIGTERM and Ctrl-C
                print(f"\nThe training was stopped. {how_to_go_on(out)}", file=sys.stderr)
                terminated = isinstance(stop, SIGTERMException)
                raise SystemExit(128 + (SIGTERM if terminated else SIGINT)) from stop

    def _check_data(self) -> None:
        self.datamodule.setup()
        if self.model.method.needs_masks():
            check_masks(self.datamodule)

    def _prepare_folder(self, out: Path) -> None:
        """Refuse or remove an earlier run, and record the division of the data."""
        options = self._options
        goes_on_with = options.ckpt_path and run_folder(Path(options.ckpt_path)).resolve()
        goes_on = goes_on_with == out.resolve()
        if goes_on and options.overwrite:
            raise ValueError(
                f"--overwrite would remove {options.ckpt_path}, which --ckpt_path goes on from; "
                "give one of them"
            )
        if not goes_on and not options.overwrite:
            check_unused(out)
        self._check_data()
        if options.overwrite:
            remove_run(out)
        if options.ckpt_path is None or self.datamodule.division is not None:
            self.datamodule.record_division().save(out / DIVISION)

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


def check_masks(data: ImageData) -> None:
    """Check that training images have masks; warn if some have none.

    Raises
    ------
    ValueError
        If none has.
    """
    masked = data.findings.masked("train")
    total = sum(sample.split == "train" for sample in data.findings.samples)
    if not masked:
        raise ValueError(
            f"none of the {total} training images has a mask, without which this method trains a "
            "standard classifier; name masks (--data.masks), draw some and let faster-isnet "
            "segment make the others, or train without on purpose: --method standard, or "
            "--method.loss.heatmap_weight 0"
        )
    if masked < total:
        log.warning(
            "\nWARNING: only %d of %d training images (%d %%) have a mask.\n"
            "The others train the classification alone, and teach the network to use the "
            "background: with masks for\na fifth of the images, an ISNet used a planted mark as "
            "much as a standard classifier did. Make masks for all\n(faster-isnet segment), and "
            "test without the bias before you rely on it.\n",
            *(masked, total, 100 * masked // total),
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
