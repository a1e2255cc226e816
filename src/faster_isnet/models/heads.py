"""Find the classifier head of a network by running it; replace it, and add dropout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from faster_isnet.common.checks import check_range
from faster_isnet.common.eval_mode import eval_mode


def check_head(classes: int, dropout: float) -> None:
    """Check the number of classes and the dropout of a classifier head.

    Raises
    ------
    TypeError
        If the number of classes is not an integer, or the dropout not a number.
    ValueError
        If there are fewer than two classes, or the dropout is not in [0, 1).
    """
    if not isinstance(classes, int):
        raise TypeError(f"classes must be an integer ≥ 2, got {classes!r}")
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    check_range("dropout", dropout, 0.0, 1.0)
    if dropout == 1:
        raise ValueError("dropout must be below 1, got 1, which would drop every feature")


def replace_classifier(
    model: nn.Module, classes: int, dropout: float = 0.0, images: Tensor | None = None
) -> nn.Module:
    """Replace the classifier head of a network, in place.

    The head is the linear layer (or, as in SqueezeNet, the 1 x 1 convolution) that runs last: the
    network is run once, in eval mode and without gradients, to find it. The new head has PyTorch's
    initial weights, and the bias, device and dtype of the old one. For networks of timm, their
    ``reset_classifier`` is called. Auxiliary heads, which run only in training (GoogLeNet,
    Inception), are unchanged; :func:`~faster_isnet.models.build_backbone` leaves
    them out.

    All other parameters and all keys in the state dict are unchanged: ``fc.weight`` remains
    ``fc.weight``. With dropout, an existing dropout layer directly before the head gets the new
    rate. If there is none, the head becomes
    ``Sequential(Dropout, Linear)`` and its keys ``fc.1.weight`` and ``fc.1.bias``, as in the
    published code. So load weights that were saved without dropout first, and replace the head
    afterwards.

    Parameters
    ----------
    model
        A network of torchvision or timm, or any other whose output is logits ``[B, C]`` from
        a linear layer.
    classes
        Number of logits of the new head, ≥ 2.
    dropout
        Dropout probability before the head, in [0, 1). 0 adds no dropout, and keeps existing
        dropout.
    images
        Images ``[B, ...]`` to run the network on; by default one black image ``[1, C, S, S]`` of
        the size S configured in timm or in a vision transformer, else 224. C is 3, or 1 if the
        first convolution reads a single channel.

    Returns
    -------
    torch.nn.Module
        ``model``.

    Raises
    ------
    TypeError
        If ``classes`` is not an integer, or ``dropout`` not a number.
    ValueError
        If one of them is out of range, the network fails on the images, or its output is not that
        of a linear layer.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> replace_classifier(resnet18(), classes=3).fc
    Linear(in_features=512, out_features=3, bias=True)
    >>> replace_classifier(resnet18(), classes=3, dropout=0.5).fc
    Sequential(
      (0): Dropout(p=0.5, inplace=False)
      (1): Linear(in_features=512, out_features=3, bias=True)
    )
    """
    check_head(classes, dropout)
    if _is_timm(model):
        model.reset_classifier(classes)  # type: ignore[operator]
    else:
        name = _replaceable_head(model, images)
        _set_module(model, name, _with_outputs(model.get_submodule(name), classes))
        if hasattr(model, "num_classes"):
            model.num_classes = classes  # type: ignore[assignment]
    return add_dropout(model, dropout, images) if dropout else model


def add_dropout(model: nn.Module, dropout: float, images: Tensor | None = None) -> nn.Module:
    """Add dropout before the classifier head of a network, in place.

    Parameters, keys and errors are those of :func:`replace_classifier`.
    """
    heads = _timm_heads(model) if _is_timm(model) else [_replaceable_head(model, images)]
    for head, before in _dropout_before(model, heads, images).items():
        if before is not None:
            before.p = dropout
            continue
        classifier = model.get_submodule(head)
        wrapped = nn.Sequential(nn.Dropout(dropout), classifier).train(classifier.training)
        _set_module(model, head, wrapped)
    return model


def fit_head(model: nn.Module, classes: int, pretrained: bool, dropout: float) -> nn.Module:
    """Set classes and dropout of a new network; a pretrained one has those of its weights."""
    if pretrained:
        return replace_classifier(model, classes, dropout)
    return add_dropout(model, dropout) if dropout else model


def _is_timm(model: nn.Module) -> bool:
    return hasattr(model, "reset_classifier") and hasattr(model, "get_classifier")


def _timm_heads(model: nn.Module) -> list[str]:
    """Return the names of a timm network's heads: distilled networks have two."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    heads = classifier if isinstance(classifier, tuple | list) else (classifier,)
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(head)] for head in heads]


def _replaceable_head(model: nn.Module, images: Tensor | None) -> str:
    name = last_linear(model, images)
    if not name:
        raise ValueError(f"the model is itself the linear layer {model}; make a new one")
    return name


