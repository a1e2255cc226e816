"""Each command tells which checkpoint is damaged and what to do; none ends in a traceback."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from faster_isnet.cli import main

REFUSED, RIGHT = "refused", "right result"
pytestmark = pytest.mark.slow  # two hundred commands
Content = dict[str, Any]
CHANGES: dict[str, Callable[[Content], Any]] = {
    "a bare state_dict": lambda c: c["state_dict"],
    "no recipe": lambda c: {**c, "recipe": None},
    "a recipe of a number": lambda c: {**c, "recipe": 3},
    "arguments without names": lambda c: {**c, "recipe": {**c["recipe"], "init_args": [1]}},
    "no weights": lambda c: {**c, "state_dict": 3},
    "weights of another shape": lambda c: {
        **c,
        "state_dict": {k: v[:1] if v.dim() else v for k, v in c["state_dict"].items()},
    },
}
ARGUMENTS: dict[str, Any] = {
    "class_names": 3,
    "image_shape": [3],
    "backbone": "nonet",
    "learning_rate": "x",
    "unknown": 1,
    "method": {"class_path": "antigravity.X", "init_args": {}},
}
CHANGES |= {
    f"a wrong {name}": (
        lambda c, changed={name: value}: {
            **c,
            "recipe": {**c["recipe"], "init_args": {**c["recipe"]["init_args"], **changed}},
        }
    )
    for name, value in ARGUMENTS.items()
}
CHANGES |= {
    "no names of classes": lambda c: {
        **c,
        "recipe": {
            **c["recipe"],
            "init_args": {k: v for k, v in c["recipe"]["init_args"].items() if k != "class_names"},
        },
    },
    "weights in a list": lambda c: {**c, "state_dict": [1]},
    "weights that are numbers": lambda c: {**c, "state_dict": {"a": 1}},
    "no weight": lambda c: {**c, "state_dict": {}},
    "a classifier that is nowhere": lambda c: {**c, "classifier_at": "nowhere"},
}
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda raw: bytes(len(raw)),
    "empty": lambda raw: b"",
    "text": lambda raw: b"hello world, no checkpoint",
    "an image": lambda raw: b"\x89PNG\r\n\x1a\n" + raw[8:],
    "truncated": lambda raw: raw[: len(raw) // 2],
    "ten bytes": lambda raw: raw[:10],
    "without its end": lambda raw: raw[:-30],
    "overwritten": lambda raw: raw[:2000] + b"\xff" * 100 + raw[2100:],
    "a pickle": lambda raw: pickle.dumps({"state_dict": Path("x")}),
}
RESUMED: dict[str, Callable[[Content], Any]] = {
    name: (lambda c, name=name, value=value: {**c, name: value})
    for name, value in {
        "loops": {},
        "callbacks": 3,
        "random_states": 3,
        "method_state": 3,
        "optimizer_states": [3],
        "lr_schedulers": None,
        "epoch": None,
        "pytorch-lightning_version": "x",
    }.items()
}


def damaged(run: Path, kind: str, folder: Path) -> Path:
    good, path = run / "checkpoints" / "last.ckpt", folder / "damaged.ckpt"
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "whole":
        shutil.copy(good, path)
    elif kind in BYTES:
        path.write_bytes(BYTES[kind](good.read_bytes()))
    else:
        change = (CHANGES | RESUMED)[kind]
        torch.save(change(torch.load(good, weights_only=True)), path)
    return path


def arguments(command: str, path: Path, run: Path, images: Path, out: Path) -> list[str]:
    config = ["--config", str(run / "config.yaml"), "--ckpt_path", str(path), "--out", str(out)]
    return {
        "test": ["test", str(path), "--source", str(images)],
        "explain": ["explain", str(path), str(images / "dark" / "1.png"), "--out", str(out)],
        "export": ["export", str(path), "--formats", "state_dict", "--out", str(out)],
        "validate": ["validate", *config],
        "calibrate": ["calibrate", *config],
        "fit": ["fit", *config, "--trainer.max_epochs", "3"],
    }[command]


# What these commands do not read of a checkpoint may be anything.
UNREAD = {
    "a wrong image_shape": ("validate", "fit"),
    "a wrong backbone": ("validate", "fit"),
    "a wrong learning_rate": ("validate",),
    "a wrong unknown": ("validate", "fit"),
    "a wrong method": ("test", "explain", "export", "validate", "calibrate", "fit"),
    "a classifier that is nowhere": ("validate", "fit"),
}
CURES = ("RUN/", "NETWORK --weights", "save its state dict", "train a new run")


def printed(
    command: str, path: Path, run: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    capsys.readouterr()
    out = path.parent / "out"
    assert main(arguments(command, path, run, images, out)) == 0
    if command == "explain":
        return str(np.load(next(out.glob("*.npy"))))
    said = capsys.readouterr().out.replace(str(path.parent), "")
    return re.sub(r"[\d.e-]+ s an epoch", "", said)


@pytest.mark.parametrize("command", ["test", "explain", "export", "validate", "calibrate", "fit"])
@pytest.mark.parametrize("kind", [*BYTES, *CHANGES])
def test_what_is_damaged_is_named_if_it_is_read(
    command: str,
    kind: str,
    run: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    path = damaged(run, kind, tmp_path / "damaged" / "run")
    if command in UNREAD.get(kind, ()):
        expected = damaged(run, "whole", tmp_path / "whole" / "run")
        assert printed(command, path, run, images, capsys) == printed(
            command, expected, run, images, capsys
        )
        record_property("outcome", RIGHT)
        return
    assert main(arguments(command, path, run, images, path.parent / "out")) == 2
    error = capsys.readouterr().err
    assert path.name in error
    assert any(cure in error for cure in CURES), error
    assert not (path.parent / "out").exists()
    record_property("outcome", REFUSED)


@pytest.mark.parametrize("kind", RESUMED)
def test_a_training_does_not_go_on_from_half_a_checkpoint(
    kind: str,
    run: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    path = damaged(run, kind, tmp_path)
    assert main(arguments("fit", path, run, images, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert f"{str(path)!r} lacks {kind}, or they are damaged" in error
    assert not (tmp_path / "out").exists()
    record_property("outcome", REFUSED)


def test_a_checkpoint_sends_nobody_to_the_network(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise AssertionError("a file must not decide what is downloaded")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["recipe"]["init_args"].update(backbone="resnet18", pretrained=True, normalise=None)
    torch.save(content, tmp_path / "foreign.ckpt")
    for command in ("explain", "test", "export"):
        path = tmp_path / "foreign.ckpt"
        assert main(arguments(command, path, run, images, tmp_path / "out")) == 2  # other weights


def test_a_run_of_somebody_else_imports_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    (tmp_path / "harmful.py").write_text(
        "from pathlib import Path\nPath('was-run').touch()\n"
        "from faster_isnet.data import Augmentation as Mine, Planting\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "foreign")
    path = Path("foreign/config.yaml")
    config = yaml.safe_load(path.read_text())
    config["data"]["augmentation"] = {"class_path": "harmful.Mine"}
    config["data"]["worse_masks"] = {"class_path": "harmful.Mine"}
    path.write_text(yaml.safe_dump(config))
    assert main(["test", "foreign", "--resamples", "10"]) == 0  # nothing of training
    for planting in ({"class_path": "harmful.Planting"}, "harmful.Planting"):
        config["data"]["planting"] = planting
        path.write_text(yaml.safe_dump(config))
        assert main(["test", "foreign"]) == 2
        assert "correct the file" in capsys.readouterr().err
    assert not Path("was-run").exists()
