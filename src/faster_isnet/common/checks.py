"""Check arguments; messages of errors contain the value, what was expected, and the cure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from inspect import Parameter, signature
from numbers import Real

import torch
from torch import Tensor, nn

from faster_isnet.common.names import nearest
from faster_isnet.common.precision import autocasts
from faster_isnet.common.torch_private import is_compiled

TASKS = ("multiclass", "multilabel")
"""One class per image, or any number of classes per image (multi-label)."""
NO_MASK = -1.0
"""Masks filled with this value stand for samples without a mask."""
NO_ATTRIBUTE = -1
"""The attribute of samples of which it is not known what their background shows."""


def check_choice(kind: str, name: object, known: Iterable[str]) -> str:
    """Check that ``name`` is one of the ``known`` names, and return it.

    Parameters
    ----------
    kind
        What the name is for, in the message (``"variant"``, ``"layer"``, …).
    name
        The name to check.
    known
        The valid names.

    Raises
    ------
    TypeError
        If ``name`` is not a string.
    ValueError
        If ``name`` is unknown; the message lists the known names and suggests the most similar one.

    Examples
    --------
    >>> check_choice("variant", "selective", ["selective", "original"])
    'selective'
    >>> check_choice("variant", "selectve", ["selective", "original"])
    Traceback (most recent call last):
    ...
    ValueError: unknown variant 'selectve'; did you mean 'selective'? Known: 'original', 'selective'
    """
    names = sorted(known)
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be a string, got {type(name).__name__}: {name!r}")
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean {near!r}? " if near else ""
        listed = ", ".join(map(repr, names[:40])) + (", …" if len(names) > 40 else "")
        raise ValueError(f"unknown {kind} {name!r}; {hint}Known: {listed}")
    return name


def check_explainable(model: object) -> None:
    """Check that a model is a module whose function calls can be intercepted.

    Raises
    ------
    TypeError
        If it is not a module, or contains TorchScript, DataParallel or compiled modules.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    seen, rest = set[nn.Module](), [model]
    while rest:  # like model.named_modules(), in an eighth of the time
        module = rest.pop()
        if module in seen:
            continue
        seen.add(module)
        rest += module.children()
        if obstacle := _obstacle(module):
            name = next(name for name, other in model.named_modules() if other is module)
            raise TypeError(f"module {name!r} {obstacle}")


def _obstacle(module: nn.Module) -> str | None:
    """Describe why calls in a module cannot be intercepted, with a cure; ``None`` if they can."""
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "is TorchScript, whose functions cannot be intercepted; explain the Python module it "
            "was made from"
        )
    if isinstance(module, nn.DataParallel):
        return (
            "is a DataParallel, which runs the model in other threads; explain its .module, or "
            "train with DistributedDataParallel"
        )
    if type(module).__name__ == "OptimizedModule":  # importing its class takes seconds
        return (
            "is compiled by torch.compile, whose functions cannot be intercepted; explain the "
            "module it was made from, its ._orig_mod"
        )
    if is_compiled(module):
        return (
            "is compiled by its method compile(), so its functions cannot be intercepted; use "
            "compiled = torch.compile(module) for inference instead, which leaves the module "
            "itself as it is"
        )
    return None


def check_images(images: object) -> None:
    """Check that images are a batch of finite float32 or float64 values.

    Raises
    ------
    TypeError
        If they are not a tensor of such a type.
    ValueError
        If there is no batch dimension, the batch is empty, or a value is not finite (not checked
        on an accelerator, see :func:`is_on_host`).
    """
    if not isinstance(images, Tensor):
        cure = (
            "; give the tensor alone, or call attribute(), which captum's metrics take"
            if isinstance(images, (tuple, list))
            else ""
        )
        raise TypeError(
            f"images must be a torch.Tensor [B, ...], got {type(images).__name__}{cure}"
        )
    _check_dense("images", images)
    if images.dtype not in (torch.float32, torch.float64):
        cure = (
            "half precision has too few digits for the stabiliser; use images.float()"
            if images.is_floating_point()
            else "scale them to floats, for example images.float() / 255"
        )
        raise TypeError(f"images must be float32 or float64, got {images.dtype}; {cure}")
    if images.dim() < 2 or images.numel() == 0:
        raise ValueError(f"images must be a batch [B, ...], got shape {list(images.shape)}")
    check_image_values(images)


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else tensor.layout
        cure = "stack them" if tensor.is_nested else f"use {name}.to_dense()"
        raise TypeError(f"{name} must be a dense tensor, got {kind}; {cure}")


