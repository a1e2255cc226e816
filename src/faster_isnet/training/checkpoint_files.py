"""Write checkpoints whole, and check those that a training or an evaluation starts from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from faster_isnet.common.files import naming_unwritten, open_atomically
from faster_isnet.common.recipes import ARGUMENTS, Recorded
from faster_isnet.training.checkpoint_arguments import describe


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints beside their target, flush them to the disk, and rename them.

    Lightning's own writes them into the folder of temporary files and moves them, which is a copy
    where that is on another file system: a kill then leaves a part of a file. Give it to a trainer
    as ``Trainer(plugins=[AtomicCheckpointIO()])``; the commands do.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        checkpoint
            Its content.
        path
            The file. Addresses such as ``s3://…`` are left to Lightning.
        storage_options
            As Lightning has it; none are known.

        Raises
        ------
        OSError
            If it cannot be written. ``path`` is then as it was.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with naming_unwritten(path), open_atomically(path) as file:
            torch.save(checkpoint, file)


def trained_class_names(content: Mapping[str, Any], path: str | Path) -> list[str]:
    """Return the names of the classes that a checkpoint's network was trained on, by index.

    Raises
    ------
    ValueError
        If it is no checkpoint of ``faster-isnet fit``.
    """
    recipe = content.get("recipe")
    kept = recipe.get(ARGUMENTS) if isinstance(recipe, Mapping) else None
    # Before 0.2 the arguments were Lightning's hyperparameters.
    options = kept if isinstance(kept, Mapping) else content.get("hyper_parameters")
    names = options.get("class_names") if isinstance(options, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{str(path)!r} is no checkpoint of faster-isnet fit, which names the classes of its "
            "network; give one of RUN/checkpoints"
        )
    return names


def check_weights_fit(model: nn.Module, content: Mapping[str, Any], path: str | Path) -> None:
    """Raise ``ValueError`` unless a checkpoint has the weights of this module, and no others."""
    weights = content["state_dict"]
    shapes = {k: v.shape for k, v in weights.items() if isinstance(v, Tensor)}
    wanted = {k: v.shape for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    if shapes != wanted:
        differing = sorted(k for k in {**shapes, **wanted} if shapes.get(k) != wanted.get(k))
        first = differing[0]
        raise ValueError(
            f"the weights in {str(path)!r} do not fit the network that the options describe: "
            f"{len(differing)} differ, for example {first!r}, which is "
            f"{_described(shapes.get(first))} in the file and {_described(wanted.get(first))} in "
            "the network; give the options of its run: --config RUN/config.yaml"
        )


def check_same_optimizer(model: Recorded, content: Mapping[str, Any], path: str | Path) -> None:
    """Raise ``ValueError`` if a module has options that the checkpoint's optimiser would replace.

    The state of an optimiser and of a schedule holds their options as well. Checkpoints of version
    0.1 do not say with which options they were made.
    """
    before = (content.get("recipe") or {}).get(ARGUMENTS, {})
    now = describe(model)["recipe"][ARGUMENTS]
    for name in _KEPT_BY_OPTIMIZER:
        if name in before and name in now and before[name] != now[name]:
            raise ValueError(
                f"{name} is {now[name]!r}, but a training that goes on from {str(path)!r} keeps "
                f"{before[name]!r}, as its optimiser had it; leave the option as it was, or train "
                "a new run without --ckpt_path"
            )


_KEPT_BY_OPTIMIZER = (
    "optimizer",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "warmup_epochs",
    "milestones",
    "milestone_factor",
    "backbone_learning_rate_factor",
)


def check_complete(content: Mapping[str, Any], path: str | Path, *, trains: bool) -> None:
    """Raise ``ValueError`` unless a checkpoint has all that Lightning reads of it.

    Parameters
    ----------
    content, path
        The checkpoint.
    trains
        Whether a training goes on from it.
    """
    wanted = _READ | (_RESUMED if trains else {})
    missing = [key for key, fits in wanted.items() if not fits(content.get(key))]
    if missing:
        raise ValueError(
            f"{str(path)!r} lacks {', '.join(missing)}, or they are damaged, so that "
            f"{'no training can go on from it' if trains else 'it cannot be loaded'}; give another "
            "checkpoint of the run, or train anew without --ckpt_path"
        )


def _is_mappings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, Mapping) for each in value)


def _has_loops(value: object) -> bool:
    names = ("fit_loop", "validate_loop")
    return isinstance(value, Mapping) and all(isinstance(value.get(n), Mapping) for n in names)


_READ: dict[str, Callable[[object], bool]] = {
    "pytorch-lightning_version": lambda v: isinstance(v, str) and bool(re.match(r"\d+\.\d+", v)),
    "loops": _has_loops,
    "callbacks": lambda v: v is None or isinstance(v, Mapping),
    "random_states": lambda v: v is None or _is_mappings(v),
    "method_state": lambda v: v is None or isinstance(v, Mapping),
}
_RESUMED: dict[str, Callable[[object], bool]] = {
    "epoch": lambda v: isinstance(v, int),
    "global_step": lambda v: isinstance(v, int),
    "optimizer_states": _is_mappings,
    "lr_schedulers": _is_mappings,
}


def _described(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(list(shape))
