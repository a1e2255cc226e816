"""Load weights from checkpoints and state dicts, without running code from the files."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import ZipFile

import torch
from safetensors import safe_open
from torch import Tensor, nn

log = logging.getLogger(__name__)

_ZIP = b"PK\x03\x04"
# Where an ISNet and other methods have the network in checkpoints.
_LIGHTNING_PREFIXES = ("net.backbone.", "net.")
_MISSING, _OTHER_SHAPE, _LEFT_OVER = "missing", "of another shape", "left over in the file"
_CURE = "Build the backbone with the architecture, classes and dropout of the checkpoint's."
_OTHERS = "If it has other wrappers, load_published_checkpoint finds them."
# The key in the file for each key of the backbone.
_KeyMap: TypeAlias = dict[str, str]


def load_backbone_weights(path: str | Path, backbone: nn.Module) -> nn.Module:
    """Load weights of a network that was trained or exported with this library.

    The file is a Lightning checkpoint, such as :class:`~faster_isnet.LitISNet`'s, of which
    ``net.backbone.`` or ``net.`` is loaded, or a state dict in PyTorch's format or safetensors. All
    keys must match. For files of other origin, with wrappers, see
    :func:`load_published_checkpoint`.

    Parameters
    ----------
    path
        The file, written by PyTorch 1.6 and newer or safetensors. Only tensors and basic Python
        values are read; code in the file is never run.
    backbone
        The network to load the weights into, on any device; for example from
        :func:`~faster_isnet.models.build_backbone`, with the dropout of training.

    Returns
    -------
    torch.nn.Module
        ``backbone``, with all parameters and buffers from the file. Only the counters
        ``num_batches_tracked`` may be missing in the file, and are then unchanged.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be opened.
    TypeError
        If ``backbone`` is not a module.
    ValueError
        If the file cannot be read without running code, contains no state dict, or a key is
        missing, unexpected, or of another shape. The backbone is then unchanged.

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
    state = _state_dict(path, _read_tensors(path))
    found = (p for p in _LIGHTNING_PREFIXES if any(key.startswith(p) for key in state))
    under = next(found, "")
    key_map = {name: under + name for name in expected if under + name in state}
    mismatches = _mismatches(state, expected, under, key_map)
    if any(mismatches.values()):
        raise _mismatch_error(path, under, mismatches, _CURE if under else f"{_CURE} {_OTHERS}")
    return _copy_values(path, backbone, state, key_map)


def load_published_checkpoint(path: str | Path, backbone: nn.Module) -> nn.Module:
    """Load the backbone from a checkpoint of the published ISNets.

    These are Lightning checkpoints of a network in its wrappers: ``model.model.conv1.weight``
    (LRP-Flex), ``classifierDNN.conv1.weight`` (LRP-Block). The prefix is detected: it is the one
    that matches most of the backbone's keys, with or without ``module.`` and similar. Modules
    wrapped as ``maxpool.maxpool`` are unwrapped. A state dict without wrappers is accepted, too.

    Only tensors and basic Python values are read (``torch.load(..., weights_only=True)``); code in
    the file is never run.

    Parameters
    ----------
    path
        The file, written by PyTorch 1.6 and newer.
    backbone
        The network to load the weights into, on any device, for example from
        :func:`~faster_isnet.models.build_backbone`. The published code puts dropout before the
        classifier as ``build_backbone(..., dropout=0.5)`` does: both then have the key
        ``fc.1.weight`` instead of ``fc.weight``.

    Returns
    -------
    torch.nn.Module
        ``backbone``, with all parameters and buffers from the file. Only the counters
        ``num_batches_tracked`` may be missing in the file, and are then unchanged. Other
        content of the file is ignored, and logged as a warning.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be opened.
    TypeError
        If ``backbone`` is not a module.
    ValueError
        If the file cannot be read without running code, contains no state dict, contains two
        different networks that match equally well, or a parameter is missing or has another shape.
        The backbone is then unchanged.

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
    state = _state_dict(path, _read_tensors(path))
    prefix, key_map = _best_match(path, state, expected)
    under = f"{prefix}." if prefix else ""
    mismatches = _mismatches(state, expected, under, key_map)
    if mismatches[_MISSING] or mismatches[_OTHER_SHAPE]:
        raise _mismatch_error(path, under, mismatches, _CURE)
    _copy_values(path, backbone, state, key_map)
    if ignored := state.keys() - key_map.values():
        log.warning("%s: ignored, as not of the backbone: %s", path, _shortened(sorted(ignored)))
    return backbone


def weights_hash(network: nn.Module) -> str:
    """Return a SHA-256 of the names and values of all parameters and buffers.

    Examples
    --------
    >>> network = nn.Linear(2, 2)
    >>> before = weights_hash(network)
    >>> _ = nn.init.zeros_(network.bias)
    >>> before == weights_hash(network)
    False
    """
    digest = sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _expected(backbone: object) -> dict[str, Tensor]:
    """Return the tensors that must be in a file."""
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
    content = _read_tensors(path, map_location)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), Mapping):
        return content
    weights = isinstance(content, Mapping) and any(isinstance(v, Tensor) for v in content.values())
    raise ValueError(
        f"{path} holds weights alone, and not which network they are of; faster-isnet explain and "
        f"export take them with its name: NETWORK --weights {path} --classes … --size …"
        if weights
        else f"{path} is no Lightning checkpoint: it has no weights as 'state_dict'; give a file "
        "of RUN/checkpoints"
    )


@contextmanager
def naming_damage(path: str | Path) -> Iterator[None]:
    """Raise what goes wrong with a checkpoint's content as ``ValueError`` that names the file."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f"{path} cannot be used ({type(error).__name__}: {error}); it is no checkpoint of "
            "faster-isnet fit, or damaged: take another of RUN/checkpoints"
        ) from error