def is_on_host(tensor: Tensor) -> bool:
    """Return whether a tensor's values can be read without synchronising with a device.

    Reading values on an accelerator waits for all operations in its queue.
    """
    return tensor.device.type == "cpu"


def check_image_values(images: Tensor) -> None:
    """Check that images in host memory are finite.

    Raises
    ------
    ValueError
        If a value is not finite; the message lists the samples.
    """
    if is_on_host(images) and not bool(images.isfinite().all()):
        bad = [i for i, image in enumerate(images) if not bool(image.isfinite().all())]
        raise ValueError(f"images hold NaN or infinite values, in samples {bad[:10]} of the batch")


_BEYOND_BOUNDS = 0.05
"""How far pixels may lie outside of zB's bounds, as a part of the distance between the bounds."""


def check_image_range(images: Tensor, low: Tensor, high: Tensor) -> None:
    """Check that images in host memory lie in zB's box, and so are finite, in one pass over them.

    A twentieth of the box's width beyond it is accepted, for noise and interpolation.

    Parameters
    ----------
    images
        ``[B, C, ...]``.
    low, high
        The box: ``[C]``, or ``[1]`` for all channels.

    Raises
    ------
    ValueError
        If a pixel is not finite or lies outside; the message says the range found.
    """
    if not is_on_host(images):
        return
    channels = [images] if len(low) == len(high) == 1 else images.unbind(1)
    lowest, highest = map(torch.stack, zip(*map(torch.aminmax, channels), strict=True))
    slack = _BEYOND_BOUNDS * (high - low)
    if bool(((lowest >= low - slack) & (highest <= high + slack)).all()):
        return
    check_image_values(images)
    found = f"[{lowest.min().item():.4g}, {highest.max().item():.4g}]"
    expected = f"[{low.min().item():.4g}, {high.max().item():.4g}]"
    raise ValueError(
        f"the pixels lie in {found}, but input_rule='zb' needs them between input_low and "
        f"input_high, {expected}: scale the images (images.float() / 255), or set input_low and "
        "input_high to the bounds of what the model reads, -mean/std and (1-mean)/std of each "
        "channel for images that are normalised; input_rule=None needs no bounds"
    )


def check_single_input(model: nn.Module) -> None:
    """Check that a model can be called with a batch of images alone.

    Raises
    ------
    TypeError
        If it needs more; the message names what.
    """
    needed = _needed_arguments(type(model).forward)
    if len(needed) > 1 and not model._forward_pre_hooks:  # which may add what is missing
        raise TypeError(
            f"{type(model).__name__}.forward needs {', '.join(needed)}, but only images are given; "
            "wrap the model in a module that holds the other inputs, or makes them of the images"
        )


