"""Without any one private name of torch the package imports, and works or says what is missing."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.utils.checkpoint as torch_checkpoint
from torch import Tensor, nn
from torch.autograd import grad_mode
from torch.utils.data import DataLoader

import faster_isnet
from faster_isnet.common.torch_private import with_own_iteration

SOURCES = Path(faster_isnet.__file__).parent


def _hide(owner: object, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what takes a name away; torch.Tensor's own are in C and can only be hidden."""

    def missing(_: object) -> None:
        raise AttributeError(name)

    def hide(patch: pytest.MonkeyPatch) -> None:
        if owner is torch.Tensor:
            patch.setattr(owner, name, property(missing), raising=False)
        else:
            patch.delattr(owner, name)

    return hide


GENERATORS = [
    name
    for name in vars(torch_checkpoint)
    if name.startswith("_checkpoint_without_reentrant_generator")
]
NAMES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "_version": _hide(torch.Tensor, "_version"),
    "_is_view": _hide(torch.Tensor, "_is_view"),
    "_unsafe_preserve_version_counter": _hide(grad_mode, "_unsafe_preserve_version_counter"),
    "_vmapmode_increment_nesting": _hide(torch._C, "_vmapmode_increment_nesting"),
    "_vmapmode_decrement_nesting": _hide(torch._C, "_vmapmode_decrement_nesting"),
    "_compiled_call_impl": _hide(nn.Module, "_compiled_call_impl"),
    **{name: _hide(torch_checkpoint, name) for name in GENERATORS},
}


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ModuleType]]:
    """Return what imports the package anew; the old one is back after the test."""
    old = {name: module for name, module in sys.modules.items() if name.startswith("faster_isnet")}

    def load() -> ModuleType:
        for name in old:
            sys.modules.pop(name, None)
        package = importlib.import_module("faster_isnet")
        for name in package.__all__:
            getattr(package, name)  # each is imported when it is first used
        return package

    yield load
    for name in [name for name in sys.modules if name.startswith("faster_isnet")]:
        del sys.modules[name]
    sys.modules.update(old)


class Network(nn.Module):
    """A network that takes all fast paths; its second half is ``run``."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor] = lambda m, x: m(x)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.0))
        self.dense, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        x = self.run(self.second, self.first(x))
        x = x.sigmoid() * torch.cat([x[:, :1], self.second[0].bias[0] + x[:, 1:]], 1)
        return self.head(self.dense(x.flatten(2).transpose(1, 2)).relu().mean(1))


def images() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(2, 2, 8, 8, dtype=torch.float64)


def gradients(package: ModuleType, composite: str, model: nn.Module | None = None) -> list[Tensor]:
    model = Network().double() if model is None else model
    explanation = package.Explainer(model, composite)(images(), 1, differentiable=True)
    loss = explanation.heatmap.square().sum() + explanation.logits.square().sum()
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return [explanation.heatmap, *(g for g in found if g is not None)]


@pytest.mark.parametrize("name", NAMES)
def test_the_package_imports_without(
    name: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        NAMES[name](patch)
        assert fresh().Explainer is not faster_isnet.Explainer


def test_a_new_process_imports_the_package_without_any_of_them() -> None:
    deletions = "; ".join(
        [
            "import lightning.pytorch, torch, torch.utils.checkpoint as c",
            *(f"del c.{name}" for name in GENERATORS),
            "del torch._C._vmapmode_increment_nesting, torch._C._vmapmode_decrement_nesting",
            "del torch.autograd.grad_mode._unsafe_preserve_version_counter",
            "del torch.nn.Module._compiled_call_impl",
        ]
    )
    command = [sys.executable, "-c", f"{deletions}; from faster_isnet import *"]
    environment = {"PYTHONPATH": str(SOURCES.parent)}
    subprocess.run(command, check=True, env=environment, timeout=120)


@pytest.mark.parametrize("composite", ["flex", "dual"])
@pytest.mark.parametrize("name", ["_is_view", "_unsafe_preserve_version_counter", *GENERATORS])
def test_the_result_is_the_same_without(
    name: str, composite: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradients(faster_isnet, composite)
    with monkeypatch.context() as patch:
        NAMES[name](patch)
        found = gradients(fresh(), composite)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_explanation_without_versions_of_tensors_says_what_is_missing(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        NAMES["_version"](patch)
        package = fresh()
        with pytest.raises(RuntimeError, match=r"has no Tensor\._version"):
            package.Explainer(Network().double())(images(), 1)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_that_cannot_be_intercepted_says_what_is_missing(
    reentrant: bool, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(module: nn.Module, x: Tensor) -> Tensor:
        return torch_checkpoint.checkpoint(module, x, use_reentrant=reentrant)

    torchs = torch_checkpoint.checkpoint
    with monkeypatch.context() as patch:
        for name in GENERATORS:
            NAMES[name](patch)
        package = fresh()
        with pytest.raises(RuntimeError, match=GENERATORS[0]):
            package.Explainer(Network(run).double())(images(), 1)
    assert torch_checkpoint.checkpoint is torchs


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_checkpointed_segment_without_a_way_out_of_vmap(
    dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's own vmap needs the names, too, so they are hidden from the package alone."""
    from faster_isnet.common import torch_private

    def run(module: nn.Module, x: Tensor) -> Tensor:
        return torch_checkpoint.checkpoint(module, x, use_reentrant=False)

    model = Network(run).double()
    if not dropout:
        model.second[2] = nn.Identity()
    else:
        model.second[2].p = dropout
    explainer = faster_isnet.Explainer(model)
    expected = explainer(images(), "all-classes").heatmap
    without = SimpleNamespace(_C=SimpleNamespace(), __version__=torch.__version__)
    monkeypatch.setattr(torch_private, "torch", without)
    if dropout:
        with pytest.raises(RuntimeError, match="_vmapmode_increment_nesting"):
            explainer(images(), "all-classes")
    else:
        torch.testing.assert_close(explainer(images(), "all-classes").heatmap, expected)


def test_a_module_that_does_not_tell_is_taken_for_one_that_is_not_compiled() -> None:
    from faster_isnet.common.torch_private import is_compiled

    module = nn.ReLU()
    assert not is_compiled(module)
    assert not is_compiled(SimpleNamespace())  # type: ignore[arg-type]
    module.compile(backend="eager")
    assert is_compiled(module)


def test_no_other_module_uses_private_names_of_torch() -> None:
    private = re.compile(
        r"torch\._|\b(nn|F|Tensor|tensor|output|module|torch_checkpoint|[a-z])\._(?!_)[a-z]"
        r"|torch(\.\w+)*\._\w|from torch\S* import .*\b_[a-z]"
    )
    found = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in SOURCES.rglob("*.py")
        if path.name != "torch_private.py"
        for line in path.read_text().splitlines()
        if private.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_its_own_iteration_leaves_that_of_another_alone(workers: int) -> None:
    loader = DataLoader(list(range(6)), num_workers=workers, persistent_workers=workers > 0)
    begun = iter(loader)
    assert int(next(begun)) == 0
    own = with_own_iteration(loader)
    for _ in range(2):
        assert [int(i) for i in own] == list(range(6))
    assert [int(i) for i in begun] == list(range(1, 6))
