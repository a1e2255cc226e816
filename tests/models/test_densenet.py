"""The papers' DenseNet: torchvision's parameters, and a ReLU more in each transition."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model

from faster_isnet import Explainer
from faster_isnet.models.densenet import add_transition_relus, densenet

WEIGHTS = torchvision.models._api.WeightsEnum
BLOCKS = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


def small(relus: bool) -> nn.Module:
    model = torchvision.models.DenseNet(4, (1, 1, 1, 1), 8, 2, num_classes=5)
    return add_transition_relus(model) if relus else model


def pair() -> tuple[nn.Module, nn.Module]:
    """Torchvision's DenseNet and the papers', with the same parameters."""
    plain, ours = small(False), small(True)
    ours.load_state_dict(plain.state_dict(), strict=True)
    return plain.eval(), ours.eval()


@pytest.mark.parametrize("depth", BLOCKS)
def test_depths(depth: int) -> None:
    with torch.device("meta"):
        model: Any = densenet(depth, classes=7)
        images = torch.empty(2, 3, 64, 64)
    assert (
        tuple(len(model.features.get_submodule(f"denseblock{i}")) for i in (1, 2, 3, 4))
        == (BLOCKS[depth])
    )
    assert model.eval()(images).shape == (2, 7)
    names = ["norm", "relu", "conv", "relu2", "pool"]
    for number in (1, 2, 3):
        transition = model.features.get_submodule(f"transition{number}")
        assert [name for name, _ in transition.named_children()] == names


@pytest.mark.parametrize("depth", [121, 161, 169, 201])
def test_parameters_are_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        ours, theirs = densenet(depth, 1000), get_model(f"densenet{depth}")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_the_relu_acts_between_convolution_and_pooling() -> None:
    plain, ours = pair()
    x = torch.rand(2, 3, 64, 64)
    assert not torch.allclose(plain(x), ours(x))
    seen: list[Tensor] = []
    hook = ours.features.transition2.pool.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    ours(x)
    hook.remove()
    assert seen[0].min() == 0
    assert seen[0].max() > 0


def test_without_the_relus_it_is_torchvisions() -> None:
    plain, ours = pair()
    for number in (1, 2, 3):
        ours.features.get_submodule(f"transition{number}").relu2 = nn.Identity()
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), plain(x))


def test_relevance_is_conserved_at_no_stabiliser_and_no_biases() -> None:
    model = small(True).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Linear):
            nn.init.zeros_(module.bias)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    explanation = Explainer(model, epsilon=1e-12)(x, 1)
    torch.testing.assert_close(explanation.heatmap.flatten(2).sum(2), explanation.quantity)


def as_downloaded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the keys of the files that torchvision downloads, which are older."""
    pattern = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))([12])\.")
    return {
        pattern.sub(r"\1.\2.", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def test_pretrained_weights_are_torchvisions_with_a_new_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = get_model("densenet121")
    state = trained.state_dict()
    monkeypatch.setattr(WEIGHTS, "get_state_dict", lambda *_, **__: as_downloaded(state))
    model = densenet(121, 3, pretrained=True, dropout=0.5)
    loaded = model.state_dict()
    assert loaded.keys() ^ state.keys() == {
        *("classifier.weight", "classifier.bias"),
        *("classifier.1.weight", "classifier.1.bias"),
    }
    assert all(torch.equal(loaded[key], state[key]) for key in loaded.keys() & state.keys())
    assert loaded["classifier.1.weight"].shape == (3, 1024)
    assert model.training


def test_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match="depth must be one of 121, 161, 169, 201, 264, got 122"):
        densenet(122, 3)
    with pytest.raises(ValueError, match=r"no pretrained weights for densenet264.*another depth"):
        densenet(264, 3, pretrained=True)
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        densenet(121, 1)
