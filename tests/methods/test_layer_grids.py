"""Where the values of a hidden layer lie in the image."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from faster_isnet import ISNet, ISNetLoss
from faster_isnet.methods.layer_grids import on_grid


def placed(shape: list[int], size: tuple[int, ...], model: nn.Module | None = None) -> Tensor:
    images = torch.zeros(2, 3, *size)
    return on_grid(torch.rand(2, 1, *shape), images, nn.Identity() if model is None else model, "")


@pytest.mark.parametrize("prefix", range(6))
@pytest.mark.parametrize(
    ("size", "grid"),
    [((64, 64), (4, 4)), ((64, 96), (8, 12)), ((96, 64), (3, 2)), ((32, 64, 64), (2, 4, 4))],
)
def test_tokens_are_placed_row_by_row_without_their_prefix(
    size: tuple[int, ...], grid: tuple[int, ...], prefix: int
) -> None:
    expected = torch.rand(2, 3, 5, *grid)
    tokens = torch.cat([torch.rand(2, 3, prefix, 5), expected.flatten(3).transpose(2, 3)], 2)
    found = on_grid(tokens, torch.zeros(2, 3, *size), nn.Identity(), "")
    assert torch.equal(found, expected)


def test_a_network_may_say_how_many_tokens_have_no_place() -> None:
    model = nn.Sequential(nn.Sequential(nn.Identity()))
    images, tokens = torch.zeros(2, 3, 24, 24), torch.rand(2, 1, 9, 5)  # 3 x 3, or 2 x 2 and five
    with pytest.raises(ValueError, match=r"'0.0'.*0 tokens .*\[3, 3\] or 5 tokens .*\[2, 2\].*num"):
        on_grid(tokens, images, model, "0.0")
    model[0].num_prefix_tokens = 5
    assert on_grid(tokens, images, model, "0.0").shape == (2, 1, 5, 2, 2)
    many = torch.rand(2, 1, 16 + 12, 5)  # 5 x 5 and three are no patches of the image
    with pytest.raises(ValueError, match=r"no grid of patches .* has 28 tokens, nor up to 5 fewer"):
        on_grid(many, images, model, "0.0")
    model[0].num_prefix_tokens = 12
    assert on_grid(many, images, model, "0.0").shape == (2, 1, 5, 4, 4)
    model[0].num_prefix_tokens = 1  # a layer before they are added has none of them
    assert on_grid(many[:, :, 12:], images, model, "0.0").shape == (2, 1, 5, 4, 4)


@pytest.mark.parametrize(("tokens", "size"), [(15, (32, 32)), (1, (32, 32)), (16, (40, 64))])
def test_tokens_of_no_grid(tokens: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"layer '' returns \[\d+, 8\] for each image of \d+ x"):
        placed([tokens, 8], size)


@pytest.mark.parametrize(
    ("shape", "size", "grid"),
    [
        ([16, 8, 8], (64, 64), (8, 8)),
        ([8, 8, 8], (64, 64), (8, 8)),  # torch's convention decides
        ([8, 8, 16], (64, 64), (8, 8)),
        ([8, 8, 7], (64, 64), (8, 8)),  # exact before rounded
        ([4, 6, 32], (64, 96), (4, 6)),
        ([32, 13, 10], (220, 160), (13, 10)),  # rounded
        ([14, 10, 32], (220, 160), (14, 10)),
        ([32, 16, 8], (64, 32), (16, 8)),  # [32, 16] has the proportions, too
        ([7, 3, 9], (64, 64), (3, 9)),  # nothing fits: as torch has it
        ([2, 4, 4, 32], (16, 32, 32), (2, 4, 4)),
    ],
)
def test_channels_first_and_last(
    shape: list[int], size: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    assert placed(shape, size).shape[3:] == grid


def test_where_both_fit_the_module_decides() -> None:
    values, images = torch.rand(2, 1, 8, 8, 8), torch.zeros(2, 3, 64, 64)
    model = nn.Sequential(nn.Identity())
    assert on_grid(values, images, model, "0") is values
    model.output_fmt = "NHWC"
    assert torch.equal(on_grid(values, images, model, "0"), values.movedim(-1, 2))


@pytest.mark.parametrize(("name", "last"), [("features.0.0", False), ("features.1.0", True)])
def test_torchvisions_swin_has_channels_last_behind_its_first_convolution(
    name: str, last: bool
) -> None:
    model = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [1, 1], [4, 4], num_classes=3)
    values, images = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 3, 64, 64)  # 16 of everything
    found = on_grid(values, images, model, name)
    assert torch.equal(found, values.movedim(-1, 2) if last else values)


def test_maps_of_convolutions_are_not_touched() -> None:
    for shape, size in [([5, 8, 8], (64, 64)), ([5, 4, 8, 8], (16, 32, 32)), ([5, 9], (36,))]:
        values = torch.rand(2, 1, *shape)
        assert on_grid(values, torch.zeros(2, 3, *size), nn.Identity(), "") is values


def test_windows_and_sequences_first_are_refused() -> None:
    with pytest.raises(ValueError, match=r"returns 8 x \[49, 5\] for 2 images: its first dim"):
        on_grid(torch.rand(8, 1, 49, 5), torch.zeros(2, 3, 56, 56), nn.Identity(), "")


class Tokens(nn.Module):
    """Maps ``[B, C, H, W]`` to tokens, behind some that do not depend on the image."""

    def __init__(self, prefix: int, channels: int = 5) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, prefix, channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


class Mean(nn.Module):
    """Returns the mean over all places, and tokens without a place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, -2).mean(1)


@pytest.mark.parametrize("form", [Tokens(0), Tokens(1), Tokens(3), ChannelsLast()])
def test_relevance_and_loss_are_those_of_the_map_of_the_same_values(form: nn.Module) -> None:
    """Whichever form a layer returns its values in, its relevance and its loss are the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.ReLU(), form, Mean(), nn.Linear(5, 3)).double()
    x, y = torch.rand(2, 3, 24, 24, dtype=torch.float64), torch.tensor([0, 1])
    masks = torch.zeros(2, 1, 24, 24)
    masks[..., :8, 4:12] = 1
    explanation = ISNet(model, deep_supervision=["1", "2"], input_rule=None).explain(x)
    as_map, as_form = explanation.layers.values()
    assert as_form.shape == as_map.shape == (2, 1, 5, 6, 6)
    torch.testing.assert_close(as_form, as_map)
    loss = ISNetLoss(1.0)
    gradients = []
    for relevance in (as_map, as_form):
        one = loss(type(explanation)(explanation.logits, relevance, {}, y), y, _small(masks))
        gradients.append(torch.autograd.grad(one.total, model[0].weight, retain_graph=True)[0])
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0
    loss(explanation, y, masks).total.backward()


def _small(masks: Tensor) -> Tensor:
    return nn.functional.max_pool2d(masks, 4)
