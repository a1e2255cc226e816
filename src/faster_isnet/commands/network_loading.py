"""Load the networks that commands take: runs of ours, and networks that others have trained."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean

import torch
from jsonargparse import Namespace
from torch import nn

from faster_isnet.commands.arguments import CommandParser, parameters
from faster_isnet.commands.model_bundle import AS_THEY_ARE, ModelBundle, check_runs
from faster_isnet.commands.run_folder import best_checkpoint, checkpoint_folder
from faster_isnet.common.checks import (
    TASKS,
    check_channels,
    check_choice,
    check_logits,
    check_range,
)
from faster_isnet.common.files import check_file
from faster_isnet.common.logits import class_logits
from faster_isnet.common.resizing import STRETCHED, Resizing
from faster_isnet.methods import Standard
from faster_isnet.models import backbone_names, build_backbone, check_backbone
from faster_isnet.models.backbones import PublishedImages, published_images, published_network
from faster_isnet.models.imagenet import IMAGENET, imagenet_names
from faster_isnet.models.input_channels import IMAGENET_MEAN, IMAGENET_STD
from faster_isnet.models.own_networks import (
    LogitsOfProbabilities,
    OnnxNetwork,
    input_shape_of,
    is_onnx,
    is_torchscript,
    load_torchscript,
    network_from_code,
    resizing_of,
    source_of,
    statistics_of,
)
from faster_isnet.models.timm_models import PREFIX as TIMM
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.export import read_description
from faster_isnet.training.hub import is_on_hub
from faster_isnet.training.image_classifier import Normalise

log = logging.getLogger(__name__)

LOGITS, PROBABILITIES = "logits", "probabilities"
_ANY_SHAPE = (None, None, None)
_SCALES = (1.0, 1.0, 10.0, -10.0, 100.0, -100.0, 1000.0, -1000.0)


def add_network_options(parser: CommandParser) -> None:
    """Add what must be known of networks that ``faster-isnet fit`` has not trained."""
    parser.add_parameters(NetworkOptions)


@dataclass(frozen=True)
class NetworkOptions:
    """Say what must be known of a network that ``faster-isnet fit`` has not trained.

    Parameters
    ----------
    weights
        Its weights, of a network by its name or of a function that builds one: a file (default: a
        network's own pretrained ones, which are downloaded on first use; what the function loads).
    classes
        How many it has, of a network by its name with a file of weights (default: 1000; its own
        pretrained weights have theirs).
    size
        Of its images, in pixels (default: its own, else 224).
    channels
        Of its images, 3 or 1 (default: its own, else 3).
    mean, std
        Of each channel, if it takes (x − mean) / std for pixels x in [0, 1] (default: its own where
        they are known, else pixels as they are).
    crop_mode
        center, which resizes the shorter side to size / crop_pct and cuts out the middle, or
        squash, which resizes both sides so, whatever the aspect ratio (default: its own, else
        squash).
    crop_pct
        The part of the resized image's sides that is cut out, in (0, 1] (default: its own, else 1).
    interpolation
        bilinear or bicubic, antialiased (default: its own, else bilinear).
    class_names
        A file with a name in each line, or imagenet for ImageNet's 1,000 (default: its own where
        they are known, else numbers).
    task
        multiclass (softmax) or multilabel (sigmoid) (default: as its description says, else
        multiclass).
    outputs
        logits, or probabilities if it ends in a softmax or sigmoid; then it is not explained
        (default: logits, and it is refused if they look like probabilities).
    """

    weights: Path | None = None
    classes: int | None = None
    size: int | None = None
    channels: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    crop_mode: str | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    class_names: str | None = None
    task: str | None = None
    outputs: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the network."""
        if self.task is not None:
            check_choice("task", self.task, TASKS)
        if self.outputs is not None:
            check_choice("outputs", self.outputs, (LOGITS, PROBABILITIES))
        if self.size is not None:
            check_range("size", self.size, 1)
        if self.channels is not None:
            check_channels(self.channels)
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"mean is {self.mean} and std {self.std}; give both, one for each channel, or none"
            )
        if self.std is not None and not min(self.std) > 0:
            raise ValueError(f"std must be above 0, got {self.std}")
        self.resizing(STRETCHED)  # its checks

    def resizing(self, own: Resizing) -> Resizing:
        """Return how images are resized: as the options say, else as the network's own."""
        given = {name: getattr(self, name) for name in ("crop_mode", "crop_pct", "interpolation")}
        return replace(own, **{name: each for name, each in given.items() if each is not None})

    def check_unused(self, model: str) -> None:
        """Raise ``ValueError`` if anything is said of a checkpoint, which knows it all."""
        default = NetworkOptions()
        for field in fields(self):
            if (value := getattr(self, field.name)) != getattr(default, field.name):
                raise ValueError(
                    f"--{field.name} {value} is for networks of others, such as resnet50, but "
                    f"{model!r} is a checkpoint of faster-isnet fit, which has it; leave it out"
                )


