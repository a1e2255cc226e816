"""The code in README.md and docs runs, and its commands exist."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import lightning
import pytest
import torch
import torchvision
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import faster_isnet
from faster_isnet import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATIONS = ("covid.yaml", "run/config.yaml", "standard/config.yaml")
"""Files that commands of the documents read: what docs/commands.md has as covid.yaml."""
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(document: Path, language: str) -> list[str]:
    return [text for name, text in FENCED.findall(document.read_text()) if name == language]


def commands(document: Path) -> list[list[str]]:
    """Return the arguments of each ``faster-isnet`` that a document has in a block for a shell."""
    lines = "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    calls = [shlex.split(line, comments=True) for line in lines]
    return [call[1:] for call in calls if call and Path(call[0]).name == "faster-isnet"]


def relative(document: Path) -> str:
    return str(document.relative_to(ROOT))


def loader() -> DataLoader[Any]:
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    masks = torch.zeros(4, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    return DataLoader(TensorDataset(images, labels, masks), batch_size=2)


def on_the_cpu(step: nn.Module, device_ids: list[int]) -> DistributedDataParallel:
    assert device_ids == [0]
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    return DistributedDataParallel(step)


def names() -> dict[str, Any]:
    """Return what a reader has before the first line: imports, a model, a batch, loaders."""
    images, labels, masks = next(iter(loader()))
    return {
        **{name: getattr(faster_isnet, name) for name in faster_isnet.__all__},
        "DistributedDataParallel": on_the_cpu,
        "criterion": faster_isnet.ISNetLoss(),
        "device": torch.device("cpu"),
        "images": images,
        "labels": labels,
        "lightning": lightning,
        "masks": masks,
        "net": faster_isnet.ISNet(torchvision.models.resnet18(num_classes=3)),
        "nn": nn,
        "other_hospital_loader": loader(),
        "rank": 0,
        "resnet50": torchvision.models.resnet50,
        "torch": torch,
        "train_loader": loader(),
        "val_loader": loader(),
    }


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let what the documents do with many steps, devices and layers run in a second."""
    trainer, signature = lightning.Trainer, inspect.signature(lightning.Trainer)

    def small_trainer(**options: Any) -> lightning.Trainer:
        signature.bind(**options)  # what is replaced exists
        few = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        return trainer(**few, **quiet, accelerator="cpu", enable_checkpointing=False)

    monkeypatch.setattr(lightning, "Trainer", small_trainer)
    monkeypatch.setattr(torchvision.models, "resnet50", torchvision.models.resnet18)
    monkeypatch.chdir(tmp_path)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if blocks(path, "python")], ids=relative
)
def test_python_runs(document: Path):
    namespace = names()
    for number, block in enumerate(blocks(document, "python"), 1):
        exec(compile(block, f"{relative(document)}, block {number}", "exec"), namespace)


class _ParsedError(Exception):
    """Ends a command when its arguments have been read."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[str]], None]:
    """Return a function that only parses the arguments of a command."""
    configuration = ROOT / "docs" / "commands.md"
    for name in CONFIGURATIONS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(blocks(configuration, "yaml")[0])
    monkeypatch.chdir(tmp_path)
    parse_args = jsonargparse.ArgumentParser.parse_args

    def parse_only(self: jsonargparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        parse_args(self, *arguments, **options)
        raise _ParsedError

    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", parse_only)

    def parse(arguments: list[str]) -> None:
        with pytest.raises(_ParsedError):
            cli.main(arguments)

    return parse


@pytest.mark.parametrize(
    "arguments",
    [call for document in DOCUMENTS for call in commands(document)],
    ids=lambda arguments: " ".join(arguments),
)
def test_commands_exist(parse: Callable[[list[str]], None], arguments: list[str]):
    parse(arguments)


def test_an_option_that_does_not_exist_is_found(parse: Callable[[list[str]], None]):
    with pytest.raises(SystemExit):
        parse(["fit", "--data.sauce", "images"])
