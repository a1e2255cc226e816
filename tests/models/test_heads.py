"""Classifier heads: which layer it is, what replacing it changes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from faster_isnet.models import replace_classifier

# Key of the head's weight, and the dropout that the network has before it by itself.
HEADS = {
    "resnet18": ("fc", None),
    "densenet121": ("classifier", None),
    "googlenet": ("fc", "dropout"),
    "inception_v3": ("fc", "dropout"),
    "squeezenet1_1": ("classifier.1", "classifier.0"),
    "mobilenet_v2": ("classifier.1", "classifier.0"),
    "mobilenet_v3_small": ("classifier.3", "classifier.2"),
    "mnasnet0_5": ("classifier.1", "classifier.0"),
    "efficientnet_b0": ("classifier.1", "classifier.0"),
    "shufflenet_v2_x0_5": ("fc", None),
    "regnet_y_400mf": ("fc", None),
    "vit": ("heads.head", None),
    "swin": ("head", None),
    "convnext": ("classifier.2", None),
}
LARGE = {
    "alexnet": ("classifier.6", None),
    "vgg11": ("classifier.6", "classifier.5"),
    "vgg11_bn": ("classifier.6", "classifier.5"),
    "convnext_tiny": ("classifier.2", None),
    "efficientnet_v2_s": ("classifier.1", "classifier.0"),
    "maxvit_t": ("classifier.5", None),
    "resnext50_32x4d": ("fc", None),
    "swin_t": ("head", None),
    "swin_v2_t": ("head", None),
    "vit_b_32": ("heads.head", None),
}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8),
    "swin": lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4]),
    "convnext": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]),
    "googlenet": lambda: get_model("googlenet", init_weights=False),  # with auxiliary heads
    "inception_v3": lambda: get_model("inception_v3", init_weights=False),
}


def model_and_images(name: str) -> tuple[nn.Module, Tensor]:
    model = SMALL.get(name, lambda: get_model(name))()
    size = 32 if name == "vit" else 224 if name in LARGE else 96
    return model, torch.rand(1, 3, size, size)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def dropouts(model: nn.Module) -> dict[str, float]:
    return {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}


def networks(*tables: dict[str, tuple[str, str | None]]) -> list[object]:
    slow = pytest.mark.slow
    return [
        pytest.param(name, *head, id=name, marks=slow if table is LARGE else ())
        for table in tables
        for name, head in table.items()
    ]


@pytest.mark.parametrize(("name", "head", "dropout"), networks(HEADS, LARGE))
def test_only_the_head_changes_and_gets_dropout(name: str, head: str, dropout: str | None) -> None:
    model, images = model_and_images(name)
    old, before, rates = model.get_submodule(head), weights(model), dropouts(model)
    assert replace_classifier(model, 5, images=images) is model
    new, after = model.get_submodule(head), weights(model)
    assert type(new) is type(old)
    assert (new.bias is None) == (old.bias is None)
    assert list(after) == list(before)
    kept = [key for key in before if not key.startswith(f"{head}.")]
    assert all(torch.equal(before[key], after[key]) for key in kept)
    assert dropouts(model) == rates

    replace_classifier(model, 4, dropout=0.25, images=images)
    assert dropouts(model) == {**rates, (dropout or f"{head}.0"): 0.25}
    now = head if dropout else f"{head}.1"
    assert list(model.state_dict()) == [
        f"{now}.{key.removeprefix(f'{head}.')}" if key.startswith(f"{head}.") else key
        for key in before
    ]
    with torch.no_grad():
        assert model.eval()(images).shape == (1, 4)


class Block(nn.Module):
    """Channels ``4 → 4`` with dropout on the residual branch: not what the head reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(4, 4), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.linear(x))