def _read_tensors(path: str | Path, map_location: Any = "cpu") -> object:
    """Read a file of tensors and basic Python values."""
    cause = None
    with Path(path).open("rb") as file:
        head = file.read(9)
        file.seek(0)
        try:
            # Before 2.6, PyTorch could run code from files in other formats (CVE-2025-32434).
            if head.startswith(_ZIP):
                _check_no_program(path)
                return torch.load(file, map_location=map_location, weights_only=True)
            if head[8:] == b"{":  # the JSON header, after its length
                return _read_safetensors(path)
        except _ProgramError:
            raise
        except Exception as error:  # of any type, since the file may contain anything
            cause = error
    raise ValueError(
        f"{path} is no file of tensors and plain values that can be read without running code from "
        "it, or it is damaged. If you trust where it comes from, save its state dict alone, in an "
        'environment that has what it needs: torch.save(torch.load(path, weights_only=False)["'
        'state_dict"], new_path)'
    ) from cause


class _ProgramError(ValueError):
    """A file holds a network as a program."""


def _check_no_program(path: str | Path) -> None:
    with ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    if any(name.startswith("code/") for name in names) or "models/model.json" in names:
        raise _ProgramError(
            f"{path} is a program of torch.jit or torch.export, whose layers cannot be changed; "
            "save its weights alone (torch.save(torch.jit.load(path).state_dict(), new_path)) and "
            "name its network: faster-isnet explain NETWORK --weights NEW_PATH"
        )


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        # Of tensors that share memory only one is stored; the metadata map the others to it.
        shared = (file.metadata() or {}).items()
    return {**{name: state[kept] for name, kept in shared if kept in state}, **state}


def _state_dict(path: str | Path, content: object) -> dict[str, Tensor]:
    """Return the tensors of the state dict: the file's content or its ``"state_dict"``."""
    holds = type(content).__name__
    if isinstance(content, Mapping):
        state = content.get("state_dict", content)
        items = state.items() if isinstance(state, Mapping) else ()
        if tensors := {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}:
            return tensors
        holds = _shortened(map(repr, content))
    raise ValueError(
        f"{path} holds no state dict of tensors, neither itself nor as 'state_dict'; it holds: "
        f"{holds}"
    )


