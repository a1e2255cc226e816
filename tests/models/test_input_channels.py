"""Networks that read grey images compute what those of colours compute on repeated channels."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model

from faster_isnet.common.recipes import ARGUMENTS, build, recipe
from faster_isnet.models import backbone_names, build_backbone, replace_classifier
from faster_isnet.models.input_channels import sum_input_channels
from faster_isnet.training.image_classifier import Normalise

WEIGHTS = torchvision.models._api.WeightsEnum
FAST = {
    "convnet": 32,
    "ag-sononet-8": 32,
    "small-vit-patch8": 32,
    "alexnet": 64,
    "densenet121": 64,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
}
SLOW = {
    "convnext_tiny": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 64,
    "vit_b_32": 224,
}
SIZES = [
    *FAST.items(),
    *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW.items()),
]


def grey_and_colour(name: str, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Build a network from the same random numbers for grey images and for those in colour."""
    found = []
    for channels in (1, 3):
        torch.manual_seed(0)
        found.append(build_backbone(name, 4, channels=channels, **options).eval())
    return found[0], found[1]


def settle(network: nn.Module, images: Tensor) -> None:
    """Draw heads that are zero, and measure statistics, so that logits depend on the image."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if parameter.dim() == 2 and not parameter.any():
            nn.init.normal_(parameter)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            network.train()(images)
        network.eval()


def assert_same(grey: Tensor, colour: Tensor) -> None:
    """Compare what two networks return for two images, which must not be the same for both."""
    scale = (colour[0] - colour[1]).abs().max()
    assert scale > 1e-6 * colour.abs().max()
    torch.testing.assert_close(grey / scale, colour / scale, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_a_grey_image_has_the_logits_of_the_repeated_one(name: str, size: int) -> None:
    grey, colour = (each.double() for each in grey_and_colour(name))
    images = torch.rand(4, 1, size, size, dtype=torch.float64)
    repeated = images.expand(-1, 3, -1, -1)
    settle(grey, images)
    settle(colour, repeated)
    with torch.no_grad():
        assert_same(grey(images), colour(repeated))


@pytest.mark.slow
def test_one_convolution_of_every_network_reads_the_image() -> None:
    """Of RegNets, which cannot be built without memory, the test above has one."""
    for name in backbone_names():
        if not name.startswith("regnet"):
            with torch.device("meta"):
                build_backbone(name, 2, channels=1)


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> None:
    """Let torchvision take random weights and statistics for those that it downloads."""
    state = get_model(name, **options).state_dict()
    for key in state:
        if key.endswith("running_mean"):
            state[key] = torch.randn_like(state[key]) / 10
    monkeypatch.setattr(WEIGHTS, "get_state_dict", lambda *_, **__: dict(state))


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1",  # a bias, and no padding, so that there are no borders
        pytest.param("inception_v3", marks=pytest.mark.slow),  # a batch norm, and transform_input
    ],
)
def test_pretrained_weights_for_grey_images_have_the_means_of_the_channels_folded_in(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, name)
    grey, colour = grey_and_colour(name, pretrained=True)
    images = torch.rand(2, 1, 96, 96)
    repeated = images.expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = colour(Normalise.as_imagenet(3)(repeated))
        assert_same(grey(Normalise.as_imagenet(1)(images)), expected)
        sum_input_channels(alone := copy.deepcopy(colour))
        summed = alone(Normalise.as_imagenet(1)(images))
    assert (summed - expected).abs().max() > 1e-3 * (expected[0] - expected[1]).abs().max()


@pytest.mark.parametrize(
    ("name", "conv", "norm"),
    [("resnet18", "conv1", "bn1"), ("googlenet", "conv1.conv", "conv1.bn")],
)
def test_where_the_first_convolution_pads_only_the_borders_differ(
    name: str, conv: str, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, name, **({} if name == "resnet18" else {"init_weights": False}))
    networks = grey_and_colour(name, pretrained=True)
    images = torch.rand(2, 1, 32, 32)
    maps = []
    for network, channels in zip(networks, (1, 3), strict=True):
        x = Normalise.as_imagenet(channels)(images.expand(-1, channels, -1, -1))
        with torch.no_grad():
            maps.append(network.get_submodule(norm)(network.get_submodule(conv)(x)))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(maps[0][inside], maps[1][inside], rtol=1e-4, atol=1e-5)
    assert (maps[0] - maps[1]).abs().max() > 1e-3


@pytest.mark.slow
def test_a_pretrained_inception_is_torchvisions_and_its_state_dict_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, "inception_v3")
    theirs: Any = get_model("inception_v3", weights="DEFAULT").eval()
    ours = build_backbone("inception_v3", 4, pretrained=True).eval()
    again = build(recipe(ours)).eval()
    again.load_state_dict(ours.state_dict())
    theirs.fc = ours.fc
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert_same(ours(images), theirs(images))
        torch.testing.assert_close(again(images), ours(images), rtol=0, atol=0)


def test_a_recipe_has_the_channels_and_one_of_before_means_three() -> None:
    described = recipe(build_backbone("convnet", 4, channels=1))
    assert build(described)(torch.rand(2, 1, 16, 16)).shape == (2, 4)
    del described[ARGUMENTS]["channels"]
    assert build(described)(torch.rand(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_a_head_is_replaced_in_a_network_of_grey_images(name: str) -> None:
    model = replace_classifier(build_backbone(name, 4, channels=1), 5, dropout=0.5)
    assert model.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 5)


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_timm_sums_pretrained_weights_itself(
    timm: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create, file = timm.create_model, tmp_path / "weights.pt"
    torch.save(create(name).state_dict(), file)

    def from_file(*args: Any, **options: Any) -> nn.Module:
        return create(*args, pretrained_cfg_overlay={"file": str(file)}, **options)

    monkeypatch.setattr(timm, "create_model", from_file)
    grey, colour = grey_and_colour(f"timm:{name}", pretrained=True, dropout=0.5)
    _, *size = colour.pretrained_cfg["input_size"]
    assert grey.pretrained_cfg["input_size"] == (1, *size)
    images = torch.rand(2, 1, *size)
    with torch.no_grad():
        maps = grey.forward_features(images)
        assert_same(maps, colour.forward_features(images.expand(-1, 3, -1, -1)))
        assert grey(images).shape == (2, 4)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Linear(3, 2), "Linear has 0 convolutions of three input channels"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)), r"2 convolutions .*\(0, 1\)"),
    ],
)
def test_another_network_is_refused(model: nn.Module, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        sum_input_channels(model)