class Unordered(nn.Module):
    """A network of features ``[B, 4]`` whose head is registered before what runs before it."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(4, 3, bias=False), Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x=x))


def test_the_head_is_the_layer_that_runs_last_not_the_one_registered_last() -> None:
    model, x = Unordered(), torch.rand(2, 4)
    replace_classifier(model, 7, dropout=0.5, images=x)
    assert model(x).shape == (2, 7)
    assert [type(module) for module in model.head] == [nn.Dropout, nn.Linear]
    assert model.head[1].bias is None
    assert model.body.drop.p == 0.1
    assert list(model.state_dict()) == ["head.1.weight", "body.linear.weight", "body.linear.bias"]


def test_a_dropout_that_stands_in_several_places_keeps_its_rate() -> None:
    drop = nn.Dropout(0.1)
    model = nn.Sequential(drop, nn.Linear(4, 4), nn.ReLU(), drop, nn.Linear(4, 3))
    replace_classifier(model, 2, dropout=0.5, images=torch.rand(1, 4))
    assert drop.p == 0.1
    assert model[4][0].p == 0.5


def test_dropout_acts_in_training_only() -> None:
    model, x = Unordered(), torch.rand(8, 4)
    replace_classifier(model, 3, images=x)
    body, linear = model.body.eval(), model.head
    plain = linear(body(x))
    replace_classifier(model, 3, dropout=0.5, images=x)
    model.head[1] = linear
    torch.testing.assert_close(model.eval()(x), plain)
    model.head.train()
    assert not torch.allclose(model(x), model(x))
    mean = torch.stack([model(x) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, plain, atol=0.08, rtol=0)


def test_another_dropout_replaces_the_first() -> None:
    model, x = Unordered(), torch.rand(1, 4)
    for dropout in (0.5, 0.2):
        replace_classifier(model, 3, dropout, x)
    assert [type(module) for module in model.head] == [nn.Dropout, nn.Linear]
    assert model.head[0].p == 0.2


def test_finding_the_head_leaves_no_trace() -> None:
    model = get_model("mobilenet_v3_small").double().train()
    model.features[0].eval().requires_grad_(False)
    modes = {name: module.training for name, module in model.named_modules()}
    grads = [p.requires_grad for p in model.parameters()]
    before, wrong = weights(model), torch.rand(1, 7, 64, 64).double()
    generator = torch.get_rng_state()
    with pytest.raises(ValueError, match="does not run on images"):
        replace_classifier(model, 5, images=wrong)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    replace_classifier(model, 5)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert grads == [p.requires_grad for p in model.parameters()]
    assert model.classifier[3].weight.dtype == torch.float64
    hooks = [m._forward_pre_hooks for m in model.modules()]
    assert not any(hooks)
    buffers = {key for key, _ in model.named_buffers()}
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in buffers)


def test_a_number_of_classes_that_the_network_states_is_kept_up_to_date() -> None:
    model = replace_classifier(SMALL["vit"](), 5)
    assert model.num_classes == 5


def test_a_network_without_a_linear_head_is_told() -> None:
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"\[1, 4, 8, 8\], and no linear layer ran.*by hand"):
        replace_classifier(nn.Conv2d(3, 4, 3, padding=1), 5, images=x)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Unflatten(1, (2, 3)), nn.Flatten(2))
    with pytest.raises(ValueError, match=r"is \[1, 2, 3\], and .*'1', with 6 outputs"):
        replace_classifier(model, 5, images=x)
    with pytest.raises(ValueError, match=r"itself the linear layer Linear\(in_features=4"):
        replace_classifier(nn.Linear(4, 3), 5, images=torch.rand(1, 4))


def test_a_network_for_other_images_wants_some() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
    with pytest.raises(ValueError, match=r"does not run on images \[1, 3, 224, 224\].* images="):
        replace_classifier(model, 3)
    replace_classifier(model, 3, images=torch.rand(1, 1, 28, 28))
    assert model[1].out_features == 3


@pytest.mark.parametrize(
    ("classes", "dropout", "error", "message"),
    [
        (1, 0.0, ValueError, "classes must be at least 2, got 1"),
        (2.0, 0.0, TypeError, "classes must be an integer ≥ 2, got 2.0"),
        (2, -0.1, ValueError, r"dropout must be a number in \[0, 1\], got -0.1"),
        (2, 1.0, ValueError, "dropout must be below 1"),
        (2, "0.5", TypeError, "dropout must be a number"),
    ],
)
def test_numbers_out_of_range(
    classes: object, dropout: object, error: type[Exception], message: str
) -> None:
    model = Unordered()
    with pytest.raises(error, match=message):
        replace_classifier(model, classes, dropout, torch.rand(1, 4))  # type: ignore[arg-type]
    assert model.head.out_features == 3
