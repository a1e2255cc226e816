"""``faster-isnet fit`` and ``validate``: Lightning's own command line, with our defaults."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from faster_isnet.commands.arguments import CommandParser
from faster_isnet.common.files import write_atomically
from faster_isnet.common.progress import progress_bar
from faster_isnet.data import ImageData
from faster_isnet.methods import Method, method_names
from faster_isnet.methods.isnet.cuts import AUTO
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
CHECKPOINTS, BEST, LAST, CONFIG = "checkpoints", "best", "last", "config.yaml"


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    RunCLI(words)


class KeepConfig(SaveConfigCallback):
    """Writes the configuration of a training into its folder."""

    def save_config(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Write it, if this is a training."""
        if stage == "fit":
            text = self.parser.dump(self.config, skip_none=False)
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
        """Take the run's best checkpoint if what shall be judged is not named."""
        super().parse_arguments(parser, args)
        command = self.config.subcommand
        options = self.config[command]
        if command != "fit" and options.ckpt_path is None:
            options.ckpt_path = str(best_checkpoint(Path(options.out)))

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the options of a checkpoint do not replace those that the user gives."""

    def before_fit(self) -> None:
        """Look at all data before anything is trained or written."""
        self.datamodule.setup()
        if self.model.method.needs_masks():
            check_masks(self.datamodule)

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Make the trainer, whose curves go to the run's folder, a new one each time."""
        options = self.config_init[self.config_init.subcommand]
        curves = CSVLogger(options.out, name="curves")
        loggers = [curves, TensorBoardLogger(options.out, name="curves", version=curves.version)]
        chosen = any(isinstance(each, ProgressBar) for each in options.trainer.callbacks or ())
        bar = options.trainer.enable_progress_bar is not False and not chosen
        self.trainer_defaults["callbacks"] = [
            _last_checkpoint(options.out),
            *([progress_bar()] if bar else ()),
        ]
        return super().instantiate_trainer(logger=loggers, **kwargs)


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


def best_checkpoint(run_folder: Path) -> Path:
    """Return a run's best checkpoint.

    Raises
    ------
    FileNotFoundError
        If it has none.
    """
    path = Path(_checkpoints(run_folder)) / f"{BEST}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; train first (faster-isnet fit --out {run_folder}), or name a "
            "checkpoint with --ckpt_path"
        )
    return path


def _last_checkpoint(run_folder: str | Path) -> ModelCheckpoint:
    """Keep the last epoch, whatever it is worth: ``save_last`` of the other keeps the last best."""
    return ModelCheckpoint(
        _checkpoints(run_folder), LAST, save_top_k=1, every_n_epochs=1, enable_version_counter=False
    )


def _checkpoints(run_folder: str | Path) -> str:
    return str(Path(run_folder) / CHECKPOINTS)
