"""A HAM network of any classifier: what it reads, what it freezes, what it returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet import Explainer
from faster_isnet.methods.ham.network import ForegroundAttention, HAMNetwork
from faster_isnet.models import build_backbone, convnet
from faster_isnet.training.export import export


@pytest.mark.parametrize(
    ("name", "size", "layer", "grid"),
    [
        ("convnet", (32, 48), "block5", (4, 6)),
        ("resnet18", (64, 64), "layer4", (2, 2)),
        ("resnet18", (32, 32), "layer3", (2, 2)),  # layer4 has a single place
        ("small-vit-patch8", (64, 32), "blocks.5", (8, 4)),
        ("ag-sononet-8", (32, 32), "stage3", (8, 8)),
        pytest.param("vit_b_16", (224, 224), "", (14, 14), marks=pytest.mark.slow),
        pytest.param("swin_t", (64, 64), "features.7", (2, 2), marks=pytest.mark.slow),
    ],
)
def test_it_reads_the_last_places_of_any_classifier(
    name: str, size: tuple[int, int], layer: str, grid: tuple[int, int]
) -> None:
    network = HAMNetwork(build_backbone(name, 4), (3, *size)).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        found = network.attend(images)
        logits = network(images)
    assert layer in ("", network.layer)
    assert found.class_maps.shape == (2, 4, *grid)
    assert found.abnormality_map.shape == (2, 1, *grid)
    assert (found.abnormality.shape, logits.shape) == ((2, 1), (2, 4))
    assert torch.equal(found.logits, logits)
    assert found.class_maps.min() >= 0


def test_maps_are_the_heads_weights_on_the_features() -> None:
    network = HAMNetwork(convnet(3), (3, 32, 32)).double().eval()
    maps: list[Tensor] = []
    network.mix.register_forward_hook(lambda *call: maps.append(call[2]))
    found = network.attend(torch.rand(2, 3, 32, 32, dtype=torch.float64))
    expected = torch.einsum("bkhw,ck->bchw", maps[0], network.classes.weight).relu()
    torch.testing.assert_close(found.class_maps, expected)
    pooled = (6 * maps[0]).exp().mean((2, 3)).log() / 6
    torch.testing.assert_close(found.logits, pooled @ network.classes.weight.T)
    found.class_maps.sum().backward()
    assert network.classes.weight.grad is None  # the maps train the features alone


def test_a_larger_sharpness_is_nearer_to_the_maximum() -> None:
    maps = torch.rand(1, 4, 5, 5, dtype=torch.float64)
    network = HAMNetwork(convnet(3), (3, 32, 32))
    found = {}
    for network.sharpness in (1e-6, 6.0, 1e4):
        found[network.sharpness] = network._pool(maps)
    torch.testing.assert_close(found[1e-6], maps.mean((2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1e4], maps.amax((2, 3)), atol=1e-3, rtol=0)
    assert bool((found[1e-6] < found[6.0]).all() and (found[6.0] < found[1e4]).all())


def test_the_foreground_attention_is_the_published_formula() -> None:
    block = ForegroundAttention(16).double().eval()
    nn.init.constant_(block.gamma, 0.7)
    x = torch.rand(2, 16, 4, 5, dtype=torch.float64)
    shares = F.conv2d(x, block.collect.weight).flatten(1).softmax(1)
    collected = (x.flatten(2) * shares[:, None]).sum(2)
    gates = torch.sigmoid(block.channels(collected))
    merged = F.conv2d(F.conv2d(x, block.value.weight) * gates[..., None, None], block.merge.weight)
    z = torch.sigmoid(block.places[1](F.conv2d(merged, block.places[0].weight, padding=1)))
    torch.testing.assert_close(block(x), x + 0.7 * merged * z)


def test_the_foreground_attention_begins_as_the_identity_and_is_learnt() -> None:
    block = ForegroundAttention(8)
    x = torch.rand(2, 8, 4, 4)
    out = block(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert block.gamma.grad is not None
    assert block.gamma.grad.abs() > 0


def test_what_is_not_read_is_frozen_and_all_else_is_trained() -> None:
    network = HAMNetwork(build_backbone("resnet18", 3), (3, 64, 64))
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["classifier.fc.weight", "classifier.fc.bias"]
    found = network.attend(torch.rand(2, 3, 64, 64))
    (found.logits.sum() + found.abnormality.sum()).backward()
    missing = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_a_frozen_classifier_stays_frozen() -> None:
    classifier = convnet(3).requires_grad_(False)
    network = HAMNetwork(classifier, (3, 32, 32), layer="block5")
    assert not any(p.requires_grad for p in classifier.parameters())
    assert network.classes.weight.requires_grad


def test_the_classifier_is_left_as_it_was() -> None:
    classifier = convnet(3).train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    HAMNetwork(classifier, (3, 32, 32))
    assert classifier.training
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())
    assert not classifier.block5._forward_hooks


class Overwritten(nn.Module):
    """Writes over its feature maps before it reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.maps(images).mul_(0).mean((2, 3)))  # type: ignore[no-any-return]


def test_features_are_what_the_layer_returned() -> None:
    network = HAMNetwork(Overwritten(), (3, 16, 16), layer="maps").eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(network._features(images)[0], network.classifier.maps(images))


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        ((3, 32), None, r"HAM is for images \(C, H, W\), got image_shape=\(3, 32\)"),
        ((1, 32, 32), None, "HAM found no feature maps of Sequential .*1 channels"),
        ((3, 32, 32), "block6", "unknown layer 'block6'; did you mean"),
        ((3, 32, 32), "pool", r"'pool' returns \[64, 1, 1\].* an earlier layer, or give larger"),
        ((3, 32, 32), "flatten", r"'flatten' returns \[64\] for an image \[3, 32, 32\]"),
        ((3, 8, 8), "block3", r"'block3' returns \[64, 1, 1\].* give larger images"),
    ],
)
def test_errors(shape: tuple[int, ...], layer: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HAMNetwork(convnet(3), shape, layer)


def test_a_layer_that_runs_twice_or_never() -> None:
    class Twice(Overwritten):
        def forward(self, images: Tensor) -> Tensor:
            self.maps(images)
            return super().forward(images)

    with pytest.raises(ValueError, match="'maps' runs more than once"):
        HAMNetwork(Twice(), (3, 16, 16), layer="maps")
    unused = Overwritten()
    unused.spare = nn.Conv2d(3, 8, 3)
    with pytest.raises(ValueError, match="layer 'spare' does not run"):
        HAMNetwork(unused, (3, 16, 16), layer="spare")


def test_it_can_be_explained() -> None:
    support = Explainer.supports(HAMNetwork(convnet(3), (3, 32, 32)), 32)
    assert list(support.unknown) == ["logsumexp"]  # by its gradient: shares of the pooling


def test_other_sizes_than_those_that_it_was_built_for() -> None:
    network = HAMNetwork(build_backbone("small-vit-patch4", 3), (3, 16, 16)).eval()
    assert network.attend(torch.rand(2, 3, 32, 24)).class_maps.shape == (2, 3, 8, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("convnet", 32), ("small-vit-patch8", 64)])
def test_it_is_exported_for_batches_of_any_size(name: str, size: int, tmp_path: Path) -> None:
    network = HAMNetwork(build_backbone(name, 3), (3, size, size))
    nn.init.constant_(next(m for m in network.modules() if hasattr(m, "gamma")).gamma, 0.5)
    export(network, tmp_path, (3, size, size), ["onnx", "safetensors"])
