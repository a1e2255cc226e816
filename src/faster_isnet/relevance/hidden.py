"""What must be known of a model's modules during one forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from faster_isnet.common.checks import check_choice
from faster_isnet.relevance.lost_batch_norms import BOUNDARY
from faster_isnet.relevance.normalisations import OnDemand, shared_batch_norm


def check_layers(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of hidden layers as a tuple, if the model has them all.

    Raises
    ------
    TypeError
        If ``names`` is a single string, or holds something else than strings.
    ValueError
        If the model has no module of that name, or a name comes twice.
    """
    if isinstance(names, str):
        raise TypeError(f"layers must be a sequence of module names, got the string {names!r}")
    if not isinstance(names, Iterable):
        raise TypeError(f"layers must be a sequence of module names, got {names!r}; () for none")
    modules = dict(model.named_modules())
    del modules[""]
    checked = tuple(check_choice("layer", name, modules) for name in names)
    if len(set(checked)) < len(checked):
        raise ValueError(f"layers has a name twice: {list(checked)}")
    return checked


@contextmanager
def hidden_outputs(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named modules while the model runs inside the block.

    Yields
    ------
    dict of str to Tensor
        Filled by the forward pass. Each is the tensor that goes on through the model, as it was
        when its module returned it, whatever is done in place to it later.

    Raises
    ------
    ValueError
        In the forward pass, if a module runs more than once (there is no one output then).
    TypeError
        In the forward pass, if a module returns something else than a tensor.
    """
    outputs: dict[str, Tensor] = {}
    owner = threading.get_ident()

    def collect(name: str) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            if threading.get_ident() != owner:  # another thread runs the same model
                return None
            if name in outputs:
                raise ValueError(
                    f"layer {name!r} runs more than once in a forward pass, so that its output "
                    "is not one tensor; name a module that runs once"
                )
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"layer {name!r} returns {type(output).__name__}, expected a tensor; "
                    "name a module that returns one"
                )
            outputs[name] = output
            # Not output.clone(), which an interception takes for the same tensor.
            copy: Tensor = torch.ops.aten.clone.default(output)
            node: Any = copy.grad_fn
            if node is not None:
                node.metadata[BOUNDARY] = True
            return copy

        return hook

    with ExitStack() as hooks:
        for name in names:
            module = model.get_submodule(name)
            hooks.enter_context(module.register_forward_hook(collect(name)))
        yield outputs


@contextmanager
def running_module(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Follow which module runs while the model runs inside the block.

    Yields
    ------
    callable
        Returns the name of the innermost module that runs, ``""`` outside of all.
    """
    names = [""]
    owner = threading.get_ident()

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if threading.get_ident() == owner:
                names.append(name)

        return hook

    def exit_(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            names.pop()

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(enter(name)))
            hooks.enter_context(module.register_forward_hook(exit_, always_call=True))
        yield lambda: names[-1]


@contextmanager
def shared_statistics(model: nn.Module) -> Iterator[None]:
    """Make known what synchronised batch norms compute while the model runs inside the block.

    ``torch.nn.SyncBatchNorm`` calls a torch function only as long as it has nothing to synchronise.
    """
    owner = threading.get_ident()

    def hook(module: nn.SyncBatchNorm, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        node: Any = output.grad_fn
        if threading.get_ident() != owner or type(node).__name__ != "SyncBatchNormBackward":
            return None
        _, _, mean, rstd, _ = node.saved_tensors
        x = args[0] if args else kwargs["input"]
        reader = output.view_as(output).grad_fn  # keeps the node, which torch 2.6 drops with output
        output = OnDemand.apply(reader, output.detach(), x, module.weight, module.bias)
        return shared_batch_norm(x, output, mean, rstd, module.weight, module.bias)

    with ExitStack() as hooks:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        for module in model.modules() if together else ():
            if isinstance(module, nn.SyncBatchNorm):
                handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
                hooks.enter_context(handle)
        yield