def is_of_fit(model: str) -> bool:
    """Return whether a model is a folder or a checkpoint of ``faster-isnet fit``, not another's.

    It is by what it is called and by its kind of file; what the file holds is not looked at.
    """
    path = Path(model)
    if path.is_dir():
        return checkpoint_folder(path).is_dir() or model not in backbone_names()
    return path.is_file() and not is_onnx(path) and not is_torchscript(path)


def load_network(model: str, options: Namespace) -> ModelBundle:
    """Load a network as :func:`add_network_options` says."""
    return load_model(model, NetworkOptions(**parameters(NetworkOptions, options)))


def load_model(model: str, options: NetworkOptions | None = None) -> ModelBundle:
    """Load a trained network, whoever trained it.

    Parameters
    ----------
    model
        A checkpoint of ``faster-isnet fit`` or a run's folder; an ONNX file (``.onnx``) or a
        TorchScript program; a function that builds a network, ``"package.module:function"``;
        a classifier of ``faster-isnet push``, ``"hub:ORG/NAME"``, which is fetched; or a network's
        name, such as ``"resnet50"`` or ``"timm:…"``.
    options
        What must be known of networks that ``faster-isnet fit`` has not trained.

    Raises
    ------
    OSError
        If it is a path of no file, or of a folder that is no run's.
    ValueError
        If an option does not fit the network; if a name is unknown.
    """
    options = NetworkOptions() if options is None else options
    path = Path(model)
    if is_on_hub(model):
        options.check_unused(model)
        return ModelBundle.from_hub(model)
    if is_of_fit(model):
        options.check_unused(model)
        return ModelBundle.from_checkpoint(best_checkpoint(path) if path.is_dir() else path)
    if is_onnx(path):
        return _of_onnx(path, options)
    if path.is_file():
        _check_own_weights(path, options)
        network = load_torchscript(path)
        return replace(_of_others(network, options, differentiable=False), file=path)
    if ":" in model and not model.startswith(TIMM):
        network = network_from_code(model, options.weights)
        shape = input_shape_of(network) or _ANY_SHAPE
        bundle = _of_others(network, options, statistics_of(network), shape, resizing_of(network))
        return replace(bundle, code=source_of(model))
    if not model.startswith(TIMM) and (path.suffix or path.name != model):
        raise FileNotFoundError(
            f"there is no file {model!r}; give a checkpoint or a run's folder (train first: "
            "faster-isnet fit), hub:ORG/NAME, a network's name (resnet50, timm:…), "
            "package.module:function, "
            "or an ONNX or TorchScript file"
        )
    return _by_name(model, options)


def _by_name(name: str, options: NetworkOptions) -> ModelBundle:
    """Build a network, with weights from a file or its own."""
    channels = options.channels or 3
    try:
        check_backbone(name)
    except ValueError as error:
        raise ValueError(
            f"there is no run or file {name!r}, and no such network: {error}"
        ) from error
    if options.weights is not None:
        classes = 1000 if options.classes is None else options.classes
        network = build_backbone(name, classes, channels=channels)
        load_backbone_weights(options.weights, network)
        if options.mean is None and (name.startswith(TIMM) or published_images(name)):
            log.warning(
                "nothing says what was done to images for the weights of %s: pixels are given in "
                "[0, 1], as they are, and images are resized without a crop. If it was as for the "
                "published weights of %s, add %s",
                *(options.weights, name, _as_options(_images_of(name, network, channels))),
            )
        return replace(_of_others(network, options), architecture=name)
    network = published_network(name, channels)
    images = _images_of(name, network, channels)
    statistics = images.mean, images.std
    bundle = _of_others(network, options, statistics, images.shape, images.resizing)
    count = len(bundle.class_names)
    if options.classes not in (None, count):
        raise ValueError(
            f"the published weights of {name} have {count} classes, not {options.classes}; a "
            "head of as many would not be trained: leave out --classes, or give your own "
            "--weights"
        )
    if options.class_names is None and count == len(imagenet_names()):
        bundle = replace(bundle, class_names=imagenet_names())
    return replace(bundle, architecture=name)


def _images_of(name: str, network: nn.Module, channels: int) -> PublishedImages:
    """Return what the published weights of a network expect."""
    known = published_images(name)
    if known is None:
        mean, std = statistics_of(network) or (list(IMAGENET_MEAN), list(IMAGENET_STD))
        shape = input_shape_of(network) or (3, 224, 224)
        known = PublishedImages(mean, std, shape, resizing_of(network))
    if channels == 1:
        known = replace(known, mean=[fmean(known.mean)], std=[fmean(known.std)])
    return replace(known, shape=(channels, *known.shape[1:]))


def _as_options(images: PublishedImages) -> str:
    """Return the options that say the same."""
    mean, std = (" ".join(f"{value:g}" for value in each) for each in (images.mean, images.std))
    resizing = images.resizing
    return (
        f"--mean {mean} --std {std} --crop_mode {resizing.crop_mode} --crop_pct "
        f"{resizing.crop_pct:.9g} --interpolation {resizing.interpolation}"
    )


