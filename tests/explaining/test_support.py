"""How exactly a model can be explained."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer
from faster_isnet.explaining.support import Support, without_biases


class Attending(nn.Module):
    """Patches that attend to each other, with all that is added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 8, 2, 2)
        self.pos_embed = nn.Parameter(torch.randn(1, 17, 8))
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def test_what_conserves_and_what_does_not() -> None:
    model = Attending()
    flex = Explainer.supports(model, 8)
    assert [name for name in flex.approximate if "attention" in name]
    assert not flex.unknown
    assert flex.error > 0.01
    constant = Explainer.supports(model, 8, composite="cp-lrp")
    assert not constant.approximate
    assert constant.error < 1e-10
    assert abs(constant.absorbed) > 0.01  # by its biases and positions


def test_the_gradient_alone_knows_every_function_and_conserves_none_that_is_not_linear() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 2))
    support = Explainer.supports(model, 8, composite="gradient-x-input")
    assert support.approximate == {"gelu": 1}
    assert not support.unknown


def test_unknown_functions_are_counted() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp() + x.flip(1).exp()

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Twice(), nn.Flatten(), nn.Linear(144, 2))
    support = Explainer.supports(model, 8)
    assert support.unknown == {"exp": 2}
    assert "unknown, passed by its gradient: exp (2)" in str(support)


def test_the_model_stays_as_it_is() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2)
    )
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    Explainer.supports(model, 8)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_the_size_may_be_a_side_two_sides_or_have_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    results = [Explainer.supports(model, size).exact for size in (6, (6, 6), (1, 6, 6))]
    assert results[0] == results[1] == results[2]
    for wrong in (0, (6,), (1, 0, 6), "6", 6.5):
        with pytest.raises(ValueError, match=re.escape(f"(C, H, W) in pixels, got {wrong!r}")):
            Explainer.supports(model, wrong)  # type: ignore[arg-type]


def test_a_logit_of_0_says_nothing_of_conservation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    nn.init.zeros_(model[2].weight)
    support = Explainer.supports(model, 8)
    assert math.isnan(support.error)
    assert "not known (the logit is 0" in str(support)


def test_what_has_no_biases_left_is_linear() -> None:
    neutral = without_biases(Attending())
    x = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        assert neutral(0 * x).abs().max() == 0
    assert isinstance(Support({}, {}, {}, 0.0, 0.0), Support)
