"""``torch.nn.SyncBatchNorm`` in an explanation, where one process stands for two."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from cpu_sync_batch_norm import cpu_allowed
from custom_function import Double
from faster_isnet import Explainer


class Group:
    """A process group."""

    def _get_backend_name(self) -> str:
        return "gloo"


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have a second process that has the same samples; yield what is sent between the two."""
    sent: list[str] = []

    def all_gather(everyone: list[Tensor], own: Tensor, *_: object, **__: object) -> None:
        sent.append("statistics")
        for place in everyone:
            place.copy_(own)

    def all_reduce(tensor: Tensor, *_: object, **__: object) -> None:
        sent.append("gradients")
        tensor.mul_(2)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda _: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with cpu_allowed():
        yield sent


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.Linear(80, 3)),
    ).double()


def synchronised(model: nn.Module) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model), Group())


@pytest.mark.parametrize("composite", ["flex", "dual", "gradient-x-input"])
@pytest.mark.parametrize("input_rule", ["zb", None])
@pytest.mark.parametrize("layers", [[], ["1", "3"], ["4"]])
def test_it_is_explained_as_the_batch_norm_of_all_samples(
    twins: list[str], composite: str, input_rule: str | None, layers: list[str]
) -> None:
    """Of the samples and their twins, that is: they have the same statistics."""
    model, x = network(), torch.rand(4, 3, 8, 8, dtype=torch.float64)
    shared = synchronised(model)
    (expected, theirs), (found, ours) = (
        (explainer(x, "lowest-eta", differentiable=True), list(explainer.model.parameters()))
        for explainer in (
            Explainer(m, composite, input_rule=input_rule, layers=layers) for m in (model, shared)
        )
    )
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(dict(found.layers), dict(expected.layers))
    assert twins == ["statistics"] * 2  # and nothing in the relevance pass
    for explanation, parameters in ((expected, theirs), (found, ours)):
        loss = explanation.heatmap.square().sum() + explanation.logits.square().sum()
        loss = loss + sum(h.square().sum() for h in explanation.layers.values())
        loss.backward()
        assert all(parameter.grad is not None for parameter in parameters)
    assert twins == ["statistics"] * 2 + ["gradients"] * 2
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_it_leaves_nothing_on_the_model(twins: list[str]) -> None:
    model, x = synchronised(network()), torch.rand(4, 3, 8, 8, dtype=torch.float64)
    before = model(x)
    Explainer(model)(x)
    assert not any(m._forward_hooks or m._forward_hooks_with_kwargs for m in model.modules())
    torch.testing.assert_close(model(x), before)


def test_alone_and_in_eval_mode_it_is_a_batch_norm(twins: list[str]) -> None:
    model, x = network().eval(), torch.rand(4, 3, 8, 8, dtype=torch.float64)
    found = Explainer(synchronised(model))(x)
    torch.testing.assert_close(found.heatmap, Explainer(model)(x).heatmap)
    assert not twins


def test_before_a_custom_function_its_statistics_are_constant(twins: list[str]) -> None:
    model, x = network(), torch.rand(4, 3, 8, 8, dtype=torch.float64)
    model.insert(5, Double())
    found, expected = (
        Explainer(m)(x, 0, differentiable=True).heatmap for m in (synchronised(model), model)
    )
    torch.testing.assert_close(found, expected)