@cache
def _needed_arguments(forward: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of the arguments that have no defaults, without ``self``."""
    parameters = list(signature(forward).parameters.values())[1:]
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in parameters if p.default is Parameter.empty and p.kind in kinds)


def check_quantity(quantity: object, batch: int, target: object) -> None:
    """Check that explained quantities are scalars ``[batch, K]``.

    Raises
    ------
    TypeError
        If it is not a tensor.
    ValueError
        If its shape differs.
    """
    target = getattr(target, "__name__", target)  # repr() of a function holds an address
    if not isinstance(quantity, Tensor):
        raise TypeError(
            f"target {target!r} must return a tensor [B, K], got {type(quantity).__name__}"
        )
    if quantity.dim() != 2 or len(quantity) != batch or not quantity.shape[1]:
        raise ValueError(
            f"target {target!r} must return scalars [B, K] with B = {batch}, got shape "
            f"{list(quantity.shape)}; keep the class dimension (keepdim=True)"
        )


def refusal(error: Exception, model: nn.Module, images: Tensor) -> Exception:
    """Return what to say of an error in a model's forward pass, if the images do not suit it.

    Returns
    -------
    Exception
        A ``TypeError`` or ``ValueError`` that names dtype, device or shape; else ``error`` itself.
    """
    weights = [p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()]
    of_weights, of_images = (
        {(t.dtype, t.device.type) for t in tensors} for tensors in (weights, [images])
    )
    if weights and not of_weights & of_images:
        return TypeError(
            f"images are {images.dtype} on {images.device.type}, but the model's weights are "
            f"{weights[0].dtype} on {weights[0].device.type}: {error}; move the images with "
            "images.to(device, dtype), or the model with model.to(device, dtype)"
        )
    if any(words in str(error) for words in _OF_SHAPES):
        return ValueError(
            f"the model does not take images of shape {list(images.shape)}: {error}; give images "
            "[B, channels, height, width] of the size that the model was made for"
        )
    return error


# What PyTorch's errors say of inputs of another shape.
_OF_SHAPES = ("expected input[", "cannot be multiplied", "D input (got", "Expected 3D (unbatched)")


def check_finite_explanation(logits: Tensor, quantity: Tensor, heatmap: Tensor) -> None:
    """Check in host memory that an explanation is finite.

    Raises
    ------
    FloatingPointError
        If a value is not; the message lists the samples and says what is not finite first.
    """
    if not is_on_host(heatmap):
        return
    for name, values in (("output", logits), ("quantity", quantity), ("heatmap", heatmap)):
        finite = values.isfinite().reshape(len(values), -1).all(1)
        if bad := (~finite).nonzero().flatten().tolist():
            raise FloatingPointError(
                f"the {name} of samples {bad[:10]} of the batch is not finite; look for weights "
                "that have grown without bound, or for a target or function of the model that has "
                "no finite value or gradient there"
            )


def check_precision(images: Tensor, composite: str) -> None:
    """Check that autocast is off, for a composite that needs full precision.

    Raises
    ------
    RuntimeError
        If autocast is on.
    """
    device = images.device.type
    if autocasts(device):
        raise RuntimeError(
            f"autocast is on for {device}, but composite {composite!r} needs full precision; "
            "explain outside of torch.autocast, or inside of torch.autocast(..., enabled=False); "
            "train with precision='32-true', or a variant with composite 'flex'"
        )


def check_parameters(model: nn.Module, images: Tensor, composite: str) -> None:
    """Check that no module is in half precision, for a composite that needs full precision.

    Raises
    ------
    RuntimeError
        If a parameter is; the message names its module and both dtypes.
    """
    for name, parameter in model.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            module = name.rpartition(".")[0] or type(model).__name__
            raise RuntimeError(
                f"module {module!r} is in {parameter.dtype}, the images are in {images.dtype}, but "
                f"composite {composite!r} needs full precision; use model.float(), or "
                "composite='flex'"
            )


def check_logits(logits: object, batch: int) -> None:
    """Check that a model's output is logits ``[batch, C]``, or one for yes or no ``[batch]``.

    Raises
    ------
    TypeError
        If it is not a floating point tensor.
    ValueError
        If its shape differs.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model must return logits [B, C], got {type(logits).__name__}; wrap it so that "
            "it returns the tensor only (torchvision's GoogLeNet and Inception: aux_logits=False)"
        )
    if logits.dim() not in (1, 2) or len(logits) != batch or not logits.numel():
        raise ValueError(
            f"the model must return logits [B, C] with B = {batch} (or a single one for yes or no, "
            f"[B, 1] or [B]), got shape {list(logits.shape)}"
        )


def check_range(
    name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False
) -> float:
    """Check that ``value`` is a finite number from ``low`` to ``high``, and return it.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is out of range, or equals ``low`` and ``open_low`` excludes it.
    """
    interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if high > 1e308 else ']'}"
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in {interval}, got {value!r}")
    above = low < value if open_low else low <= value
    if not (above and value <= high and value < float("inf")):
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}")
    return value


def check_channels(channels: object) -> int:
    """Check the number of channels of images, 1 (grey) or 3 (colour), and return it.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is another number.
    """
    cure = "use 1 for grey images, or 3, which repeats the channel of grey ones"
    if not isinstance(channels, int) or isinstance(channels, bool):
        raise TypeError(f"channels must be an integer, 1 or 3, got {channels!r}; {cure}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}; {cure}")
    return channels


