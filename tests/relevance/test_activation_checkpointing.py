"""Activation checkpointing in a model that is explained."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint as torch_checkpoint
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torchvision.models import densenet121

from faster_isnet import Explainer, Explanation, ISNet

BOTH = pytest.mark.parametrize("reentrant", [False, True])


class Network(nn.Module):
    """Five blocks, each of them checkpointed as ``how`` says."""

    def __init__(self, how: Callable[[int], bool | None] = lambda block: None) -> None:
        super().__init__()
        self.how = how
        self.blocks = nn.Sequential(block(1), *(block(8) for _ in range(4)))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for number, module in enumerate(self.blocks):
            how = self.how(number)
            x = module(x) if how is None else checkpoint(module, x, use_reentrant=how)
        return self.head(x.mean((2, 3)))


def block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.Dropout(0.2), nn.Conv2d(8, 8, 3, padding=1), nn.GELU()),
    )


class Sequence(nn.Sequential):
    """Checkpointed in pieces by torch."""

    reentrant: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return super().forward(x)
        return checkpoint_sequential(self, 4, x, use_reentrant=self.reentrant)


class Nested(Network):
    """Checkpoints within checkpoints."""

    def forward(self, x: Tensor) -> Tensor:
        def outer(x: Tensor) -> Tensor:
            for module in list(self.blocks)[1:]:
                x = checkpoint(module, x, use_reentrant=self.how(1))
            return x

        x = checkpoint(outer, self.blocks[0](x), use_reentrant=self.how(0))
        return self.head(x.mean((2, 3)))


def images() -> Tensor:
    return torch.rand(4, 1, 12, 12, dtype=torch.float64)


def like(model: nn.Module, other: nn.Module) -> nn.Module:
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    return other.double().train(model.training)


def step(model: nn.Module, x: Tensor, **settings: Any) -> tuple[Explanation, list[Tensor]]:
    """Return the explanation of a training step, and its gradients."""
    torch.manual_seed(1)
    settings = {"deep_supervision": False} | settings
    explanation = ISNet(model, **settings).explain(x)
    heatmaps = (explanation.heatmap, *explanation.layers.values())
    loss = sum(h.abs().mean() for h in heatmaps) + explanation.logits.square().sum()
    model.zero_grad()
    loss.backward()
    return explanation, [p.grad for p in model.parameters() if p.grad is not None]


def assert_same(model: nn.Module, checkpointed: nn.Module, x: Tensor, **settings: Any) -> None:
    expected, gradients = step(model, x, **settings)
    explanation, found = step(checkpointed, x, **settings)
    torch.testing.assert_close(explanation.logits, expected.logits)
    torch.testing.assert_close(explanation.heatmap, expected.heatmap, rtol=1e-6, atol=1e-12)
    for name, relevance in expected.layers.items():
        torch.testing.assert_close(explanation.layers[name], relevance, rtol=1e-6, atol=1e-12)
    # Some are as large as 1e15, differences of larger ones still: their last digits differ with
    # what is one node and what is two, as on either side of a segment's border.
    for gradient, other in zip(gradients, found, strict=True):
        error = torch.linalg.vector_norm(gradient - other)
        assert error <= 1e-5 * torch.linalg.vector_norm(gradient) + 1e-10


@BOTH
@pytest.mark.parametrize("variant", ["selective", "original", "dual", "logit-gradient-x-input"])
def test_step_is_what_it_is_without(reentrant: bool, variant: str) -> None:
    """Dropout draws the same again, in-place ReLU and batch norm in training mode included."""
    model = Network().double()
    assert_same(model, like(model, Network(lambda _: reentrant)), images(), variant=variant)


def test_both_modes_in_one_model() -> None:
    model = Network().double()
    both = like(model, Network(lambda number: (None, True, False)[number % 3]))
    assert_same(model, both, images())


@pytest.mark.parametrize("outer", [False, True])
@BOTH
def test_checkpoints_within_checkpoints(outer: bool, reentrant: bool) -> None:
    model = Network().double()
    nested = like(model, Nested(lambda depth: reentrant if depth else outer))
    assert_same(model, nested, images())


@BOTH
def test_hidden_layers_within_a_segment(reentrant: bool) -> None:
    model = Network().double()
    layers = ["blocks.1.2", "blocks.2", "blocks.3.4"]
    checkpointed = like(model, Network(lambda _: reentrant))
    assert_same(model, checkpointed, images(), deep_supervision=layers)


@BOTH
@pytest.mark.parametrize("composite", ["zplus", "epsilon-gamma-box", "alpha2-beta1"])
def test_rules_for_layers(reentrant: bool, composite: str) -> None:
    model = Network().double()
    checkpointed = like(model, Network(lambda _: reentrant))
    assert_same(model, checkpointed, images(), composite=composite)


@BOTH
def test_checkpoint_sequential_whose_first_piece_reads_the_image(reentrant: bool) -> None:
    model = Sequence(*Network().blocks, nn.Flatten(), nn.Linear(8 * 144, 3)).double()
    checkpointed = like(model, copy.deepcopy(model))
    checkpointed.reentrant = reentrant
    assert_same(model, checkpointed, images())


def test_segment_that_starts_behind_the_first_layer() -> None:
    """Its batch norm and ReLU are one with the convolution by the input rule."""

    class Split(nn.Sequential):
        how: bool | None = None

        def forward(self, x: Tensor) -> Tensor:
            first, *rest = self
            rest = nn.Sequential(*rest)
            x = first(x)
            return rest(x) if self.how is None else checkpoint(rest, x, use_reentrant=self.how)

    model = Split(*block(1), nn.Flatten(), nn.Linear(8 * 144, 3)).double()
    checkpointed = like(model, copy.deepcopy(model))
    checkpointed.how = False
    assert_same(model, checkpointed, images())


@pytest.mark.slow
def test_densenet() -> None:
    model = densenet121(num_classes=3).double()
    checkpointed = like(model, densenet121(num_classes=3, memory_efficient=True))
    x = torch.rand(2, 3, 48, 48, dtype=torch.float64)
    assert_same(model, checkpointed, x, deep_supervision="full")


def saved_bytes(run: Callable[[], object]) -> int:
    """Return how much is kept for the backward at the end of ``run``, and held until then."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@BOTH
