"""Weights of a network out of files of all kinds, read without running code from them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from torch import Tensor, nn

log = logging.getLogger(__name__)

_ZIP = b"PK\x03\x04"
_OURS = ("net.backbone.", "net.")  # where an ISNet and other methods have the network
_MISSING, _OTHER_SHAPE, _LEFT_OVER = "missing", "of another shape", "left over in the file"
_CURE = "Build the backbone with the architecture, classes and dropout of the checkpoint's."
_OTHERS = "If it has other wrappers, load_published_checkpoint finds them."
# From which key of the file each key of the backbone is read.
_Fit: TypeAlias = dict[str, str]


def load_backbone_weights(path: str | Path, backbone: nn.Module) -> nn.Module:
    """Read the weights of a network that was trained or exported with this library.

    That is a Lightning checkpoint, such as :class:`~faster_isnet.LitISNet`'s, whose
    ``net.backbone.`` or ``net.`` is read, or a plain state dict, as PyTorch or safetensors writes
    it. Every key has to fit. (Files of other origin, in wrappers:
    :func:`load_published_checkpoint`.)

    Parameters
    ----------
    path
        The file, as PyTorch 1.6 and newer or safetensors write it. Only tensors and plain values
        are read: code that it holds is never run.
    backbone
        The network that the weights are for, on any device; for example from
        :func:`~faster_isnet.models.build_backbone`, with the dropout it was trained with.

    Returns
    -------
    torch.nn.Module
        ``backbone``, with all of its parameters and buffers from the file. Only the counters
        ``num_batches_tracked`` may be missing there, and stay as they are.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be opened.
    TypeError
        If ``backbone`` is no module.
    ValueError
        If the file cannot be read without running code, or holds no state dict, or a key is
        missing, left over, or of another shape. The backbone is as it was.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from faster_isnet.models import build_backbone
    >>> trained, fresh = build_backbone("convnet", 3), build_backbone("convnet", 3)
    >>> with TemporaryDirectory() as folder:
    ...     torch.save(trained.state_dict(), f"{folder}/model.pt")
    ...     model = load_backbone_weights(f"{folder}/model.pt", fresh)
    >>> model is fresh, torch.equal(model.classifier.weight, trained.classifier.weight)
    (True, True)
    """
    expected = _expected(backbone)
    state = _state_dict(path, _read(path))
    under = next((p for p in _OURS if any(key.startswith(p) for key in state)), "")
    fit = {name: under + name for name in expected if under + name in state}
    misfits = _misfits(state, expected, under, fit)
    if any(misfits.values()):
        raise _misfit_error(path, under, misfits, _CURE if under else f"{_CURE} {_OTHERS}")
    return _fill(path, backbone, state, fit)


def load_published_checkpoint(path: str | Path, backbone: nn.Module) -> nn.Module:
    """Read the backbone out of a checkpoint of the published ISNets.

    These are Lightning checkpoints of a network in its wrappers: ``model.model.conv1.weight``
    (LRP-Flex), ``classifierDNN.conv1.weight`` (LRP-Block). The prefix is found: it is the one under
    which most of the backbone's keys are, with or without ``module.`` and the like. A module that
    is wrapped as ``maxpool.maxpool`` is unwrapped. A state dict without wrappers is read as well.

    Only tensors and plain values are read (``torch.load(..., weights_only=True)``): code that the
    file holds is never run.

    Parameters
    ----------
    path
        The file, as PyTorch 1.6 and newer write it.
    backbone
        The network that the weights are for, on any device, for example from
        :func:`~faster_isnet.models.build_backbone`. The published code puts dropout before the
        classifier as ``build_backbone(..., dropout=0.5)`` does: both then have the key
        ``fc.1.weight`` instead of ``fc.weight``.

    Returns
    -------
    torch.nn.Module
        ``backbone``, with all of its parameters and buffers from the file. Only the counters
        ``num_batches_tracked`` may be missing there, and stay as they are. What else the file
        holds is ignored, and logged as a warning.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be opened.
    TypeError
        If ``backbone`` is no module.
    ValueError
        If the file cannot be read without running code, holds no state dict, or two different
        networks that fit equally well, or a parameter is missing or has another shape. The
        backbone is as it was.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from faster_isnet.models import build_backbone
    >>> trained, fresh = build_backbone("convnet", 3), build_backbone("convnet", 3)
    >>> state = {f"model.model.{key}": value for key, value in trained.state_dict().items()}
    >>> with TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": state, "epoch": 7}, f"{folder}/isnet.ckpt")
    ...     model = load_published_checkpoint(f"{folder}/isnet.ckpt", fresh)
    >>> model is fresh, torch.equal(model.classifier.weight, trained.classifier.weight)
    (True, True)
    """
    expected = _expected(backbone)
    state = _state_dict(path, _read(path))
    prefix, fit = _best_fit(path, state, expected)
    under = f"{prefix}." if prefix else ""
    misfits = _misfits(state, expected, under, fit)
    if misfits[_MISSING] or misfits[_OTHER_SHAPE]:
        raise _misfit_error(path, under, misfits, _CURE)
    _fill(path, backbone, state, fit)
    if ignored := state.keys() - fit.values():
        log.warning("%s: ignored, as not of the backbone: %s", path, _some(sorted(ignored)))
    return backbone


def _expected(backbone: object) -> dict[str, Tensor]:
    """Return the tensors that a file has to have."""
    if not isinstance(backbone, nn.Module):
        raise TypeError(f"backbone must be a torch.nn.Module, got {type(backbone).__name__}")
    return {k: v for k, v in backbone.state_dict().items() if isinstance(v, Tensor)}


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a Lightning checkpoint; code that it holds is never run.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be opened.
    ValueError
        If it cannot be read without running code, or is no Lightning checkpoint.
    """
    content = _read(path, map_location)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} is no Lightning checkpoint: it has no 'state_dict'")
    return content


