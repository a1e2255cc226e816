"""Exporting a network: weights, ONNX or a program of torch, and what one must know to use them."""

from __future__ import annotations

import importlib.util
import io
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import Tensor, nn

from faster_isnet.common.checks import check_choice, check_logits
from faster_isnet.common.files import naming_unwritten, replacing_atomically
from faster_isnet.common.logits import class_logits
from faster_isnet.common.resizing import STRETCHED, Resizing
from faster_isnet.methods.isnet.network import ISNet

FILES = {
    "safetensors": "model.safetensors",
    "onnx": "model.onnx",
    "state_dict": "model.pt",
    "program": "model.pt2",
}
"""What each format is called in the folder."""
DESCRIPTION = "model.json"
TOLERANCE = 1e-4
"""How far the logits of the ONNX file or the program may be from the network's."""

_PACKAGES = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
_BATCH_SIZES = (1, 2, 5)
_WHERE_CODE_STOOD = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
"""What nodes of a program keep of the Python code, and in whose files it stood."""
_ONNX_BYTES = 2**31  # protobuf's limit


def export(
    backbone: nn.Module,
    out: str | Path,
    image_shape: tuple[int, int, int],
    formats: Sequence[str] = ("safetensors", "onnx", "state_dict"),
    class_names: Sequence[str] | None = None,
    *,
    architecture: str | None = None,
    task: str | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resizing: Resizing | None = None,
    built_by: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write a network, in eval mode, so that it can be used without this library.

    The ONNX file is run by onnxruntime, and the program by torch, on random images, one, two and
    five at a time, and compared with the network before anything is put in its place.

    Parameters
    ----------
    backbone
        From images ``[B, C, H, W]`` to logits ``[B, K]``, in float32; on any device, in any mode,
        and left as it is. Of an :class:`~faster_isnet.ISNet` its ``backbone``.
    out
        The folder, which is made if need be. Files of an earlier export are replaced.
    image_shape
        ``(C, H, W)`` of the images. The size of the batch stays free.
    formats
        Some of ``"safetensors"`` (``model.safetensors``), ``"onnx"`` (``model.onnx``, needs the
        extra ``onnx``), ``"state_dict"`` (``model.pt``, for ``torch.load(..., weights_only=True)``)
        and ``"program"`` (``model.pt2``, the network itself, for ``torch.export.load``, which needs
        no code that builds it). By default all but the last.
    class_names
        The names of the K classes, for the description.
    architecture
        The name to build the network by, for the description; ``None`` for that of its class.
    task
        ``"multiclass"`` or ``"multilabel"``, for the description; ``None`` leaves it out.
    value_range
        The lowest and highest value of a pixel, before mean and std.
    mean, std
        One for each channel, if the network wants ``(pixels - mean) / std``; ``None`` if it takes
        the pixels as they are.
    resizing
        How images of other sizes become such, for the description; ``None`` leaves it out.
    built_by
        Plain values that the network can be built with again, for the description; ``None`` leaves
        them out.

    Returns
    -------
    dict
        The path of each format, and as ``"description"`` that of ``model.json``. This says what
        the network takes and gives, and the logits of one example: whoever builds the
        architecture for the weights can see whether it is the right one.

    Raises
    ------
    ImportError
        If a package is missing that ONNX needs.
    TypeError
        If ``backbone`` is no module, or holds what trains or runs one (``ISNet``,
        ``DataParallel``, ``torch.compile``).
    ValueError
        If a format is unknown, the network does not run on such images, its logits are not finite,
        names or numbers do not fit, or ONNX or ``torch.export`` cannot hold the network or gives
        other logits. Nothing has been written then.
    OSError
        If the files cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from faster_isnet.models import build_backbone
    >>> with TemporaryDirectory() as folder:
    ...     written = export(build_backbone("convnet", 3), folder, (3, 32, 32), ["safetensors"])
    ...     sorted(path.name for path in written.values())
    ['model.json', 'model.safetensors']
    """
    out = Path(out)
    files = {check_choice("format", name, FILES): FILES[name] for name in formats}
    _check_installed(files)
    _check_bare(backbone)
    _check_folder(out, [*files.values(), DESCRIPTION])
    images = _Images(image_shape, value_range, mean, std, resizing)
    model = deepcopy(backbone).cpu().eval()
    description = {
        "architecture": architecture or type(backbone).__name__,
        "task": task,
        **_interface(model, images, class_names, task),
        **({} if built_by is None else {"built_by": dict(built_by)}),
        "files": files,
        "versions": _versions(files),
    }
    paths = {name: out / file for name, file in {"description": DESCRIPTION, **files}.items()}
    new_folders = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with ExitStack() as stack:  # all are written before the first is put in its place
            staged = {
                name: stack.enter_context(replacing_atomically(path))
                for name, path in paths.items()
            }
            for name in files:
                with naming_unwritten(paths[name]):
                    _WRITERS[name](model, images, staged[name])
            text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
            staged["description"].write_text(text, encoding="utf-8")
    except BaseException:
        for folder in new_folders:
            folder.rmdir()
        raise
    return {name: paths[name] for name in (*files, "description")}


@dataclass(frozen=True)
class _Images:
    """The images that a network takes.

    Raises
    ------
    ValueError
        If the numbers are no shape, range, means and deviations.
    """

    shape: tuple[int, int, int]
    value_range: tuple[float, float]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    resizing: Resizing | None

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"image_shape must be (C, H, W), each at least 1, got {self.shape!r}")
        low, high = self.value_range
        if not low < high:
            raise ValueError(f"value_range must be (low, high) with low < high, got {low}, {high}")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean and std go together, got mean {self.mean}, std {self.std}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.shape[0]:
                raise ValueError(
                    f"{name} must have one value for each of the {self.shape[0]} channels, got "
                    f"{values}"
                )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return what the network gets for pixels ``[B, C, H, W]`` given as parts of the range."""
        low, high = self.value_range
        pixels = low + (high - low) * pixels
        if self.mean is None or self.std is None:
            return pixels
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return (pixels - mean[:, None, None]) / std[:, None, None]

    def grey(self) -> Tensor:
        """Return one image whose pixels are all in the middle of the range."""
        return self.normalised(torch.full((1, *self.shape), 0.5))

    def random(self) -> list[Tensor]:
        """Return batches of several sizes, the same ones every time."""
        generator = torch.Generator().manual_seed(0)
        return [
            self.normalised(torch.rand(size, *self.shape, generator=generator))
            for size in _BATCH_SIZES
        ]


@dataclass(frozen=True)
class Description:
    """Hold what :func:`export` says of a network.

    Attributes
    ----------
    architecture
        Its name.
    image_shape
        ``(C, H, W)``.
    statistics
        Mean and standard deviation of each channel for pixels in [0, 1]; ``None`` if it takes these
        as they are.
    class_names, task
        ``None`` if they are not known.
    resizing
        Of images to ``image_shape``.
    """

    architecture: str
    image_shape: tuple[int, int, int]
    statistics: tuple[list[float], list[float]] | None
    class_names: list[str] | None
    task: str | None
    resizing: Resizing = STRETCHED


def read_description(onnx: Path) -> Description | None:
    """Read what :func:`export` has written beside an ONNX file; ``None`` if there is nothing.

    Raises
    ------
    ValueError
        If the description is damaged.
    """
    path = onnx.with_name(DESCRIPTION)
    if onnx.name != FILES["onnx"] or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        given = content["input"]
        low, high = given["range"]
        width = high - low
        mean, std = given["mean"] or [0.0], given["std"] or [1.0]
        # Of low + width * x, where x is in [0, 1].
        statistics = [(m - low) / width for m in mean], [s / width for s in std]
        plain = set(statistics[0]) == {0.0} and set(statistics[1]) == {1.0}
        channels, rows, columns = given["shape"][1:]
        return Description(
            content["architecture"],
            (channels, rows, columns),
            None if plain else statistics,
            content["output"]["class_names"],
            content.get("task"),
            Resizing(**given.get("resizing") or {}),
        )
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{str(path)!r} does not describe {onnx.name} ({error!r}); export the network again, "
            "or remove the file and give what it would say"
        ) from error


