"""Load trained networks that were not built here: from Python code, TorchScript and ONNX files."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from faster_isnet.common.files import check_file
from faster_isnet.common.onnx_session import onnx_session
from faster_isnet.common.resizing import CROP_MODES, SQUASH, STRETCHED, Resizing
from faster_isnet.models.weight_files import load_backbone_weights


def is_onnx(path: Path) -> bool:
    """Return whether there is a file that is ONNX by its suffix."""
    return path.is_file() and path.suffix.lower() == ".onnx"


def is_torchscript(path: Path) -> bool:
    """Return whether a file holds a TorchScript program, by its table of contents."""
    if not path.is_file() or not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def load_torchscript(path: str | Path) -> nn.Module:
    """Load a TorchScript program, in evaluation mode on the CPU.

    Its code is run by torch's interpreter; load only files of those whom you trust. It cannot be
    explained, since its functions cannot be intercepted.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is none.
    """
    path = Path(path)
    check_file(path, "TorchScript file")
    try:
        loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(
            f"{str(path)!r} is no TorchScript file ({error}); export it anew"
        ) from error
    return cast(nn.Module, loaded.eval())


def network_from_code(name: str, weights: Path | None = None) -> nn.Module:
    """Call a function that builds a network, and load its weights.

    Parameters
    ----------
    name
        ``"package.module:function"``, found as Python finds modules, and in the working directory.
        The function takes no arguments. Importing it runs its module's code.
    weights
        A file of weights, see :func:`~faster_isnet.models.load_backbone_weights`; ``None`` if the
        function loads them itself.

    Returns
    -------
    torch.nn.Module
        In evaluation mode.

    Raises
    ------
    ImportError
        If there is no such module.
    TypeError
        If what it returns is no ``torch.nn.Module``.
    ValueError
        If the module has no such function; as
        :func:`~faster_isnet.models.load_backbone_weights` does.
    """
    module_name, _, function = name.partition(":")
    with _importing_from_here():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ImportError(
                f"{name!r} cannot be imported ({error}); write package.module:function, of a "
                "module that is installed or in the working directory"
            ) from error
        if not callable(build := getattr(module, function, None)):
            raise ValueError(
                f"module {module_name!r} has no function {function!r}; name one that returns the "
                "network: package.module:function"
            )
        network = build()
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"{name} returned {type(network).__name__}; it must return a torch.nn.Module"
        )
    if weights is not None:
        load_backbone_weights(weights, network)
    return network.eval()


class LogitsOfProbabilities(nn.Module):
    """Return logits of a network that ends in a softmax or a sigmoid.

    Parameters
    ----------
    network
        Returns probabilities ``[B, K]``, ``[B, 1]`` or ``[B]``.
    softmax
        Whether those of an image sum to 1; otherwise each is a sigmoid's.
    """

    def __init__(self, network: nn.Module, softmax: bool) -> None:
        super().__init__()
        self.network, self.softmax = network, softmax

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        probabilities: Tensor = self.network(images).double()
        if self.softmax:
            return probabilities.clamp(min=torch.finfo(torch.float64).tiny).log()
        return torch.logit(probabilities, eps=1e-12)


def statistics_of(network: nn.Module) -> tuple[list[float], list[float]] | None:
    """Return mean and standard deviation that a network's configuration names, as timm's do."""
    known = _configuration(network)
    if not known.get("mean") or not known.get("std"):
        return None
    return [float(each) for each in known["mean"]], [float(each) for each in known["std"]]


def input_shape_of(network: nn.Module) -> tuple[int, int, int] | None:
    """Return ``(C, H, W)`` of the images that a network's configuration names, as timm's do."""
    shape = _configuration(network).get("input_size")
    return None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2]))


def resizing_of(network: nn.Module) -> Resizing:
    """Return how a network's configuration has images resized, as timm's do; else stretched.

    timm's ``"border"`` sets images between bars, which would count as background; here they are
    resized to the whole size instead.
    """
    known = _configuration(network)
    names = ("crop_mode", "crop_pct", "interpolation")
    if not all(known.get(name) for name in names):
        return STRETCHED
    mode, part, interpolation = (known[name] for name in names)
    return Resizing(mode if mode in CROP_MODES else SQUASH, part, interpolation)


def _configuration(network: nn.Module) -> Mapping[str, Any]:
    for name in ("pretrained_cfg", "default_cfg"):
        if isinstance(known := getattr(network, name, None), Mapping):
            return known
    return {}


def source_of(name: str) -> Path | None:
    """Return the file of the module that :func:`network_from_code` has imported."""
    file = sys.modules[name.partition(":")[0]].__file__
    return None if file is None else Path(file)


class OnnxNetwork(nn.Module):
    """Run an ONNX file with onnxruntime, on the CPU; it has no gradients, and is not explained.

    Parameters
    ----------
    path
        Of a network with one input ``[B, C, H, W]`` in float32, whose first output is the logits
        ``[B, K]``. If B is fixed, images are passed in batches of that size, the last one filled
        up.

    Attributes
    ----------
    image_shape
        ``(C, H, W)``, each ``None`` where the file takes any.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the file cannot be read, or takes something else than images.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        check_file(Path(path), "ONNX file")
        self._session = onnx_session(Path(path))
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            taken = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
            raise ValueError(
                f"{str(path)!r} takes {taken}; expected one input of float32 images [B, C, H, W]"
            )
        self._input = inputs[0].name
        self._output = self._session.get_outputs()[0].name
        batch, *shape = (each if isinstance(each, int) else None for each in inputs[0].shape)
        self._batch = batch
        self.image_shape = (shape[0], shape[1], shape[2])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images ``[B, C, H, W]``."""
        size = self._batch or max(1, len(images))
        return torch.cat([self._run(part, size) for part in torch.split(images, size)]).to(images)

    def _run(self, images: Tensor, size: int) -> Tensor:
        missing = size - len(images)
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        try:
            (logits,) = self._session.run([self._output], {self._input: filled.cpu().numpy()})
        except Exception as error:  # onnxruntime's, which have no common type
            raise ValueError(
                f"the ONNX file does not run on {list(filled.shape)}: {error}"
            ) from error
        return torch.from_numpy(logits)[: len(images)]


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Find modules in the working directory, too, as ``python -m`` does but a command does not."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before