def _read(path: str | Path, map_location: Any = "cpu") -> object:
    """Read a file of tensors and plain values."""
    cause = None
    with Path(path).open("rb") as file:
        head = file.read(9)
        file.seek(0)
        try:
            # PyTorch before 2.6 could be made to run code from other formats (CVE-2025-32434).
            if head.startswith(_ZIP):
                return torch.load(file, map_location=map_location, weights_only=True)
            if head[8:] == b"{":  # behind the length of the header, which is JSON
                return _read_safetensors(path)
        except Exception as error:  # of many types, for a file that may hold anything
            cause = error
    raise ValueError(
        f"{path} is no file of tensors and plain values that can be read without running code from "
        "it, or it is damaged. If you trust where it comes from, save its state dict alone, in an "
        'environment that has what it needs: torch.save(torch.load(path, weights_only=False)["'
        'state_dict"], new_path)'
    ) from cause


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        # Of tensors that share memory one alone is there, and for each other one, which that is.
        shared = (file.metadata() or {}).items()
    return {**{name: state[kept] for name, kept in shared if kept in state}, **state}


def _state_dict(path: str | Path, content: object) -> dict[str, Tensor]:
    """Return the tensors of the state dict that the file holds, or is."""
    holds = type(content).__name__
    if isinstance(content, Mapping):
        state = content.get("state_dict", content)
        items = state.items() if isinstance(state, Mapping) else ()
        if tensors := {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}:
            return tensors
        holds = _some(map(repr, content))
    raise ValueError(
        f"{path} holds no state dict of tensors, neither itself nor as 'state_dict'; it holds: "
        f"{holds}"
    )


