"""The states of the random number generators of all processes of a run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from faster_isnet.common.processes import gather, process_count


def random_states() -> list[dict[str, Any]]:
    """Return the generators' states of each process, by its rank; all have to call this.

    They are of types that ``torch.load(weights_only=True)`` reads.
    """
    return gather(_own_states())


def restore_random_states(states: list[dict[str, Any]], rank: int) -> None:
    """Restore what :func:`random_states` returned, if as many processes run."""
    if len(states) != process_count():  # those of others are no use
        return
    own: Mapping[str, Any] = states[rank]
    torch.set_rng_state(own["torch"].cpu())
    if own["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(own["cuda"].cpu())
    name, keys, *rest = own["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = own["python"]
    random.setstate((version, tuple(internal), gauss))


def _own_states() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        # Of the device that this process works on: to ask the others takes memory of each.
        "cuda": torch.cuda.get_rng_state() if _uses_cuda() else None,
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "python": random.getstate(),
    }


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