def _best_match(
    path: str | Path, state: dict[str, Tensor], expected: dict[str, Tensor]
) -> tuple[str, _KeyMap]:
    """Find the prefix under which most keys match, and the map of keys.

    Raises
    ------
    ValueError
        If no key matches, or two prefixes match equally well with different values.
    """
    matches = _matches(state, expected)
    if not matches:
        raise ValueError(
            f"no key in {path} fits the backbone: it has {_shortened(state)}; the backbone has "
            f"{_shortened(expected)}. {_CURE}"
        )

    def score(prefix: str) -> tuple[int, int]:
        key_map = matches[prefix]
        same_shape = [state[key].shape == expected[name].shape for name, key in key_map.items()]
        return sum(same_shape), len(same_shape)

    best, *others = sorted(matches, key=lambda prefix: (score(prefix), -len(prefix)), reverse=True)
    for other in others:
        if score(other) == score(best) and not _same_values(state, matches[best], matches[other]):
            raise ValueError(
                f"{path} holds different networks that fit the backbone equally well, under "
                f"{best!r} and {other!r}; save the state dict of the one that is wanted alone"
            )
    return best, matches[best]


def _matches(state: Iterable[str], expected: Iterable[str]) -> dict[str, _KeyMap]:
    """Map keys of the backbone to keys of the file, for every prefix in the file."""
    expected = set(expected)
    unwrapped: dict[str, list[str]] = defaultdict(list)
    for name in expected:
        unwrapped[_unwrap(name)].append(name)
    direct: dict[str, _KeyMap] = defaultdict(dict)
    wrapped: dict[str, _KeyMap] = defaultdict(dict)
    for key in sorted(state, key=len):
        parts = key.split(".")
        for cut in range(len(parts)):
            prefix, rest = ".".join(parts[:cut]), ".".join(parts[cut:])
            if rest in expected:
                direct[prefix][rest] = key
            elif len(names := unwrapped.get(_unwrap(rest), [])) == 1:
                wrapped[prefix].setdefault(names[0], key)
    return {prefix: wrapped[prefix] | direct[prefix] for prefix in [*direct, *wrapped]}


def _unwrap(key: str) -> str:
    """Return ``a.maxpool.b`` for ``a.maxpool.maxpool.b``."""
    return ".".join(part for part, _ in groupby(key.split(".")))


def _same_values(state: dict[str, Tensor], key_map: _KeyMap, other: _KeyMap) -> bool:
    return key_map.keys() == other.keys() and all(
        key_map[name] == other[name] or torch.equal(state[key_map[name]], state[other[name]])
        for name in key_map
    )


def _mismatches(
    state: dict[str, Tensor], expected: dict[str, Tensor], under: str, key_map: _KeyMap
) -> dict[str, list[str]]:
    """List keys that are missing, of another shape, or left over in the file."""
    return {
        _MISSING: [
            f"{name} {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name not in key_map and not name.endswith("num_batches_tracked")
        ],
        _OTHER_SHAPE: [
            f"{name} {list(tensor.shape)}, in the file {list(state[key_map[name]].shape)}"
            for name, tensor in expected.items()
            if name in key_map and state[key_map[name]].shape != tensor.shape
        ],
        _LEFT_OVER: [key for key in state if key.startswith(under) and key not in key_map.values()],
    }


def _mismatch_error(
    path: str | Path, under: str, mismatches: dict[str, list[str]], cure: str
) -> ValueError:
    where = f", whose keys have the prefix {under!r} there" if under else ""
    found = "; ".join(f"{what}: {_shortened(keys)}" for what, keys in mismatches.items() if keys)
    return ValueError(f"{path} does not fit the backbone{where}: {found}. {cure}")


def _copy_values(
    path: str | Path, backbone: nn.Module, state: dict[str, Tensor], key_map: _KeyMap
) -> nn.Module:
    """Copy all values into the backbone, or none if one cannot be converted."""
    old = backbone.state_dict()
    values = {name: _converted(path, key, state[key], old[name]) for name, key in key_map.items()}
    backbone.load_state_dict({**old, **values})
    return backbone


def _converted(path: str | Path, key: str, value: Tensor, like: Tensor) -> Tensor:
    """Convert a value from the file to the dtype and the device of the backbone."""
    if not torch.can_cast(value.dtype, like.dtype):
        raise ValueError(f"{path}: {key} is {value.dtype}, the backbone wants {like.dtype}")
    try:
        return torch.empty_like(like).copy_(value.detach())
    except RuntimeError as error:  # sparse, quantised or meta tensors
        raise ValueError(f"{path}: {key} is not a dense tensor ({error})") from error


def _shortened(names: Iterable[str], shown: int = 20) -> str:
    listed = list(names)
    more = f", … ({len(listed) - shown} more)" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
