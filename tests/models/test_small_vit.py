"""The small vision transformer: sizes, positions, relevance, export, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet
from faster_isnet.models import build_backbone
from faster_isnet.models.small_vit import SmallViT, positions
from faster_isnet.training.export import export


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("small-vit-patch4", (32, 32)),
        ("small-vit-patch4", (20, 36)),
        ("small-vit-patch8", (64, 64)),
        ("small-vit-patch8", (64, 96)),
    ],
)
def test_it_maps_images_of_any_size_of_patches_to_logits(name: str, size: tuple[int, int]) -> None:
    assert build_backbone(name, 5)(torch.rand(2, 3, *size)).shape == (2, 5)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"30 x 33 pixels .* patches of 8 x 8; .* multiples of 8"):
        SmallViT(3)(torch.rand(2, 3, 30, 33))


def test_every_place_has_a_position_of_its_own() -> None:
    found = positions(torch.zeros(1, 96, 12, 16))
    distances = torch.cdist(found, found) + torch.eye(12 * 16) * 9
    assert found.shape == (12 * 16, 96)
    assert distances.min() > 0.1


def test_a_larger_grid_continues_a_smaller_one() -> None:
    small, large = (positions(torch.zeros(1, 8, *size)) for size in ((2, 3), (5, 7)))
    assert torch.equal(large.reshape(5, 7, 8)[:2, :3], small.reshape(2, 3, 8))


def test_it_sees_where_a_patch_is() -> None:
    model = SmallViT(3, patch=4).eval()
    images = torch.rand(2, 3, 16, 16)
    moved = images.roll(4, 3)
    with torch.no_grad():
        assert not torch.allclose(model(images), model(moved), atol=1e-3)


def test_relevance_is_known_and_its_layers_can_be_supervised() -> None:
    model = build_backbone("small-vit-patch8", 3)
    support = Explainer.supports(model, 64)
    assert not support.unknown
    assert list(support.approximate) == ["scaled_dot_product_attention"]
    net = ISNet(model, deep_supervision=True)
    explanation = net.explain(torch.rand(2, 3, 64, 32))
    assert net.layers == ("blocks.1", "blocks.3", "blocks.5")  # the last one as well
    assert {r.shape[2:] for r in explanation.layers.values()} == {(96, 8, 4)}
    sum(r.abs().sum() for r in (explanation.heatmap, *explanation.layers.values())).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.slow
def test_it_is_exported(tmp_path: Path) -> None:
    export(build_backbone("small-vit-patch8", 3), tmp_path, (3, 64, 32), ["onnx"])


def test_it_learns_where_something_is() -> None:
    """Whether a bright patch is on the left or on the right: it needs the positions."""
    model = SmallViT(2, patch=4, width=24, depth=2)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(80):
        images, labels = sides(32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images, labels = sides(100)
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).float().mean() > 0.95


def sides(count: int) -> tuple[Tensor, Tensor]:
    images, columns = torch.rand(count, 3, 16, 16) / 2, torch.randint(4, (count,))
    for image, column in zip(images, columns.tolist(), strict=True):
        row = int(torch.randint(4, ()))
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    return images, (columns >= 2).long()