def _of_onnx(path: Path, options: NetworkOptions) -> ModelBundle:
    _check_own_weights(path, options)
    network = OnnxNetwork(path)
    described = read_description(path)
    if described is None:
        bundle = _of_others(network, options, image_shape=network.image_shape, differentiable=False)
        return replace(bundle, architecture=path.name, file=path)
    if described.task not in (None, options.task or described.task):
        raise ValueError(
            f"--task is {options.task}, but the description of {path.name} says "
            f"{described.task}; leave out --task"
        )
    bundle = _of_others(
        network,
        replace(options, task=options.task or described.task),
        described.statistics,
        described.image_shape,
        described.resizing,
        described.class_names,
        differentiable=False,
    )
    return replace(bundle, architecture=described.architecture, file=path)


def _of_others(
    network: nn.Module,
    options: NetworkOptions,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    image_shape: Sequence[int | None] = _ANY_SHAPE,
    resizing: Resizing = STRETCHED,
    class_names: Sequence[str] | None = None,
    *,
    differentiable: bool = True,
) -> ModelBundle:
    """Put a network that takes normalised images behind its normalisation, and name classes."""
    channels, height, width = (a or b for a, b in zip(image_shape, (3, 224, 224), strict=True))
    if options.size is not None:
        height = width = options.size
    shape = options.channels or channels, height, width
    known, whose = statistics, "its own"
    if options.mean is not None and options.std is not None:
        known, whose = (options.mean, options.std), "as given"
    words = AS_THEY_ARE
    if known is not None:
        mean, std = (_for_each_channel(each, shape[0]) for each in known)
        parts = OrderedDict(normalise=Normalise(mean, std), network=network)
        words = f"(x − mean) / std with mean {mean} and std {std} ({whose})"
    whole = network if known is None else nn.Sequential(parts)
    whole.eval()  # before it is run, which would change the statistics of batch norms
    task = options.task or "multiclass"
    count, softmax = _look_at_outputs(whole, shape, task, options.outputs)
    if options.outputs == PROBABILITIES:
        whole, differentiable = LogitsOfProbabilities(whole, softmax).eval(), False
    return ModelBundle(
        whole,
        type(network).__name__,
        _class_names(options.class_names, class_names, count),
        shape,
        task,
        Standard().inputs,
        differentiable=differentiable,
        resizing=options.resizing(resizing),
        normalisation=words,
    )


def _for_each_channel(values: Sequence[float], channels: int) -> list[float]:
    if len(values) not in (1, channels):
        raise ValueError(
            f"mean or std has {len(values)} values, {list(values)}, but images have {channels} "
            "channels; give one for each"
        )
    return list(values) * (channels if len(values) == 1 else 1)


def _check_own_weights(path: Path, options: NetworkOptions) -> None:
    if options.weights is not None:
        raise ValueError(f"{str(path)!r} has its own weights; leave out --weights")


def _look_at_outputs(
    network: nn.Module, image_shape: tuple[int, int, int], task: str, outputs: str | None
) -> tuple[int, bool]:
    """Return how many classes a network has, and whether its outputs sum to 1.

    Raises
    ------
    ValueError
        If it does not run on such images, or its outputs are not what is said of them.
    """
    check_runs(network, image_shape, "the network")
    # Of bright and dark noise that no image has, too, where logits go far beyond 1.
    scales = torch.tensor(_SCALES).reshape(-1, 1, 1, 1)
    noise = torch.rand(len(_SCALES), *image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network(scales * noise)
    check_logits(found, len(_SCALES))
    rows = found.double().reshape(len(_SCALES), -1)
    in_range = bool(((rows >= 0) & (rows <= 1)).all())
    softmax = rows.shape[1] > 1 and bool(((rows.sum(1) - 1).abs() < 1e-3).all())
    if in_range and outputs is None and (softmax or rows.shape[1] == 1 or task == "multilabel"):
        raise ValueError(
            f"the network's outputs for {len(_SCALES)} random images lie in [0, 1]"
            f"{', and sum to 1' if softmax else ''}: they seem to be probabilities, not logits; "
            "say which they are: --outputs; for probabilities to be explained, too, leave out the "
            "last softmax or sigmoid"
        )
    if outputs == PROBABILITIES and not in_range:
        raise ValueError(
            f"the network's outputs are no probabilities: they lie in [{float(rows.min()):g}, "
            f"{float(rows.max()):g}]; leave out --outputs"
        )
    return class_logits(found, task).shape[1], softmax


def _class_names(given: str | None, own: Sequence[str] | None, count: int) -> list[str]:
    """Return what classes are called: as the user says, as the file does, or by their numbers."""
    if given == IMAGENET:
        names = imagenet_names()
    elif given is not None:
        check_file(Path(given), "file of class names")
        names = Path(given).read_text(encoding="utf-8").split("\n")
        names = [name.strip() for name in names if name.strip()]
    else:
        names = [str(number) for number in range(count)] if own is None else list(own)
    if len(names) != count:
        raise ValueError(
            f"there are {len(names)} class names, but the network has {count} classes; give as "
            "many names (--class_names), in the order of its logits"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two classes are called {twice[0]!r}; give each a name of its own")
    return names
