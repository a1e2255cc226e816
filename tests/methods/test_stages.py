"""The stages and blocks of any network, found by running it on one image."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from faster_isnet import ISNet, ISNetLoss
from faster_isnet.methods.layer_grids import on_grid
from faster_isnet.methods.stages import find_blocks, find_stages
from faster_isnet.models import build_backbone
from faster_isnet.training.image_classifier import Normalise

Build = Callable[[], nn.Module]
SIZE = 64


class Block(nn.Module):
    """A block of a transformer, written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer written by hand, with a class token and registers, or with a mean."""

    def __init__(self, depth: int = 8, registers: int = 0, pool: str = "class") -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.first = nn.Parameter(torch.randn(1, 1 + registers, 16))
        self.positions = nn.Parameter(torch.randn(1, (SIZE // 8) ** 2, 16))
        self.blocks = nn.ModuleList(Block(16) for _ in range(depth))
        self.norm, self.head, self.pool = nn.LayerNorm(16), nn.Linear(16, 3), pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.pool == "class" else x.mean(1))


def torch_encoder() -> nn.Module:
    """Torch's own transformer, whose fast path calls no submodules."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=False)
    encoder = nn.TransformerEncoder(layer, 6)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 8, 8), nn.Flatten(2), Transposed(), encoder, Transposed()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def plain() -> nn.Module:
    """Convolutions one after another, some without padding."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


def torchvision_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(SIZE, 8, 5, 2, 16, 32, num_classes=3)


def normalised(build: Build) -> Build:
    return lambda: nn.Sequential(Normalise([0.5] * 3, [0.25] * 3), build())


def tv(name: str) -> Build:
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=3)


def timm(name: str, **options: Any) -> Build:
    def build() -> nn.Module:
        return pytest.importorskip("timm").create_model(name, num_classes=3, **options)

    return build


FOUR = [0, 1, 2, 3]
FOUND: dict[str, tuple[Build, list[str]]] = {
    "plain": (plain, ["5", "8", "9", "11"]),
    "convnet": (lambda: build_backbone("convnet", 3), ["block1", "block2", "block5"]),
    "vit by hand": (ViT, [f"blocks.{i}" for i in (0, 2, 4, 6)]),
    "vit with registers": (lambda: ViT(6, 4), [f"blocks.{i}" for i in (0, 2, 4)]),
    "vit with a mean": (lambda: ViT(8, 0, "mean"), [f"blocks.{i}" for i in (1, 3, 5, 7)]),
    "torch's encoder": (torch_encoder, [f"3.layers.{i}" for i in (1, 3, 5)]),
    "vit of torchvision": (
        torchvision_vit,
        [f"encoder.layers.encoder_layer_{i}" for i in FOUR],
    ),
    "wrapped": (normalised(tv("convnext_tiny")), [f"1.features.{i}" for i in (1, 3, 5, 7)]),
    "swin_t": (tv("swin_t"), [f"features.{i}" for i in (1, 3, 5, 7)]),
    "efficientnet_b0": (tv("efficientnet_b0"), [f"features.{i}" for i in (1, 2, 3, 5, 8)]),
    "mobilenet_v3": (tv("mobilenet_v3_small"), [f"features.{i}" for i in (0, 1, 3, 8, 12)]),
    "regnet": (tv("regnet_y_400mf"), [f"trunk_output.block{i}" for i in (1, 2, 3, 4)]),
    "googlenet": (
        lambda: build_backbone("googlenet", 3),
        ["inception3b", "inception4e", "inception5b"],
    ),
    "timm resnet18": (timm("resnet18"), [f"layer{i}" for i in (1, 2, 3, 4)]),
    "timm vit": (
        timm("vit_tiny_patch16_224", img_size=SIZE),
        [f"blocks.{i}" for i in (1, 4, 7, 10)],
    ),
    "timm swin": (
        timm("swin_tiny_patch4_window7_224", img_size=SIZE),
        [f"layers.{i}" for i in FOUR],
    ),
    "timm convnext": (timm("convnext_atto"), [f"stages.{i}" for i in FOUR]),
    "timm efficientnet": (
        timm("efficientnet_b0"),
        [*(f"blocks.{i}" for i in (0, 1, 2, 4)), "bn2"],
    ),
    "cait": (timm("cait_xxs24_224", img_size=SIZE), [f"blocks.{i}" for i in (5, 11, 17, 23)]),
    "coatnet": (timm("coatnet_nano_rw_224", img_size=SIZE), [f"stages.{i}" for i in FOUR]),
    "mobilevit": (timm("mobilevit_xxs"), [*(f"stages.{i}" for i in FOUR), "final_conv"]),
    "pvt": (timm("pvt_v2_b0"), [f"stages.{i}" for i in FOUR]),
    "xcit": (
        timm("xcit_nano_12_p16_224", img_size=SIZE),
        ["blocks.0", "blocks.4", "blocks.8", "cls_attn_blocks.0"],
    ),
    "mixer": (timm("mixer_s16_224", img_size=SIZE), [f"blocks.{i}" for i in (1, 3, 5, 7)]),
    "hrnet": (timm("hrnet_w18_small"), ["layer1", "final_layer"]),
}
LARGE: dict[str, tuple[Build, list[str]]] = {
    "maxvit of torchvision": (tv("maxvit_t"), [f"blocks.{i}" for i in FOUR]),
    "maxvit": (timm("maxvit_tiny_tf_224"), [f"stages.{i}" for i in FOUR]),
    "efficientformer": (timm("efficientformer_l1"), [f"stages.{i}" for i in FOUR]),
    "vit on a resnet": (
        timm("vit_small_r26_s32_224"),
        [*(f"patch_embed.backbone.stages.{i}" for i in range(3)), "blocks.10"],
    ),
}


def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(2, 1, size, size)
    masks[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return torch.rand(2, 3, size, size), torch.tensor([0, 2]), masks


def check(build: Build, expected: list[str], size: int) -> None:
    torch.manual_seed(0)
    model = build()
    for name, parameter in model.named_parameters():
        if not parameter.any() and name.endswith("weight"):  # heads that start with zeros
            nn.init.normal_(parameter, std=0.1)
    net, (x, y, masks) = ISNet(model, deep_supervision=True), batch(size)
    assert list(net.find_layers(x.shape[1:])) == expected
    net.eval()
    outputs = run(model, x, expected)
    grids = [
        on_grid(output.unsqueeze(1), x, model, name).shape[3:] for name, output in outputs.items()
    ]
    assert all(1 < grid.numel() < size**2 for grid in grids)
    assert grids == sorted(grids, reverse=True)
    for name in expected:
        assert_nothing_gets_by(model, name, x)
    net.train()
    explanation = net.explain(x)
    assert [relevance.shape[3:] for relevance in explanation.layers.values()] == grids
    assert all(bool(relevance.any()) for relevance in explanation.layers.values())
    loss = ISNetLoss(1.0, cut_low=0.1, cut_high=2.5)(explanation, y, masks)
    loss.total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.heatmap > 0
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def run(model: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Return the layers' outputs, if each runs once."""
    runs, outputs = Counter[str](), {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            runs[name] += 1
            outputs[name] = output.detach().clone()

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(keep(name))
            hooks.enter_context(handle)
        model(x)
    assert runs == Counter(names)
    return outputs


def assert_nothing_gets_by(model: nn.Module, name: str, x: Tensor) -> None:
    """What a layer returns is all that the logits know of the image."""
    given = x.clone().requires_grad_()
    wanted = [p for p in model.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    layer = model.get_submodule(name)
    with layer.register_forward_hook(lambda module, args, output: output.detach()):
        assert not model(given).requires_grad
    for parameter in wanted:
        parameter.requires_grad_(True)


@pytest.mark.parametrize("name", FOUND)
def test_the_layers_of_a_network(name: str) -> None:
    check(*FOUND[name], SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_layers_of_a_network_for_large_images(name: str) -> None:
    check(*LARGE[name], 224)


def test_an_image_that_is_not_square() -> None:
    model, shape = tv("swin_t")(), (3, 64, 96)
    net = ISNet(model, deep_supervision=True)
    assert net.find_layers(shape) == ("features.1", "features.3", "features.5", "features.7")
    grids = [tuple(r.shape[3:]) for r in net.explain(torch.rand(1, *shape)).layers.values()]
    assert grids == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_small_images_have_fewer_stages() -> None:
    assert find_stages(tv("efficientnet_b0")(), (3, 32, 32)) == [
        f"features.{i}" for i in (1, 2, 3, 5)
    ]


class Restless(nn.Module):
    """Changes its state and draws random numbers whenever it runs."""

    runs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Sequential(nn.Dropout(), nn.Conv2d(4, 3, 3, 2))
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        noise = torch.rand_like(x) + random.random() + float(np.random.rand())  # noqa: NPY002
        return self.last(self.inner(x + F.dropout(noise))).mean((2, 3))


def by_isnet(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, ...]:
    return ISNet(model, "dual", deep_supervision=True).find_layers(image_shape)


@pytest.mark.parametrize("find", [find_stages, by_isnet])
def test_the_network_is_left_as_it_was(find: Callable[..., Any]) -> None:
    model = Restless().train()
    model.inner[1].eval()
    model.last[1].weight.requires_grad_(False)
    model.last[1].weight.grad = torch.ones(3, 4, 3, 3)
    before, buffer = copy.deepcopy(model.state_dict()), model.runs

    def state() -> list[Any]:
        numbers = np.random.get_state()[1].tolist()  # noqa: NPY002
        modules = [(m.training, len(m._forward_hooks)) for m in model.modules()]
        parameters = [(p.requires_grad, p.grad) for p in model.parameters()]
        return [torch.get_rng_state().tolist(), random.getstate(), numbers, modules, parameters]

    as_it_was = state()
    with torch.inference_mode():
        found = find(model, (3, 32, 32))
    assert list(found) == ["inner", "last"]
    assert state() == as_it_was
    assert model.runs is buffer
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_layers_are_found_again() -> None:
    model = tv("mobilenet_v3_small")()
    first = find_stages(model, (3, 64, 64))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)  # they do not depend on weights
    assert find_stages(model.double().eval().requires_grad_(False), (3, 64, 64)) == first


def test_a_shared_module_is_not_a_layer() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2), relu, nn.Conv2d(4, 4, 3, 2), relu),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    assert find_stages(model, (3, 32, 32)) == ["0", "2"]


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 4, k, k), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
            for k in (4, 8)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.towers[0](x) + self.towers[1](x)


