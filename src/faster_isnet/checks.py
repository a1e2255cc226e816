"""Checks of what a user passes in: each says what was wrong, which value, and the cure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import torch
from torch import Tensor, nn


def check_choice(kind: str, name: object, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of the ``known`` names.

    Parameters
    ----------
    kind
        What is being named, for the message (``"variant"``, ``"layer"``, …).
    name
        The name given.
    known
        The names that exist.

    Raises
    ------
    TypeError
        If ``name`` is not a string.
    ValueError
        If ``name`` is unknown; the message lists the known names and the nearest one.

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
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = ", ".join(map(repr, names[:40])) + (", …" if len(names) > 40 else "")
        raise ValueError(f"unknown {kind} {name!r}; {hint}Known: {listed}")
    return name


def check_explainable(model: object) -> None:
    """Check that a model is a module whose functions can be intercepted.

    Raises
    ------
    TypeError
        If it is not a module, or holds TorchScript or DataParallel modules.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"module {name!r} is TorchScript, whose functions cannot be intercepted; explain "
                "the Python module it was made from"
            )
        if isinstance(module, nn.DataParallel):
            raise TypeError(
                f"module {name!r} is a DataParallel, which runs the model in other threads; "
                "explain its .module, or train with DistributedDataParallel"
            )


def check_images(images: object) -> None:
    """Check that images are a batch of finite float32 or float64 values.

    Raises
    ------
    TypeError
        If they are not a tensor of such a type.
    ValueError
        If there is no batch dimension, the batch is empty, or a value is not finite.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor [B, ...], got {type(images).__name__}")
    if images.dtype not in (torch.float32, torch.float64):
        cure = (
            "half precision has too few digits for the stabiliser; use images.float()"
            if images.is_floating_point()
            else "scale them to floats, for example images.float() / 255"
        )
        raise TypeError(f"images must be float32 or float64, got {images.dtype}; {cure}")
    if images.dim() < 2 or images.numel() == 0:
        raise ValueError(f"images must be a batch [B, ...], got shape {list(images.shape)}")
    if not bool(images.isfinite().all()):
        bad = [i for i, image in enumerate(images) if not bool(image.isfinite().all())]
        raise ValueError(f"images hold NaN or infinite values, in samples {bad[:10]} of the batch")


def check_logits(logits: object, batch: int) -> None:
    """Check that a model's output is logits ``[batch, C]`` with at least two classes.

    Raises
    ------
    TypeError
        If it is not a floating point tensor.
    ValueError
        If its shape is another one.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model must return logits [B, C], got {type(logits).__name__}; wrap it so that "
            "it returns the tensor only (torchvision's GoogLeNet and Inception: aux_logits=False)"
        )
    if logits.dim() != 2 or len(logits) != batch:
        raise ValueError(
            f"the model must return logits [B, C] with B = {batch}, got shape {list(logits.shape)}"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the model returns a single logit; give it one for each class (for a yes/no question "
            "two outputs), since what is explained compares classes"
        )
