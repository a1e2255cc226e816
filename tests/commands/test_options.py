"""Every option of the ISNet and of its loss, written in a YAML file, is that of what is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from faster_isnet import ISNet, ISNetLoss
from faster_isnet.cli import main
from faster_isnet.commands.run_configuration import current_arguments, current_config
from faster_isnet.commands.training import RunCLI
from faster_isnet.methods import ISNetMethod, Standard

# For each option a value that is not its default, and where it is seen in the object.
OF_THE_NETWORK: dict[str, tuple[Any, Callable[[ISNet], Any]]] = {
    "variant": ("stochastic", lambda net: net.variant),
    "deep_supervision": (["block2", "block4"], lambda net: list(net.explainer.layers)),
    "composite": ("epsilon", lambda net: net.explainer.composite.name),
    "epsilon": (0.5, lambda net: net.explainer.epsilon),
    "input_rule": ("w2", lambda net: net.explainer.input_rule),
    "input_low": ([-1.0, -2.0, -3.0], lambda net: net.explainer.input_low.tolist()),
    "input_high": ([1.0, 2.0, 3.0], lambda net: net.explainer.input_high.tolist()),
    "ignore_classes": ([2], lambda net: list(net.ignored_classes)),
    "strict": (False, lambda net: net.explainer.strict),
}
OF_THE_LOSS: dict[str, tuple[Any, Callable[[ISNetLoss], Any]]] = {
    "heatmap_weight": (0.3, lambda loss: loss.heatmap_weight),
    "gwrp_decay": (0.95, lambda loss: loss.gwrp_decay),
    "activation": (2.0, lambda loss: loss.activation),
    "background_weight": (0.5, lambda loss: loss.background_weight),
    "foreground_weight": (0.5, lambda loss: loss.foreground_weight),
    "cut_low": ({"image": 0.5, "": 2.0}, lambda loss: {k: v[0] for k, v in loss.cuts.low.items()}),
    "cut_high": (7.0, lambda loss: loss.cuts.high[""][0]),
    "foreground": ("l2", lambda loss: loss.foreground),
    "normalization": ("signed", lambda loss: loss.normalization),
    "layer_decay": (0.5, lambda loss: loss.layer_decay),
    "task": ("multiclass", lambda loss: loss.task),  # the data say it
    "class_weights": ([1.0, 2.0, 3.0], lambda loss: _listed(loss.classification.class_weights)),
    "classification": (
        {"class_path": "ClassificationLoss", "init_args": {"label_smoothing": 0.25}},
        lambda loss: {
            "class_path": type(loss.classification).__name__,
            "init_args": {"label_smoothing": loss.classification.label_smoothing},
        },
    ),
}


def _listed(values: Tensor | None) -> list[float] | None:
    return None if values is None else values.tolist()


@pytest.fixture
def built(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any]], Any]:
    """Return what makes the model that ``fit`` would train with a configuration."""
    models: list[Any] = []
    monkeypatch.setattr(RunCLI, "_run_subcommand", lambda cli, _: models.append(cli.model))

    def build(config: dict[str, Any]) -> Any:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        words = ["--config", tmp_path / "config.yaml", "--data.source", images, "--data.size", 24]
        words += ["--model.backbone", "convnet", "--out", tmp_path / "run"]
        assert main(["fit", *map(str, words)]) == 0
        return models.pop()

    return build


def options_of(kind: type) -> set[str]:
    return set(inspect.signature(kind).parameters) - {"model"}


def test_the_tables_are_complete() -> None:
    assert set(OF_THE_NETWORK) == options_of(ISNet)
    assert set(OF_THE_LOSS) == options_of(ISNetLoss)


@pytest.mark.parametrize("name", OF_THE_NETWORK)
def test_an_option_of_the_network(name: str, built: Callable[[dict[str, Any]], Any]) -> None:
    value, seen = OF_THE_NETWORK[name]
    method = {"class_path": "isnet", "init_args": {name: value}}
    assert seen(built({"method": method}).net) == value
    assert seen(built({}).net) != value


@pytest.mark.parametrize("name", OF_THE_LOSS)
def test_an_option_of_the_loss(name: str, built: Callable[[dict[str, Any]], Any]) -> None:
    value, seen = OF_THE_LOSS[name]
    options = {"cut_low": 1.0, name: value}
    found = built({"method": {"class_path": "isnet", "init_args": {"loss": options}}})
    assert seen(found.method.loss) == value
    if name != "task":
        standard = built({"method": {"init_args": {"loss": {"cut_low": 1.0}}}})
        assert seen(standard.method.loss) != value


def test_c1_and_c2_are_calibrated_unless_they_are_given(
    built: Callable[[dict[str, Any]], Any],
) -> None:
    for config in ({}, {"method": "isnet"}, {"method": {"init_args": {"loss": {"activation": 2}}}}):
        assert built(config).method.loss.cuts is None


def test_the_method_may_be_another(built: Callable[[dict[str, Any]], Any]) -> None:
    model = built({"method": "standard"})
    assert isinstance(model.method, Standard)
    assert not isinstance(model.net, ISNet)


def test_options_of_version_0_1(built: Callable[[dict[str, Any]], Any]) -> None:
    old = {
        "backbone": "convnet",
        "variant": "dual",
        "deep_supervision": ["block1"],
        "heatmap_weight": 0.4,
        "cut_low": 2.0,
        "milestones": [3],
        "gamma": 0.5,
        "heatmap_weight_schedule": {"0": 0.1, "10": 0.6},
    }
    model = built({"model": old})
    assert isinstance(model.method, ISNetMethod)
    assert (model.net.variant, model.net.layers) == ("dual", ("block1",))
    assert model.method.loss.heatmap_weight == 0.4
    assert model.method.loss.cuts.low[""] == (2.0,)
    assert (model.milestones, model.milestone_factor) == ([3], 0.5)
    assert model.method.heatmap_weight_schedule == {0: 0.1, 10: 0.6}


def test_options_of_version_0_1_on_the_command_line(caplog: pytest.LogCaptureFixture) -> None:
    old = ["fit", "--model.variant=dual", "--model.heatmap-weight", "0.5", "--model.backbone", "x"]
    new = ["fit", "--method.variant=dual", "--method.loss.heatmap_weight", "0.5"]
    assert current_arguments(old) == [*new, "--model.backbone", "x"]
    assert "--model.variant is called --method.variant now" in caplog.text
    assert current_arguments(new) == new
    assert current_config({"method": "standard"})["method"].endswith(".Standard")