def _check_installed(formats: Iterable[str]) -> None:
    packages = [package for name in formats for package in _PACKAGES.get(name, ())]
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ImportError(
            f"format 'onnx' needs {' and '.join(missing)}: pip install 'faster-isnet[onnx]', or "
            "choose other formats"
        )


def _check_bare(backbone: object) -> None:
    """Check that a network is a module that is not, and does not hold, what trains or runs it."""
    if not isinstance(backbone, nn.Module):
        raise TypeError(f"backbone must be a torch.nn.Module, got {type(backbone).__name__}")
    for name, module in backbone.named_modules():
        kind, inner = type(module).__name__, None
        if isinstance(module, ISNet):
            inner = "backbone"
        elif isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = "module"
        elif kind == "OptimizedModule":  # of torch.compile; importing its class takes seconds
            inner = "_orig_mod"
        if inner is not None:
            raise TypeError(
                f"module {name!r} is of type {kind}, which trains or runs the network and is no "
                f"part of it; export its .{inner}"
            )


def _check_folder(out: Path, files: Sequence[str]) -> None:
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; name a folder to export to")
    for file in files:
        if (out / file).is_dir():
            raise IsADirectoryError(f"{out / file} is a folder; move it, or export elsewhere")


def _interface(
    model: nn.Module, images: _Images, class_names: Sequence[str] | None, task: str | None
) -> dict[str, Any]:
    """Return what the network takes and gives, with an example."""
    logits = _logits(model, images.grey()).reshape(1, -1)
    outputs, classes = logits.shape[1], class_logits(logits, task or "multiclass").shape[1]
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"class_names has {len(class_names)} names ({', '.join(class_names)}), the network "
            f"has {classes} classes"
        )
    low, high = images.value_range
    return {
        "input": {
            "name": "images",
            "shape": ["batch", *images.shape],
            "type": "float32",
            "range": [low, high],
            "mean": images.mean if images.mean is None else list(images.mean),
            "std": images.std if images.std is None else list(images.std),
            "resizing": None if images.resizing is None else asdict(images.resizing),
        },
        "output": {
            "name": "logits",
            "shape": ["batch", outputs],
            "type": "float32",
            "class_names": class_names if class_names is None else list(class_names),
        },
        "example": {"all_pixels": (low + high) / 2, "logits": logits[0].tolist()},
    }