def test_memory(reentrant: bool) -> None:
    """Half and more of what a forward pass keeps; of a step little, as relevance keeps its own."""
    model, x = Network().double().train(), images()
    checkpointed = like(model, Network(lambda number: reentrant if number else None))

    def explain(model: nn.Module) -> int:
        return saved_bytes(lambda: Explainer(model)(x))

    def train(model: nn.Module) -> int:
        return saved_bytes(lambda: ISNet(model, deep_supervision=False).explain(x))

    assert explain(checkpointed) < 0.5 * explain(model)
    assert train(checkpointed) < 0.95 * train(model)


@BOTH
def test_segments_that_end_in_a_convolution(reentrant: bool) -> None:
    """Nothing joins its way back within the segment; a dense block's layers are such."""

    class Blocks(nn.Module):
        def __init__(self, checkpointed: bool) -> None:
            super().__init__()
            self.checkpointed = checkpointed
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
                for _ in range(6)
            )

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                run = partial(checkpoint, block, use_reentrant=reentrant)
                x = run(x) if self.checkpointed else block(x)
            return x.mean((2, 3))

    torch.manual_seed(0)
    model, checkpointed = Blocks(False).double(), Blocks(True)
    like(model, checkpointed)
    x = torch.rand(4, 8, 12, 12, dtype=torch.float64)
    assert_same(model, checkpointed, x, input_rule=None)

    def kept(model: nn.Module) -> int:
        return saved_bytes(lambda: Explainer(model)(x))

    assert kept(checkpointed) < 0.75 * kept(model)


