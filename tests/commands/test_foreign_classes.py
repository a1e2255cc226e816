"""Commands that only evaluate import nothing that a configuration of another person names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from faster_isnet.cli import main

MODULE = "someones_module"
CODE = """
from pathlib import Path
import lightning, torch
from faster_isnet.methods import Standard
Path(__file__).with_name("it_ran").touch()
class TheirCallback(lightning.Callback):
    pass
class TheirMethod(Standard):
    pass
class TheirOptimizer(torch.optim.SGD):
    pass
"""
Config = dict[str, Any]


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of modules with one, which leaves a file if it is imported."""
    (tmp_path / f"{MODULE}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def changed(run: Path, folder: Path, change: Callable[[Config], Any]) -> Path:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def set_callback(config: Config) -> None:
    config["trainer"]["callbacks"] = [{"class_path": f"{MODULE}.TheirCallback"}]


def set_method(config: Config) -> None:
    config["method"] = {"class_path": f"{MODULE}.TheirMethod"}


def set_method_by_name(config: Config) -> None:
    config["method"] = f"{MODULE}.TheirMethod"


def set_optimizer(config: Config) -> None:
    config["model"]["optimizer"] = f"{MODULE}.TheirOptimizer"


def set_function(config: Config) -> None:
    loss = {"class_path": "ClassificationLoss", "init_args": {"function": f"{MODULE}.TheirMethod"}}
    config["method"]["init_args"]["loss"]["init_args"]["classification"] = loss


CHANGES = [set_callback, set_method, set_method_by_name, set_optimizer, set_function]


@pytest.mark.parametrize("command", ["validate", "calibrate"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.__name__)
def test_a_class_of_others_is_refused_unread(
    run: Path,
    theirs: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    change: Callable[[Config], Any],
) -> None:
    path = changed(run, theirs, change)
    assert main([command, "--config", str(path), "--out", str(run)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert MODULE in error
    assert "--trust_config" in error
    assert not (theirs / "it_ran").exists()


def test_a_part_in_a_file_of_its_own_is_looked_at(
    run: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def split(config: Config) -> None:
        set_callback(config)
        (theirs / "trainer.yaml").write_text(yaml.safe_dump(config["trainer"]))
        config["trainer"] = "trainer.yaml"

    path = changed(run, theirs, split)
    assert main(["validate", "--config", str(path)]) == 2
    assert "trainer.yaml" in capsys.readouterr().err
    ours = ["--config", str(run / "config.yaml"), "--trainer", str(theirs / "trainer.yaml")]
    assert main(["validate", *ours]) == 2
    assert MODULE in capsys.readouterr().err
    assert not (theirs / "it_ran").exists()


def test_a_file_cannot_say_that_it_is_trusted(run: Path, theirs: Path) -> None:
    def trust(config: Config) -> None:
        set_callback(config)
        config["trust_config"] = True

    assert main(["validate", "--config", str(changed(run, theirs, trust))]) == 2
    assert not (theirs / "it_ran").exists()


def test_what_the_user_trusts_or_names_is_imported(run: Path, theirs: Path) -> None:
    quiet = ["--trainer.enable_progress_bar", "false"]
    path = changed(run, theirs, set_callback)
    assert main(["validate", "--config", str(path), "--trust-config", *quiet]) == 0
    assert (theirs / "it_ran").exists()
    sys.modules.pop(MODULE)
    (theirs / "it_ran").unlink()
    ours = ["--config", str(run / "config.yaml"), *quiet]
    named = ["--trainer.callbacks+", f"{MODULE}.TheirCallback"]
    assert main(["validate", *ours, *named]) == 0
    assert (theirs / "it_ran").exists()


def test_classes_of_torch_and_lightning_need_no_trust(run: Path, theirs: Path) -> None:
    def use(config: Config) -> None:
        config["trainer"]["enable_progress_bar"] = False
        config["trainer"]["callbacks"] = [
            {
                "class_path": "lightning.pytorch.callbacks.EarlyStopping",
                "init_args": {"monitor": "val/loss"},
            }
        ]

    assert main(["validate", "--config", str(changed(run, theirs, use))]) == 0


def test_fit_trusts_its_configuration(
    run: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(run, theirs, set_callback)
    words = ["--config", str(path), "--out", str(theirs / "run"), "--trainer.max_epochs", "1"]
    assert main(["fit", *words, "--trust_config"]) == 2
    assert "fit trusts its configuration" in capsys.readouterr().err
    assert main(["fit", *words]) == 0
    assert (theirs / "it_ran").exists()


@pytest.mark.parametrize("command", ["validate", "calibrate"])
def test_how_a_run_was_continued_does_not_choose_its_checkpoint(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    command: str,
) -> None:
    """Version 0.1 wrote ``ckpt_path: last`` into the configuration of a run that was continued."""
    outputs = []
    path = changed(run, tmp_path, lambda config: config.update(ckpt_path="last"))
    for config in (run / "config.yaml", path):
        capsys.readouterr()
        assert main([command, "--config", str(config), "--trainer.enable_progress_bar=false"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert "ckpt_path: last in the configuration is ignored" in caplog.text