def _best_fit(
    path: str | Path, state: dict[str, Tensor], expected: dict[str, Tensor]
) -> tuple[str, _Fit]:
    """Return the prefix under which most keys fit, and how they do.

    Raises
    ------
    ValueError
        If there is none, or there are two with different values.
    """
    fits = _fits(state, expected)
    if not fits:
        raise ValueError(
            f"no key in {path} fits the backbone: it has {_some(state)}; the backbone has "
            f"{_some(expected)}. {_CURE}"
        )

    def score(prefix: str) -> tuple[int, int]:
        fit = fits[prefix]
        return sum(state[fit[name]].shape == expected[name].shape for name in fit), len(fit)

    best, *others = sorted(fits, key=lambda prefix: (score(prefix), -len(prefix)), reverse=True)
    for other in others:
        if score(other) == score(best) and not _same_values(state, fits[best], fits[other]):
            raise ValueError(
                f"{path} holds different networks that fit the backbone equally well, under "
                f"{best!r} and {other!r}; save the state dict of the one that is wanted alone"
            )
    return best, fits[best]


def _fits(state: Iterable[str], expected: Iterable[str]) -> dict[str, _Fit]:
    """Return for each prefix which keys of the file are keys of the backbone under it."""
    expected = set(expected)
    unwrapped: dict[str, list[str]] = defaultdict(list)
    for name in expected:
        unwrapped[_unwrap(name)].append(name)
    plain: dict[str, _Fit] = defaultdict(dict)
    wrapped: dict[str, _Fit] = defaultdict(dict)
    for key in sorted(state, key=len):
        parts = key.split(".")
        for cut in range(len(parts)):
            prefix, rest = ".".join(parts[:cut]), ".".join(parts[cut:])
            if rest in expected:
                plain[prefix][rest] = key
            elif len(names := unwrapped.get(_unwrap(rest), [])) == 1:
                wrapped[prefix].setdefault(names[0], key)
    return {prefix: wrapped[prefix] | plain[prefix] for prefix in [*plain, *wrapped]}


def _unwrap(key: str) -> str:
    """Return ``a.maxpool.b`` for ``a.maxpool.maxpool.b``."""
    return ".".join(part for part, _ in groupby(key.split(".")))


def _same_values(state: dict[str, Tensor], fit: _Fit, other: _Fit) -> bool:
    return fit.keys() == other.keys() and all(
        fit[name] == other[name] or torch.equal(state[fit[name]], state[other[name]])
        for name in fit
    )


def _misfits(
    state: dict[str, Tensor], expected: dict[str, Tensor], under: str, fit: _Fit
) -> dict[str, list[str]]:
    """Return what does not fit: what is missing, of another shape, or left over in the file."""
    return {
        _MISSING: [
            f"{name} {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name not in fit and not name.endswith("num_batches_tracked")
        ],
        _OTHER_SHAPE: [
            f"{name} {list(tensor.shape)}, in the file {list(state[fit[name]].shape)}"
            for name, tensor in expected.items()
            if name in fit and state[fit[name]].shape != tensor.shape
        ],
        _LEFT_OVER: [key for key in state if key.startswith(under) and key not in fit.values()],
    }


def _misfit_error(
    path: str | Path, under: str, misfits: dict[str, list[str]], cure: str
) -> ValueError:
    where = f", whose keys have the prefix {under!r} there" if under else ""
    found = "; ".join(f"{what}: {_some(keys)}" for what, keys in misfits.items() if keys)
    return ValueError(f"{path} does not fit the backbone{where}: {found}. {cure}")


def _fill(path: str | Path, backbone: nn.Module, state: dict[str, Tensor], fit: _Fit) -> nn.Module:
    """Give the backbone its values, all or none."""
    old = backbone.state_dict()
    values = {name: _converted(path, key, state[key], old[name]) for name, key in fit.items()}
    backbone.load_state_dict({**old, **values})
    return backbone


def _converted(path: str | Path, key: str, value: Tensor, like: Tensor) -> Tensor:
    """Return a value from the file in the type and on the device that the backbone has."""
    if not torch.can_cast(value.dtype, like.dtype):
        raise ValueError(f"{path}: {key} is {value.dtype}, the backbone wants {like.dtype}")
    try:
        return torch.empty_like(like).copy_(value.detach())
    except RuntimeError as error:  # sparse, quantised, without data
        raise ValueError(f"{path}: {key} is no ordinary tensor ({error})") from error


def _some(names: Iterable[str], shown: int = 20) -> str:
    listed = list(names)
    more = f", … ({len(listed) - shown} more)" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