@BOTH
def test_batch_norm_counts_every_run_as_torch_does(reentrant: bool) -> None:
    model, x = Network(lambda _: reentrant).double(), images()
    checkpointed, plain = (model.blocks[number][1].num_batches_tracked for number in (1, 0))
    with torch.no_grad():
        ISNet(model, deep_supervision=False).explain(x)
    assert int(checkpointed) == 2  # forward and relevance
    step(model, x)
    assert int(checkpointed) == 5  # forward, relevance and backward
    assert int(plain) == 2  # reads the image, so it is not checkpointed


@pytest.mark.parametrize("reentrant", [True, False])
def test_hidden_layers_are_supervised_by_default_where_they_can_be_found(
    reentrant: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What torch does not differentiate by parts is explained all the same, and the log says so."""
    x = torch.rand(2, 1, 48, 48, dtype=torch.float64)
    model, checkpointed = small(None), small(reentrant)
    explanation, gradients = step(checkpointed, x, deep_supervision="auto")
    said = "Only the heatmap of the image is supervised" in caplog.text
    assert said == (not explanation.layers) == reentrant
    layers = list(explanation.layers)  # some lie within the segment
    expected, of_plain = step(like(checkpointed, model), x, deep_supervision=layers)
    torch.testing.assert_close(explanation.heatmap, expected.heatmap)
    for name in layers:
        torch.testing.assert_close(explanation.layers[name], expected.layers[name])
    for ours, theirs in zip(gradients, of_plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def small(reentrant: bool | None) -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Conv2d(1, 3, 3, 2), Checkpointed(reentrant), nn.Conv2d(3, 3, 3, 2)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


class Checkpointed(nn.Module):
    """A segment that is checkpointed, unless ``reentrant`` is ``None``."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant, self.inner = reentrant, nn.Sequential(nn.Conv2d(3, 3, 3, 2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.inner(x)  # type: ignore[no-any-return]
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


def torchs() -> list[object]:
    return [value for _, value in sorted(vars(torch_checkpoint).items()) if callable(value)]


@BOTH
def test_nothing_remains(reentrant: bool) -> None:
    before = torchs()
    model = Network(lambda _: reentrant).double()
    step(model, images())
    assert torchs() == before

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    for number in (0, 2):
        hook = model.blocks[number].register_forward_hook(fail)
        with pytest.raises(ZeroDivisionError):
            ISNet(model, deep_supervision=False).explain(images())
        hook.remove()
        assert torchs() == before
    x = images().requires_grad_()
    model(x).sum().backward()  # as ever
    assert x.grad is not None


def test_two_threads_and_one_that_explains_nothing() -> None:
    """A barrier in the model has all three in it at once."""
    hows = (lambda _: False, lambda _: True)
    models = [Network(how).double().eval() for how in hows]
    x = images()
    expected = [step(model, x) for model in models]
    barrier = threading.Barrier(3, timeout=30)
    results: dict[int, Any] = {}

    def meet(*_: object) -> None:
        if not torch._C._current_graph_task_id() + 1:  # in the forward pass only
            barrier.wait()

    def explain(number: int) -> None:
        results[number] = step(models[number], x)

    def train() -> None:
        y = torch.ones(3, requires_grad=True)

        def segment(y: Tensor) -> Tensor:
            meet()
            return F.relu(y)

        checkpoint(segment, y, use_reentrant=True).sum().backward()
        results[2] = y.grad

    for model in models:
        model.blocks[3].register_forward_pre_hook(meet)
    threads = [threading.Thread(target=explain, args=(number,)) for number in (0, 1)]
    threads.append(threading.Thread(target=train))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (explanation, gradients) in enumerate(expected):
        torch.testing.assert_close(results[number][0].heatmap, explanation.heatmap)
        torch.testing.assert_close(results[number][1], gradients)
    assert results[2].tolist() == [1, 1, 1]