@pytest.mark.parametrize(
    "model",
    [TwoTowers(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Linear(8, 2))],
)
def test_a_network_without_such_layers(model: nn.Module) -> None:
    model(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"no hidden layer of \w+ .* \[3, 32, 32\] .* names"):
        find_stages(model, (3, 32, 32))
    with pytest.raises(ValueError, match="no hidden layer"):
        ISNet(model, deep_supervision=True).explain(torch.rand(1, 3, 32, 32))


def test_images_that_the_network_does_not_take() -> None:
    with pytest.raises(ValueError, match=r"does not take images of shape \[1, 3, 32, 32\]"):
        find_stages(
            nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(64, 2)), (3, 32, 32)
        )
    with pytest.raises(TypeError, match="must return logits"):
        find_stages(nn.Sequential(nn.Conv2d(3, 3, 2, 2), Pair()), (3, 32, 32))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_signals_and_vectors() -> None:
    signals = nn.Sequential(
        *(nn.Conv1d(2, 4, 3, 2), nn.ReLU(), nn.Conv1d(4, 4, 3, 2), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    assert find_stages(signals, (2, 64)) == ["1", "3"]
    with pytest.raises(ValueError, match="no hidden layer"):
        find_stages(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), (8,))


def test_volumes() -> None:
    volumes = nn.Sequential(
        *(nn.Conv3d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv3d(4, 4, 3, 2, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    net, masks = ISNet(volumes, deep_supervision=True), torch.zeros(2, 1, 8, 16, 16)
    masks[:, :, :4] = 1
    explanation = net.explain(torch.rand(2, 1, 8, 16, 16))
    assert {name: tuple(r.shape[3:]) for name, r in explanation.layers.items()} == {
        "1": (4, 8, 8),
        "3": (2, 4, 4),
    }
    ISNetLoss()(explanation, torch.tensor([0, 1]), masks).total.backward()


BLOCKS = {
    "vit by hand": (ViT, [f"blocks.{i}" for i in range(7)]),
    "vit with a mean": (lambda: ViT(3, 0, "mean"), [f"blocks.{i}" for i in range(3)]),
    "timm resnet18": (timm("resnet18"), [f"layer{i}.{k}" for i in (1, 2, 3, 4) for k in (0, 1)]),
    "timm convnext": (
        timm("convnext_atto"),
        [f"stages.{i}.blocks.{k}" for i, n in enumerate((2, 2, 6, 2)) for k in range(n)],
    ),
    "mobilenet_v2": (tv("mobilenet_v2"), [f"features.{i}" for i in range(19)]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block(name: str) -> None:
    build, expected = BLOCKS[name]
    assert find_blocks(build(), (3, SIZE, SIZE)) == expected


def test_a_network_without_blocks() -> None:
    with pytest.raises(ValueError, match="no block of several branches of Sequential"):
        find_blocks(plain(), (3, SIZE, SIZE))
