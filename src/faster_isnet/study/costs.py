"""Measure what a run cost: the time of its training and of a prediction, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.models.weight_files import read_checkpoint
from faster_isnet.study.records import Costs

_WARM_UP, _REPEATS = 3, 30


def measure_costs(
    last_checkpoint: Path,
    network: nn.Module,
    inputs: Callable[[Batch], Tensor],
    image_shape: tuple[int, int, int],
) -> Costs:
    """Return what a run cost.

    Parameters
    ----------
    last_checkpoint
        Of the training, which holds the state of Lightning's ``Timer``.
    network
        That is used after the training, in evaluation mode, in host memory.
    inputs
        Makes the network's input of a batch, see :meth:`faster_isnet.methods.Method.inputs`.
    image_shape
        ``(C, H, W)``.

    Raises
    ------
    ValueError
        If the checkpoint has no timer's state.
    """
    content = read_checkpoint(last_checkpoint)
    elapsed = _elapsed(content, last_checkpoint)
    epochs = int(content["epoch"]) + 1
    # The timer measures the training with its validations, and the last of these alone.
    per_epoch = elapsed["train"] / epochs - elapsed["validate"]
    return Costs(
        seconds=elapsed["train"],
        seconds_per_epoch=max(per_epoch, 0.0),
        epochs=epochs,
        milliseconds=milliseconds_per_image(network, inputs, image_shape),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def milliseconds_per_image(
    network: nn.Module,
    inputs: Callable[[Batch], Tensor],
    image_shape: tuple[int, int, int],
) -> float:
    """Return how long a network takes for one image, in ms: the median of thirty predictions.

    What ``inputs`` makes of the image is part of it. The image is random and all foreground.
    """
    image = torch.rand(1, *image_shape)
    batch = Batch(image, torch.zeros(1, dtype=torch.int64), torch.ones(1, 1, *image_shape[1:]))
    times = []
    with torch.inference_mode():
        for _ in range(_WARM_UP + _REPEATS):
            started = perf_counter()
            network(inputs(batch))
            times.append(1000 * (perf_counter() - started))
    return median(times[_WARM_UP:])


def _elapsed(content: Mapping[str, Any], path: Path) -> Mapping[str, float]:
    for state in content.get("callbacks", {}).values():
        if isinstance(state, dict) and "time_elapsed" in state:
            return dict(state["time_elapsed"])
    raise ValueError(f"{str(path)!r} has no times of a training; train the run again")
