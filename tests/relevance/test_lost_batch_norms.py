"""What passes values on changes no heatmap; a batch norm whose layer is lost is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from faster_isnet import Explainer
from faster_isnet.relevance import LayerComposite, ZPlus
from layered_networks import Applied, conv, images


class Passed(torch.autograd.Function):
    """An identity."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        return g


class Copied(Passed):
    """An identity in other memory."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()


PASSES_ON = {
    "clone": torch.clone,
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "reshape-and-back": lambda x: x.reshape(len(x), -1).reshape(x.shape),
    "permute-and-back": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "one-concatenated": lambda x: torch.cat([x], 1),
    "slice": lambda x: x[:],
    "function": Passed.apply,
    "copying-function": Copied.apply,
    "flatten-of-channels-last": lambda x: (
        x.contiguous(memory_format=torch.channels_last).flatten(1).unflatten(1, x.shape[1:])
    ),
    "copying-reshape": lambda x: (
        x.to(memory_format=torch.channels_last).reshape(len(x), -1).reshape(x.shape)
    ),
    "times-1": lambda x: x * 1,
    "1-times": lambda x: 1.0 * x,
    "plus-0": lambda x: x + 0,
    "minus-0": lambda x: x - 0.0,
    "divided-by-1": lambda x: x / 1,
    "power-of-1": lambda x: x**1,
    "in-place": lambda x: x.mul_(1).add_(0),
    "hook": None,
}


@pytest.mark.parametrize(
    ("composite", "rule"),
    [("flex", "zb"), ("epsilon", None), ("zplus", None), ("epsilon-gamma-box", "zb")],
)
@pytest.mark.parametrize("name", PASSES_ON)
def test_what_passes_values_on_changes_no_heatmap(
    name: str, composite: str, rule: str | None
) -> None:
    layers = [conv(3), nn.Identity(), nn.BatchNorm2d(4), nn.Identity(), nn.ReLU()]
    layers += [conv(4), nn.Identity(), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3)).double()
    for bn in (model[2], model[7]):
        nn.init.uniform_(bn.weight, -1, 1)
        nn.init.normal_(bn.bias)
    model.eval()
    x, explainer = images(3, 6, 6), Explainer(model, composite, input_rule=rule)
    expected = explainer(x, "lowest-eta").heatmap
    if name == "hook":  # PyTorch wraps what a hooked module reads and returns
        for module in model:
            module.register_full_backward_hook(lambda module, g_in, g_out: None)
    else:
        for i in (1, 3, 6):
            model[i] = Applied(PASSES_ON[name])
    torch.testing.assert_close(explainer(x, "lowest-eta").heatmap, expected)


class Halved(Passed):
    """What changes values where no torch function is seen."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() / 2)


@pytest.mark.parametrize("between", [Halved.apply, lambda x: 2 * x, lambda x: _copied_twice(x)])
@pytest.mark.parametrize(
    ("composite", "rule"), [("epsilon", None), ("zplus", None), ("flex", "zb")]
)
def test_a_batch_norm_that_is_not_found_to_be_one_with_its_layer_is_named(
    between: Callable[[Tensor], Tensor], composite: str, rule: str | None
) -> None:
    model = nn.Sequential(
        conv(), Applied(between), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)
    )
    expected = "batch norm of 4 channels is explained by itself"
    with pytest.warns(UserWarning, match=expected) as told:
        Explainer(model.eval(), composite, input_rule=rule)(torch.rand(2, 3, 6, 6))
    assert sum(expected in str(each.message) for each in told) == 1


def _copied_twice(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).contiguous()


def test_both_modules_are_named_where_they_are_known() -> None:
    model = nn.Sequential(conv(), Applied(lambda x: 2 * x), nn.BatchNorm2d(4), nn.Flatten())
    mine = LayerComposite("mine", by_name={"*": ZPlus()})
    with pytest.warns(UserWarning, match=r"batch norm '2' of 4 .* layer '0' before it.*what Mul"):
        Explainer(model.eval(), mine)(torch.rand(2, 3, 6, 6))


ALONE = {
    "first": nn.Sequential(nn.BatchNorm2d(3), conv()),
    "behind an activation": nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(4)),
    "behind a sigmoid": nn.Sequential(conv(), nn.Hardswish(), nn.BatchNorm2d(4)),
    "behind a batch norm": nn.Sequential(conv(), nn.BatchNorm2d(4), nn.BatchNorm2d(4)),
    "behind dropout": nn.Sequential(conv(), nn.ReLU(), nn.Dropout(), nn.BatchNorm2d(4)),
    "fused": nn.Sequential(conv(), nn.Identity(), nn.BatchNorm2d(4)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("composite", "rule"), [("epsilon", None), ("dual", "zb"), ("flex", "zb")])
@pytest.mark.parametrize("name", ALONE)
def test_a_batch_norm_that_has_no_layer_is_no_fault(
    name: str, composite: str, rule: str | None
) -> None:
    model = nn.Sequential(*ALONE[name], nn.Flatten(), nn.LazyLinear(3)).eval()
    x = torch.rand(2, 3, 6, 6)
    model(x)
    rule = None if name == "first" else rule  # which needs a layer that reads the image
    Explainer(model, composite, input_rule=rule, layers=["0"])(x, "all-logits")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["densenet121", "resnet18"])
def test_networks_of_torchvision_warn_of_nothing(name: str) -> None:
    model = torchvision.models.get_model(name, num_classes=3).eval()
    for composite in ("zplus", "flex"):
        Explainer(model, composite, input_rule="zb")(torch.rand(1, 3, 32, 32))


@pytest.mark.filterwarnings("error:batch norm")
def test_tokens_beside_a_class_token_are_no_batch_norms() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 2)
            self.class_token = nn.Parameter(torch.rand(1, 1, 4))

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
            return self.head(x.mean(1))  # type: ignore[no-any-return]

    Explainer(Tokens(), "epsilon")(torch.rand(2, 3, 6, 6))


def test_a_lost_piece_of_a_concatenation_is_named_by_the_batch_norm_that_reads_it() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.norm = conv(), conv(), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.one(x), 2 * self.other(x)], 1)
            return self.head(self.norm(x).mean((2, 3)))  # type: ignore[no-any-return]

    with pytest.warns(UserWarning, match="batch norm of 4 channels is explained by itself"):
        Explainer(Dense().eval(), "epsilon")(torch.rand(2, 3, 6, 6))
