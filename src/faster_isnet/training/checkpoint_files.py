"""Write checkpoints whole, and check those that a training or an evaluation starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from faster_isnet.common.files import open_atomically
from faster_isnet.common.recipes import ARGUMENTS


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
        with open_atomically(path) as file:
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


def check_resumable(content: Mapping[str, Any], path: str | Path) -> None:
    """Raise ``ValueError`` unless a checkpoint has all that a training goes on with."""
    missing = [key for key, kind in _RESUMED.items() if not isinstance(content.get(key), kind)]
    if missing:
        raise ValueError(
            f"a training cannot go on from {str(path)!r}: it lacks {', '.join(missing)}, or they "
            "are damaged; give another checkpoint of the run, or train anew without --ckpt_path"
        )


_RESUMED = {
    "epoch": int,
    "global_step": int,
    "loops": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
}


def _described(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(list(shape))