def check_labels(labels: object, logits: Tensor, task: str) -> None:
    """Check labels against logits ``[B, C]``.

    They are ``[B]`` int64, or soft, ``[B, C]`` floating point in [0, 1] with the sum 1; for
    multi-label ``[B, C]`` in [0, 1].

    Raises
    ------
    TypeError
        If labels are not a tensor of the dtype of the task.
    ValueError
        If their shape differs, or a value is out of range (checked in host memory only).
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.Tensor, got {type(labels).__name__}")
    batch, classes = logits.shape
    if task == "multilabel":
        if labels.shape != logits.shape:
            raise ValueError(
                f"multi-label labels must have one 0 or 1 for each class, shape "
                f"{[batch, classes]}, got {list(labels.shape)}"
            )
        if is_on_host(labels) and not bool(((labels >= 0) & (labels <= 1)).all()):
            raise ValueError("multi-label labels must be in [0, 1] everywhere, such as 0 or 1")
        return
    if labels.is_floating_point() and labels.shape == logits.shape:
        _check_soft_labels(labels)
        return
    if labels.dtype != torch.int64:
        raise TypeError(
            f"labels must be class indices of dtype torch.int64, got {labels.dtype}; use "
            "labels.long() (multi-label: task='multilabel'; soft labels: shape [B, C])"
        )
    if labels.shape != (batch,):
        cure = (
            "use labels.squeeze(1)"
            if labels.shape == (batch, 1)
            else "turn one-hot labels into indices with labels.argmax(1)"
        )
        raise ValueError(
            f"labels must have one class a sample, shape [{batch}], got {list(labels.shape)}; "
            f"{cure}"
        )
    if not is_on_host(labels):
        return
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.numel():
        raise ValueError(
            f"label {int(outside[0])} is out of range: the model has {classes} classes, 0 to "
            f"{classes - 1}"
        )


def _check_soft_labels(labels: Tensor) -> None:
    if not is_on_host(labels):
        return
    wrong = (labels < 0).any(1) | ~((labels.sum(1) - 1).abs() < 1e-3)  # NaN is wrong, too
    if bad := wrong.nonzero().flatten().tolist():
        raise ValueError(
            f"soft labels must be probabilities that sum to 1 for each sample; those of samples "
            f"{bad[:10]} do not, the first has {labels[bad[0]].tolist()}"
        )


def check_masks(masks: object, heatmap: Tensor) -> tuple[Tensor | None, Tensor]:
    """Check masks against heatmaps ``[B, K, C, ...]``.

    Returns
    -------
    tuple
        The masks as ``[B, 1, ...]``, and ``[B]`` which samples have one. If no sample has a mask,
        ``None`` and ``[B]``; masks on an accelerator are returned without reading their values.

    Raises
    ------
    TypeError
        If masks are not a tensor.
    ValueError
        If their spatial shape is not that of the images, a mask is not binary, or has no
        foreground.
    """
    batch, size = len(heatmap), heatmap.shape[3:]
    if masks is None:
        return None, torch.zeros(batch, dtype=torch.bool, device=heatmap.device)
    if not isinstance(masks, Tensor):
        raise TypeError(f"masks must be a torch.Tensor or None, got {type(masks).__name__}")
    _check_dense("masks", masks)
    if masks.is_complex():
        raise TypeError(f"masks must hold 0 and 1, got {masks.dtype}; use masks.real")
    if masks.shape == (batch, *size):
        masks = masks.unsqueeze(1)
    if masks.shape != (batch, 1, *size):
        raise ValueError(
            f"masks must have the images' size, shape {[batch, 1, *size]}, got "
            f"{list(masks.shape)}; resize masks with nearest-neighbour interpolation"
        )
    check_mask_values(masks)
    has_mask = (masks != NO_MASK).flatten(1).any(1)
    return (None if is_on_host(masks) and not bool(has_mask.any()) else masks), has_mask


def check_mask_values(masks: Tensor) -> None:
    """Check that masks ``[B, ...]`` in host memory are binary, or filled with :data:`NO_MASK`.

    Raises
    ------
    ValueError
        If a mask is not binary or has no foreground.
    """
    if not is_on_host(masks):
        return
    foreground = masks == 1
    binary = (foreground | (masks == 0)).flatten(1).all(1)
    empty = ~foreground.flatten(1).any(1)
    if bool((binary & ~empty).all()):
        return
    has_mask = (masks != NO_MASK).flatten(1).any(1)
    if bad := (has_mask & ~binary).nonzero().flatten().tolist():
        values = sorted(set(masks[bad[0]].flatten().tolist()))[:5]
        raise ValueError(
            f"masks must hold 0 and 1 only (or {NO_MASK:g} everywhere for no mask); samples "
            f"{bad[:10]} do not, the first has {values}; binarise with (mask > threshold).float()"
        )
    if bad := (has_mask & empty).nonzero().flatten().tolist():
        raise ValueError(
            f"the masks of samples {bad[:10]} have no foreground; fill them with {NO_MASK:g} if "
            "these samples have no mask, or leave them out"
        )


def check_finite_heatmap(heatmap: Tensor, has_mask: Tensor) -> None:
    """Check in host memory that heatmaps ``[B, K, ...]`` of samples with a mask are finite.

    Raises
    ------
    FloatingPointError
        If a value is not finite; the message lists the samples.
    """
    if not is_on_host(heatmap):
        return
    if bool(heatmap.detach().sum().isfinite()):  # fast path; a sum of finite values may overflow
        return
    finite = heatmap.isfinite().flatten(1).all(1)
    if bad := (has_mask & ~finite).nonzero().flatten().tolist():
        raise FloatingPointError(
            f"the heatmaps of samples {bad[:10]} hold NaN or infinite values; look for logits or "
            "weights that have grown without bound (lower the learning rate, raise epsilon)"
        )