def _versions(formats: Iterable[str]) -> dict[str, str]:
    packages = [package for name in formats for package in _PACKAGES.get(name, ())]
    of_packages = {name: version(name) for name in ("torch", "torchvision", *packages)}
    return {"python": platform.python_version(), **of_packages}


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of a network, checked."""
    try:
        with torch.no_grad():
            logits = model(images)
    except Exception as error:  # whatever a user's network may raise
        raise ValueError(
            f"{type(model).__name__} does not run on {images.dtype} images {list(images.shape)} "
            f"({type(error).__name__}: {error}); give the image_shape that it takes, and a network "
            "in float32"
        ) from error
    check_logits(logits, len(images))
    if not bool(logits.isfinite().all()):
        raise ValueError(
            "the network's logits are NaN or infinite; look for weights that have grown without "
            "bound, and take an earlier checkpoint"
        )
    return logits  # type: ignore[no-any-return]


def _write_safetensors(model: nn.Module, images: _Images, path: Path) -> None:
    try:
        save_model(model, str(path), metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.parent / FILES['safetensors']} cannot be written: {error}") from error


def _write_state_dict(model: nn.Module, images: _Images, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(model.state_dict(), file)


def _write_onnx(model: nn.Module, images: _Images, path: Path) -> None:
    """Write and check the ONNX file."""
    size = sum(value.nbytes for value in model.state_dict().values())
    if size >= _ONNX_BYTES:
        raise ValueError(
            f"an ONNX file holds less than 2 GiB, the network's weights are {size / 2**30:.1f}; "
            "choose other formats"
        )
    batches = images.random()
    try:
        exported = torch.onnx.export(
            model,
            (batches[1],),  # two images: the exporter would take a single one for a constant
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(_cannot_be("ONNX file", model, error.__cause__ or error)) from error
    assert exported is not None  # it is for the exporter of old
    proto = exported.model_proto
    for node in proto.graph.node:  # where in whose files the Python code stood
        del node.metadata_props[:]
    path.write_bytes(proto.SerializeToString())
    _check_onnx(path, model, batches)


def _check_onnx(path: Path, model: nn.Module, batches: Sequence[Tensor]) -> None:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    _check_same("ONNX file", run, model, batches)


def _write_program(model: nn.Module, images: _Images, path: Path) -> None:
    """Write and check what :func:`torch.export.export` makes of the network."""
    batches = images.random()
    try:
        program = torch.export.export(
            model, (batches[1],), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        for module in program.graph_module.modules():
            for node in getattr(getattr(module, "graph", None), "nodes", ()):
                for where in _WHERE_CODE_STOOD:
                    node.meta.pop(where, None)
        content = io.BytesIO()
        torch.export.save(program, content)
    except Exception as error:  # of torch's tracing, which have no common type
        raise ValueError(_cannot_be("program", model, error)) from error
    path.write_bytes(content.getvalue())
    content.seek(0)
    _check_same("program", torch.export.load(content).module(), model, batches)


def _cannot_be(what: str, model: nn.Module, error: BaseException) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{type(model).__name__} cannot be written as {what}, for batches of any size ({reason}); "
        "choose other formats"
    )


def _check_same(
    what: str, run: Callable[[Tensor], Tensor], model: nn.Module, batches: Sequence[Tensor]
) -> None:
    """Check that what was written gives the network's logits.

    Raises
    ------
    ValueError
        If not.
    """
    for images in batches:
        try:
            with torch.no_grad():
                found = run(images)
        except Exception as error:  # onnxruntime's and torch's, which have no common type
            raise ValueError(_cannot_be(what, model, error)) from error
        expected = _logits(model, images)
        difference = float((found - expected).abs().max())
        # Written so that NaN fails, too.
        if not difference <= TOLERANCE and not difference <= _rounding(model, images, expected):
            raise ValueError(
                f"the logits of the {what} differ by {difference:.1e} from the network's, of up to "
                f"{float(expected.abs().max()):.1e}, on {len(images)} random images, more "
                f"than {TOLERANCE:g}; look for logits that have grown without bound, or choose "
                "other formats"
            )


def _rounding(model: nn.Module, images: Tensor, logits: Tensor) -> float:
    """Return ten times what noise of the size of rounding errors changes logits by.

    It is large for a network with a hard threshold, such as a segmenter before a classifier: a
    pixel at the threshold may be decided either way. 0 for a network that does not repeat itself,
    whose changes are no rounding.
    """
    if not float((_logits(model, images) - logits).abs().max()) <= TOLERANCE:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    noises = [1e-6 * torch.randn(images.shape, generator=generator) for _ in range(5)]
    changes = [(_logits(model, images * (1 + noise)) - logits).abs().max() for noise in noises]
    return 10 * float(torch.stack(changes).max())


_WRITERS = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "state_dict": _write_state_dict,
    "program": _write_program,
}
