"""Reaching hidden layers' outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faster_isnet.explaining.explainer import Explainer
from faster_isnet.relevance import check_layers, hidden_outputs


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, bias=False)),
        *(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3, bias=False)),
    ).double()


def images() -> Tensor:
    return torch.rand(2, 1, 6, 6, dtype=torch.float64)


def test_every_layer_has_all_the_relevance() -> None:
    """Conservation, layer by layer, without biases and ε → 0."""
    names = ["1", "2", "3", "4"]
    explanation = Explainer(network(), epsilon=1e-12, layers=names)(images(), "all-classes")
    assert list(explanation.layers) == names
    for relevance in (explanation.heatmap, *explanation.layers.values()):
        torch.testing.assert_close(relevance.flatten(2).sum(2), explanation.quantity)


def test_asking_for_layers_changes_nothing_else() -> None:
    model, x = network(), images()
    plain = Explainer(model)(x)
    asked = Explainer(model, layers=["0", "3"])(x)
    torch.testing.assert_close(asked.heatmap, plain.heatmap)
    torch.testing.assert_close(asked.logits, plain.logits)


def test_an_output_is_what_it_was_before_it_was_changed_in_place() -> None:
    model, x = network(), images()
    with hidden_outputs(model, ["0", "1"]) as outputs:
        model(x)
    torch.testing.assert_close(outputs["0"], model[0](x))
    torch.testing.assert_close(outputs["1"], model[0](x).relu())


def test_zb_starts_behind_a_layer_that_is_asked_for() -> None:
    model, x = network(), images()
    explanation = Explainer(model, epsilon=1e-12, input_rule="zb", layers=["0", "1"])(x)
    for relevance in (explanation.heatmap, *explanation.layers.values()):
        torch.testing.assert_close(relevance.flatten(2).sum(2), explanation.quantity)


def test_hooks_are_gone_afterwards_and_after_an_error() -> None:
    model = network()
    with pytest.raises(ZeroDivisionError), hidden_outputs(model, ["0", "3"]):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.linear(self.relu(self.linear(x))))


class Tuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0][:, -1]


def test_a_layer_that_runs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'relu' runs more than once"):
        Explainer(Reused(), layers=["relu"])(torch.rand(2, 4))


def test_a_layer_that_returns_a_tuple_is_refused() -> None:
    with pytest.raises(TypeError, match="'rnn' returns tuple"):
        Explainer(Tuple(), layers=["rnn"])(torch.rand(2, 3, 4))


def test_a_layer_that_does_not_run_is_named() -> None:
    model = network()
    model.add_module("branch", nn.ModuleList([nn.Linear(3, 3)]))
    model.forward = lambda x: nn.Sequential(*list(model)[:6])(x)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=r"\['branch.0'\] did not run"):
        Explainer(model, layers=["branch.0"])(images())


def test_names_are_checked() -> None:
    model = nn.Sequential()
    model.add_module("features", nn.ReLU())
    with pytest.raises(ValueError, match="unknown layer 'feature'; did you mean 'features'"):
        check_layers(model, ["feature"])
    with pytest.raises(TypeError, match="sequence of module names"):
        check_layers(model, "features")
    with pytest.raises(ValueError, match="twice"):
        check_layers(model, ["features", "features"])
    assert check_layers(model, ["features"]) == ("features",)