def last_linear(model: nn.Module, images: Tensor | None = None) -> str:
    """Find the linear layer, or 1 x 1 convolution, that runs last and has as many outputs.

    Parameters
    ----------
    model
        Its output is logits ``[B, C]``.
    images
        Images ``[B, ...]`` to run it on; by default as :func:`replace_classifier` does.

    Returns
    -------
    str
        The layer's name; ``""`` if the model is itself that layer.

    Raises
    ------
    ValueError
        If the model fails on the images, or its output is not that of a linear layer.

    Examples
    --------
    >>> last_linear(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2))
    '1'
    """
    ran: list[str] = []

    def record(name: str, module: nn.Module, x: Tensor) -> None:
        if _is_linear(module):
            ran.append(name)

    output = _run(model, images, record)
    given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
    found = "no linear layer ran"
    if ran:
        layer: Any = model.get_submodule(ran[-1])
        outputs = layer.weight.shape[0]
        if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] == outputs:
            return ran[-1]
        found = f"the last linear layer that ran is {ran[-1]!r}, with {outputs} outputs"
    raise ValueError(
        f"the classifier head of {type(model).__name__} was not found: its output is {given}, and "
        f"{found}; it must be one that gives logits [B, C]; replace another head by hand"
    )


def head_names(model: nn.Module, images: Tensor | None = None) -> list[str]:
    """Name what a classifier's head is made of: its last layer, and dropout directly before it.

    It is the head that :func:`replace_classifier` replaces; a distilled network of timm has two.

    Parameters
    ----------
    model
        Its output is logits ``[B, C]``; what holds a network, such as one with a normalisation
        before it, will do.
    images
        Images ``[B, ...]`` to run it on; by default as :func:`replace_classifier` does.

    Returns
    -------
    list of str
        Names of modules.

    Raises
    ------
    ValueError
        If the model fails on the images, or its output is not that of a linear layer of its own.

    Examples
    --------
    >>> head_names(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2))
    ['1']
    >>> from torchvision.models import mobilenet_v2
    >>> head_names(mobilenet_v2())
    ['classifier.1', 'classifier.0']
    """
    within = next((each for each in model.named_modules() if _is_timm(each[1])), None)
    if within is None:
        heads = [_replaceable_head(model, images)]
    else:
        prefix = f"{within[0]}." if within[0] else ""
        heads = [prefix + name for name in _timm_heads(within[1])]
    names = {id(module): name for name, module in model.named_modules()}
    before = _dropout_before(model, heads, images).values()
    return [*heads, *(names[id(dropout)] for dropout in before if dropout is not None)]


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def _dropout_before(
    model: nn.Module, heads: list[str], images: Tensor | None
) -> dict[str, nn.Dropout | None]:
    """Find for each head the dropout layer whose output is its input, if there is one."""
    dropouts: list[tuple[nn.Dropout, Tensor]] = []
    inputs: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, x: Tensor) -> None:
        if isinstance(module, nn.Dropout):
            dropouts.append((module, x))  # kept alive, so that its memory address is not reused
        if name in heads:
            inputs[name] = x

    _run(model, images, record)
    runs = [module for module, _ in dropouts]
    once = [(module, x) for module, x in reversed(dropouts) if runs.count(module) == 1]
    return {
        head: next((module for module, x in once if _is_same_tensor(x, inputs[head])), None)
        for head in heads
    }


def _is_same_tensor(x: Tensor, y: Tensor) -> bool:
    """Return whether both share memory, possibly reshaped: in eval mode dropout is the identity."""
    return x.data_ptr() == y.data_ptr() != 0 and x.numel() == y.numel()


def _run(
    model: nn.Module, images: Tensor | None, record: Callable[[str, nn.Module, Tensor], None]
) -> object:
    """Run a network without side effects; ``record`` gets each module's name and first input."""

    def hook(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(iter((*args, *kwargs.values())), None)
        if isinstance(first, Tensor):
            record(name, module, first)

    images = _black_image(model) if images is None else images
    handles = [
        module.register_forward_pre_hook(partial(hook, name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad(), eval_mode(model):
            return model(images)
    except Exception as error:  # of any type, from user code
        raise ValueError(
            f"{type(model).__name__} does not run on images {list(images.shape)}, to find its "
            f"classifier head ({type(error).__name__}: {error}); give some that it takes: images="
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _black_image(model: nn.Module) -> Tensor:
    side = getattr(model, "image_size", 224)  # torchvision's vision transformers
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    channels = 1 if first is not None and first.in_channels == 1 else 3
    size = getattr(model, "pretrained_cfg", {}).get("input_size", (channels, side, side))  # timm's
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros(1, *size, device=parameter.device, dtype=parameter.dtype)


def _with_outputs(head: Any, classes: int) -> nn.Module:
    """Build a layer like ``head`` with ``classes`` outputs."""
    like = {
        "bias": head.bias is not None,
        "device": head.weight.device,
        "dtype": head.weight.dtype,
    }
    if isinstance(head, nn.Conv2d):
        new: nn.Module = nn.Conv2d(head.in_channels, classes, 1, head.stride, **like)  # type: ignore[arg-type]
    else:
        new = nn.Linear(head.in_features, classes, **like)
    return new.train(head.training)


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
