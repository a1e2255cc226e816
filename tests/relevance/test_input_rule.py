"""The zB rule, and how its layer is found."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faster_isnet.explaining.explainer import Explainer

EPSILON = 0.1
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]).double(), torch.tensor([0.2, 0.25, 0.3]).double()


def zb_by_hand(
    x: Tensor, low: Tensor, high: Tensor, weight: Tensor, bias: Tensor, outputs: Tensor
) -> Tensor:
    """Method §2 for a dense layer: x, low, high [B, I], weight [O, I], bias [O], R [B, O]."""
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    parts = x[:, None] * weight - low[:, None] * up - high[:, None] * down
    shift = bias - low.mean() * bias.clamp(min=0) - high.mean() * bias.clamp(max=0)
    z = parts.sum(2) + shift
    return (parts / (z + EPSILON * torch.where(z < 0, -1, 1))[..., None] * outputs[..., None]).sum(
        1
    )


def as_matrix(layer: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Write an affine layer of images of this shape as a dense one."""
    zero = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
    basis = torch.eye(zero.new_zeros(shape).numel(), dtype=torch.float64).reshape(-1, *shape)
    return (layer(basis).flatten(1) - zero).T.detach(), zero.detach()


def box(shape: torch.Size, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    return (torch.full(shape, v, dtype=torch.float64).flatten(1) for v in (low, high))


def network(bias: bool = True, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    model = nn.Sequential(
        *(nn.Conv2d(3, 5, 3, padding=1, stride=2, bias=bias), nn.BatchNorm2d(5)),
        *(activation(), nn.Flatten(), nn.Linear(5 * 9, 4)),
    ).double()
    for tensor in (model[1].weight, model[1].bias, model[1].running_mean, model[1].running_var):
        tensor.data.uniform_(0.5, 1.5)
    model[1].weight.data[0] *= -1
    return model.eval()


def images() -> Tensor:
    return torch.rand(2, 3, 6, 6, dtype=torch.float64)


def heatmap(model: nn.Module, x: Tensor, **options: object) -> Tensor:
    options = {"input_rule": "zb", "epsilon": EPSILON} | options
    return Explainer(model, **options)(x, target=1).heatmap.squeeze(1)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution_batch_norm_relu_are_one_layer(bias: bool, inplace: bool) -> None:
    model, x = network(bias), images()
    model[2] = nn.ReLU(inplace)
    weight, shift = as_matrix(model[:2], (3, 6, 6))
    a = model[:2](x).relu().flatten(1)
    expected = zb_by_hand(x.flatten(1), *box(x.shape), weight, shift, a * model[4].weight[1])
    torch.testing.assert_close(heatmap(model, x).flatten(1), expected)


def test_in_place_relu_right_behind_the_convolution() -> None:
    model, x = network(), images()
    model[1] = nn.Identity()
    expected = heatmap(model, x)
    model[2] = nn.ReLU(inplace=True)
    torch.testing.assert_close(heatmap(model, x), expected)


def test_training_mode_fuses_the_batch_statistics() -> None:
    model, x = network(), images()
    model[1].train()
    frozen = copy.deepcopy(model).eval()
    z = model[0](x).detach()
    frozen[1].running_mean.copy_(z.mean((0, 2, 3)))
    frozen[1].running_var.copy_(z.var((0, 2, 3), correction=0))
    torch.testing.assert_close(heatmap(model, x), heatmap(frozen, x))


def test_another_activation_takes_the_rule_at_the_layers_output() -> None:
    model, x = network(activation=nn.SiLU), images()
    weight, shift = as_matrix(model[:2], (3, 6, 6))
    z = model[:2](x).flatten(1)
    g = model[4].weight[1] * F.silu(z) / (z + EPSILON * torch.where(z < 0, -1, 1))
    expected = zb_by_hand(x.flatten(1), *box(x.shape), weight, shift, z * g)
    torch.testing.assert_close(heatmap(model, x).flatten(1), expected)


def test_linear_first_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    x = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    a = model[:3](x)
    expected = zb_by_hand(
        x.flatten(1), *box(x.shape), model[1].weight, model[1].bias, a * model[3].weight[1]
    )
    torch.testing.assert_close(heatmap(model, x).flatten(1), expected)


def test_even_kernel_padded_to_the_same_size() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, (2, 4), padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).double()
    x = images()
    weight, shift = as_matrix(model[0], (3, 6, 6))
    a = model[:2](x).flatten(1)
    expected = zb_by_hand(x.flatten(1), *box(x.shape), weight, shift, a * model[3].weight[1])
    torch.testing.assert_close(heatmap(model, x).flatten(1), expected)


def test_transposed_first_layer_with_groups_and_batch_norm() -> None:
    model = nn.Sequential(
        *(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(6 * 49, 3)),
    ).double()
    model[1].weight.data.uniform_(-1, 1)
    model.eval()
    x = torch.rand(2, 4, 3, 3, dtype=torch.float64)
    weight, shift = as_matrix(model[:2], (4, 3, 3))
    a = model[:3](x).flatten(1)
    expected = zb_by_hand(x.flatten(1), *box(x.shape), weight, shift, a * model[4].weight[1])
    torch.testing.assert_close(heatmap(model, x).flatten(1), expected)


class Backwards(nn.Module):
    """Its modules stand in another order than they run in, and one that is first never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(3, 5, 3)
        self.head = nn.Linear(5 * 9, 4)
        self.stem = network()[:3]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).flatten(1))


def test_the_first_layer_is_found_by_what_runs() -> None:
    model, x = Backwards().double().eval(), images()
    ordered = nn.Sequential(*model.stem, nn.Flatten(), model.head)
    torch.testing.assert_close(heatmap(model, x), heatmap(ordered, x))


class Preprocessing(nn.Module):
    def __init__(self, preprocess: Callable[[Tensor], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.model = preprocess, model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.preprocess(x))


def _normalise_in_place(x: Tensor) -> Tensor:
    return x.sub_(MEAN[:, None, None]).div_(STD[:, None, None])


PREPROCESSINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalise": lambda x: (x - MEAN[:, None, None]) / STD[:, None, None],
    "normalise in place": _normalise_in_place,
    "invert": lambda x: 1 - x,
    "negate": lambda x: -2 * x,
    "by channel, as torchvision's GoogLeNet": lambda x: torch.cat(
        [torch.unsqueeze(x[:, c], 1) * (0.2 + c) - 0.1 * c for c in range(3)], 1
    ),
    "concatenate, by name": lambda x: torch.concatenate(tensors=(2 * x[:, :1], x[:, 1:]), dim=1),
    "stack": lambda x: torch.stack([x[:, 0], 3 * x[:, 1], x[:, 2] - 1], 1),
    "swap channels": lambda x: x.flip(1),
    "clone": torch.clone,
}


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_preprocessing_inside_of_the_model_is_followed(name: str) -> None:
    """The same as to fold the preprocessing into the first layer's weights (bias aside)."""
    preprocess, model, x = PREPROCESSINGS[name], network(bias=False), images()
    corners = [preprocess(torch.full_like(x[:1], v)) for v in (0.0, 1.0)]
    low, high = torch.minimum(*corners), torch.maximum(*corners)
    inner = preprocess(x.clone())
    weight, shift = as_matrix(model[:2], (3, 6, 6))
    a = model[:3](inner).flatten(1)
    boxes = (c.expand_as(x).flatten(1) for c in (low, high))
    expected = zb_by_hand(inner.flatten(1), *boxes, weight, shift, a * model[4].weight[1])
    expected = expected.reshape(x.shape)
    expected = expected.flip(1) if name == "swap channels" else expected
    torch.testing.assert_close(heatmap(Preprocessing(preprocess, model), x), expected)


def test_normalisation_outside_of_the_model_is_the_same_with_its_bounds() -> None:
    model, x = network(), images()
    inside = Preprocessing(PREPROCESSINGS["normalise"], model)
    outside = heatmap(
        model,
        PREPROCESSINGS["normalise"](x),
        input_low=(-MEAN / STD).tolist(),
        input_high=((1 - MEAN) / STD).tolist(),
    )
    torch.testing.assert_close(outside, heatmap(inside, x))


class TwoStems(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = network()[:3], network()[:3]
        self.head = nn.Linear(5 * 9, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.one(x) + self.two(x)).flatten(1))


def test_several_layers_may_read_the_image() -> None:
    model, x = TwoStems().double().eval(), images()
    each = [nn.Sequential(*stem, nn.Flatten(), model.head) for stem in (model.one, model.two)]
    torch.testing.assert_close(heatmap(model, x), sum(heatmap(m, x) for m in each))


def test_positive_bounded_relevance_for_positive_outputs() -> None:
    """Within the box every pixel's share of a positive output is positive: zB's purpose."""
    model, x = network(bias=False), images()
    model[1] = nn.Identity()
    model[4].weight.data.abs_()
    assert (heatmap(model, x, epsilon=0.0) >= 0).all()


def test_relevance_is_differentiable_with_respect_to_the_weights() -> None:
    model, x = network(), images().requires_grad_()
    parameters = dict(model.named_parameters())
    names = ["0.weight", "1.weight", "4.weight"]

    def loss(*weights: Tensor) -> Tensor:
        bound = parameters | dict(zip(names, weights, strict=True))

        class Bound(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.func.functional_call(model, bound, x)

        explainer = Explainer(Bound(), epsilon=EPSILON, input_rule="zb")
        return explainer(x, 1, differentiable=True).heatmap.square().sum()

    weights = [parameters[name].detach().clone().requires_grad_() for name in names]
    # The biases are constant in the denominator of zB, so only what they do not touch is exact.
    model[0].bias.data.zero_()
    assert torch.autograd.gradcheck(loss, (weights[0], weights[1], weights[2]))


def test_a_model_that_changes_the_image_otherwise_is_refused() -> None:
    model = Preprocessing(torch.sin, network())
    with pytest.raises(RuntimeError, match="no convolution or linear layer reads the image"):
        heatmap(model, images())


def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match="below input_high"):
        Explainer(network(), input_rule="zb", input_low=1.0, input_high=0.0)
    with pytest.raises(ValueError, match="one value for each of the 3 channels, got 2"):
        heatmap(network(), images(), input_low=[0.0, 0.0])
