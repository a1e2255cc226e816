"""Backbones by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model

from faster_isnet.models import backbone_names, build_backbone, check_backbone, convnet

WEIGHTS = torchvision.models._api.WeightsEnum
LARGE = pytest.mark.slow


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> dict[str, Tensor]:
    """Return weights of 1000 classes, which torchvision will then take for those it downloads."""
    state: dict[str, Tensor] = get_model(name, **options).state_dict()
    monkeypatch.setattr(WEIGHTS, "get_state_dict", lambda *_, **__: dict(state))
    return state


@pytest.mark.parametrize("name", ["convnet", "resnet18", "densenet121", "vgg11_bn", "googlenet"])
def test_a_backbone_maps_images_to_logits_also_in_training(name: str) -> None:
    model = build_backbone(name, classes=7).train()
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "mobilenet_v3_small", "squeezenet1_1"),
        *(pytest.param(name, marks=LARGE) for name in ("resnet50", "vgg11", "vgg11_bn", "vgg16")),
    ],
)
def test_resnet_vgg_and_others_compute_what_torchvisions_do(name: str) -> None:
    ours = build_backbone(name, 4)
    theirs = get_model(name, num_classes=4)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=0, rtol=0)


def test_nothing_is_downloaded_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights asked for")

    monkeypatch.setattr(WEIGHTS, "get_state_dict", refuse)
    build_backbone("resnet18", 3, dropout=0.5)
    build_backbone("densenet121", 3)
    with pytest.raises(AssertionError, match="weights asked for"):
        build_backbone("resnet18", 3, pretrained=True)


@pytest.mark.parametrize(("dropout", "head"), [(0.0, "fc"), (0.5, "fc.1")])
def test_pretrained_weights_with_a_new_head(
    monkeypatch: pytest.MonkeyPatch, dropout: float, head: str
) -> None:
    state = pretend(monkeypatch, "resnet18")
    model = build_backbone("resnet18", 3, pretrained=True, dropout=dropout)
    loaded = model.state_dict()
    assert loaded.pop(f"{head}.weight").shape == (3, 512)
    assert loaded.pop(f"{head}.bias").shape == (3,)
    assert loaded.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_a_new_head_also_for_the_1000_classes_of_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    state = pretend(monkeypatch, "squeezenet1_1")
    model = build_backbone("squeezenet1_1", 1000, pretrained=True)
    assert not torch.equal(model.state_dict()["classifier.1.weight"], state["classifier.1.weight"])


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch, name, init_weights=False)
    model = build_backbone(name, 3, pretrained=True, dropout=0.3).train()
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 3)
    assert model.dropout.p == 0.3  # its own
    assert not any("aux" in key.lower() for key in model.state_dict())


def test_dropout_is_added_before_the_head_and_nowhere_else() -> None:
    plain, dropped = build_backbone("convnet", 3), build_backbone("convnet", 3, dropout=0.5)
    assert not any(isinstance(module, nn.Dropout) for module in plain.modules())
    assert dropped.classifier[0].p == 0.5
    state = {k.replace("classifier", "classifier.1"): v for k, v in plain.state_dict().items()}
    dropped.load_state_dict(state, strict=True)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(dropped.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "vgg16", "vgg19_bn"])
def test_a_vgg_without_its_last_pool(name: str) -> None:
    with torch.device("meta"):
        full, cut = build_backbone(name, 3), build_backbone(name, 3, last_pool=False)
        images = torch.empty(1, 3, 64, 64)
    assert list(cut.state_dict()) == list(full.state_dict())
    assert full.features(images).shape[2:] == (2, 2)
    assert cut.features(images).shape[2:] == (4, 4)
    assert isinstance(full.features[-1], nn.MaxPool2d)
    assert cut.eval()(images).shape == (1, 3)


def test_only_a_vgg_may_lose_its_last_pool() -> None:
    for name in ("resnet18", "convnet", "alexnet"):
        with pytest.raises(ValueError, match=f"for torchvision's VGG .* got backbone {name!r}"):
            build_backbone(name, 3, last_pool=False)


def test_convnet_has_five_convolutions_of_the_widths_asked_for() -> None:
    model = convnet(4, channels=(2, 3, 4, 5, 6))
    widths = [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [2, 3, 4, 5, 6]
    assert model(torch.rand(2, 3, 16, 24)).shape == (2, 4)


def test_names() -> None:
    papers = {f"densenet{depth}" for depth in (121, 161, 169, 201, 264)}
    assert {"convnet", "resnet50", "vgg16_bn", *papers} <= set(backbone_names())
    assert len(set(backbone_names())) == len(backbone_names())
    assert "fcn_resnet50" not in backbone_names()  # no classifier
    assert check_backbone("vgg16") == "vgg16"


def test_the_densenets_are_the_papers() -> None:
    model = build_backbone("densenet121", 3, dropout=0.5)
    assert isinstance(model.features.transition1.relu2, nn.ReLU)
    assert model.classifier[0].p == 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("resnet19", 3), ValueError, "unknown backbone 'resnet19'; did you mean 'resnet1"),
        (("densenet265", 3), ValueError, "did you mean 'densenet264'"),
        ((18, 3), TypeError, "backbone must be a string, got int"),
        (("resnet18", 1), ValueError, "classes must be at least 2, got 1"),
        (("resnet18", 3, False, 1.5), ValueError, r"dropout must be .* got 1.5"),
        (("convnet", 3, True), ValueError, "no pretrained weights for convnet; use pretrained=F"),
        (("densenet264", 3, True), ValueError, "no pretrained weights for densenet264"),
        (("convnet", 3, False, 0.0, True, 4), ValueError, "channels must be 1 or 3, got 4; use 1"),
        (("convnet", 3, False, 0.0, True, "1"), TypeError, "channels must be an integer"),
    ],
)
def test_errors(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_backbone(*arguments)
