"""Odd tensors and options: each is refused by a clear error, or has the right result."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faster_isnet import Explainer, ISNet, ISNetLoss
from faster_isnet.explaining.explanation import Explanation
from faster_isnet.relevance import AlphaBeta, Epsilon, Gamma, LayerComposite, ZPlus

NAN, INF = float("nan"), float("inf")
Record = Callable[[str, object], None]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    layers = conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    return nn.Sequential(*layers).eval()


X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
MASK = torch.zeros(2, 1, 6, 6)
MASK[..., :3] = 1
Y = torch.tensor([0, 1])


def explain(images: object = X, target: Any = 1, **options: Any) -> Explanation:
    return Explainer(network(), **options)(images, target)


def refused(record: Record, call: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError, FloatingPointError, RuntimeError), match=message):
        call()
    record("outcome", "refused")


IMAGES: dict[str, tuple[object, str]] = {
    "nan": (X * NAN, r"NaN or infinite values, in samples \[0, 1\]"),
    "inf": (X / 0.0, "NaN or infinite values"),
    "one-nan": (X.index_fill(0, torch.tensor(1), NAN), r"in samples \[1\]"),
    "empty": (X[:0], r"must be a batch \[B, ...\], got shape \[0, 3, 6, 6\]"),
    "0-dim": (torch.tensor(1.0), r"must be a batch .*got shape \[\]"),
    "1-dim": (torch.rand(5), r"must be a batch .*got shape \[5\]"),
    "one-image": (X[0], r"does not take images of shape \[3, 6, 6\].*give images \[B"),
    "channels": (X[:, :2], r"does not take images of shape \[2, 2, 6, 6\].*to have 3 channels"),
    "size": (X[..., :5, :5], r"does not take images of shape \[2, 3, 5, 5\].*size that the model"),
    "int64": (X.long(), "got torch.int64; scale them to floats"),
    "uint8": (X.byte(), "got torch.uint8; scale them to floats"),
    "bool": (X > 0, "got torch.bool; scale them to floats"),
    "float16": (X.half(), r"got torch.float16; .*use images.float\(\)"),
    "bfloat16": (X.bfloat16(), r"got torch.bfloat16; .*use images.float\(\)"),
    "float64": (X.double(), r"are torch.float64 on cpu, .*weights are torch.float32 .*images.to"),
    "complex": (X + 0j, "got torch.complex64"),
    "sparse": (X.to_sparse(), r"must be a dense tensor, got torch.sparse_coo; use images.to_dense"),
    "nested": (torch.nested.nested_tensor([X[0], X[1]]), "must be a dense tensor, got nested"),
    "meta": (X.to("meta"), r"are torch.float32 on meta, .* on cpu.*images.to\(device"),
    "numpy": (X.numpy(), "must be a torch.Tensor .*got ndarray"),
    "tuple": ((X,), r"got tuple; give the tensor alone, or call attribute\(\)"),
    "none": (None, "must be a torch.Tensor .*got NoneType"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_are_refused(name: str, record_property: Record) -> None:
    images, message = IMAGES[name]
    refused(record_property, lambda: explain(images), message)


SAME_IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "requires-grad": lambda x: x.clone().requires_grad_(),
    "with-a-history": lambda x: x.clone().requires_grad_() * 1,
    "parameter": nn.Parameter,
    "slice-of-more": lambda x: torch.cat([x, x])[:2],
}


@pytest.mark.parametrize("composite", ["flex", "dual"])
@pytest.mark.parametrize("name", SAME_IMAGES)
def test_images_in_another_form(name: str, composite: str, record_property: Record) -> None:
    found = explain(SAME_IMAGES[name](X), "lowest-eta", composite=composite)
    expected = explain(X, "lowest-eta", composite=composite)
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    record_property("outcome", "right result")


def test_an_expanded_image(record_property: Record) -> None:
    heatmap = explain(X[:1].expand(2, 3, 6, 6)).heatmap
    torch.testing.assert_close(heatmap, explain(X[:1]).heatmap.expand_as(heatmap))
    record_property("outcome", "right result")


TARGETS: dict[str, tuple[object, str]] = {
    "too-high": (3, "target 3 is out of range: the model has 3 classes, 0 to 2"),
    "negative": (-1, "target -1 is out of range"),
    "one-too-high": (torch.tensor([0, 7]), "target 7 is out of range"),
    "bool": (True, "target must be None, a class index.*got bool: True"),
    "bools": (torch.tensor([True, False]), r"class indices .*got dtype torch.bool"),
    "numpy-bool": (np.bool_(True), "target must be None, a class index"),
    "float": (1.0, "got float: 1.0"),
    "floats": (torch.tensor([1.0, 0.0]), "class indices .*got dtype torch.float32"),
    "nan": (NAN, "got float: nan"),
    "complex": (torch.tensor([1j, 0]), "got dtype torch.complex64"),
    "too-few": (torch.tensor([1]), r"one class a sample, shape \[2\], got \[1\]"),
    "too-many": ([1, 0, 1], r"shape \[2\], got \[3\]"),
    "column": (torch.tensor([[1], [0]]), r"shape \[2\], got \[2, 1\]"),
    "one-hot": (torch.eye(3)[:2].long(), r"shape \[2\], got \[2, 3\]"),
    "empty": ([], "class indices"),
    "ragged": ([[1], [0, 1]], "target must hold class indices"),
    "holds-none": (np.array([1, None]), "target must hold class indices"),
    "huge": (10**30, "target must hold class indices"),
    "meta": (torch.tensor([1, 0], device="meta"), "device meta, which has no values"),
    "misspelt": ("highest", "unknown target 'highest'; did you mean 'highest-logit'"),
    "dictionary": ({}, "target must be None, a class index"),
    "function-of-scalar": (lambda y: y.sum(), r"'<lambda>' must return scalars .*got shape \[\]"),
    "function-of-nothing": (lambda y: None, "must return a tensor .*got NoneType"),
    "function-of-numpy": (lambda y: y.detach().numpy(), "must return a tensor .*got ndarray"),
    "function-of-none-each": (lambda y: y[:, :0], r"must return scalars .*got shape \[2, 0\]"),
    "function-detached": (lambda y: y.detach(), "no relevance reaches .*do not detach"),
    "function-of-nan": (
        lambda y: y * NAN,
        r"the quantity of samples \[0, 1\] of the batch is not finite",
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_that_are_refused(name: str, record_property: Record) -> None:
    target, message = TARGETS[name]
    refused(record_property, lambda: explain(X, target), message)


SAME_TARGETS: dict[str, object] = {
    "numpy-integer": np.int64(1),
    "0-dim": torch.tensor(1),
    "uint8": torch.tensor([1, 1], dtype=torch.uint8),
    "int32": torch.tensor([1, 1], dtype=torch.int32),
    "list": [1, 1],
    "array": np.array([1, 1]),
    "function": lambda y: y[:, 1:2],
}


@pytest.mark.parametrize("name", SAME_TARGETS)
def test_targets_in_another_form(name: str, record_property: Record) -> None:
    torch.testing.assert_close(explain(X, SAME_TARGETS[name]).heatmap, explain(X, 1).heatmap)
    record_property("outcome", "right result")


OPTIONS: dict[str, tuple[dict[str, object], str]] = {
    "epsilon-negative": ({"epsilon": -1}, "epsilon must be a number in .*got -1"),
    "epsilon-nan": ({"epsilon": NAN}, "epsilon must be a number in .*got nan"),
    "epsilon-inf": ({"epsilon": INF}, "epsilon must be a number in .*got inf"),
    "epsilon-string": ({"epsilon": "1"}, "epsilon must be a number in .*got '1'"),
    "epsilon-none": ({"epsilon": None}, "epsilon must be a number in .*got None"),
    "epsilon-tensor": ({"epsilon": torch.ones(2)}, "epsilon must be a number in .*got tensor"),
    "composite": ({"composite": "lrp"}, "unknown composite 'lrp'; did you mean 'cp-lrp'"),
    "composite-none": ({"composite": None}, "composite must be a string, got NoneType"),
    "input-rule": ({"input_rule": "z"}, "unknown input_rule 'z'; did you mean 'zb'"),
    "input-rule-number": ({"input_rule": 1}, "input_rule must be a string, got int"),
    "layers-string": ({"layers": "0"}, "layers must be a sequence of module names"),
    "layers-none": ({"layers": None}, r"layers must be a sequence .*got None; \(\) for none"),
    "layers-unknown": ({"layers": ["9"]}, "unknown layer '9'; Known: '0'"),
    "layers-twice": ({"layers": ["0", "0"]}, "layers has a name twice"),
    "layers-numbers": ({"layers": [0]}, "layer must be a string, got int"),
    "bounds-swapped": ({"input_low": 1, "input_high": 0}, "input_low must be below input_high"),
    "bounds-nan": ({"input_low": NAN}, "input_low must be finite, got nan"),
    "bounds-inf": ({"input_high": INF}, "input_high must be finite, got inf"),
    "bounds-string": ({"input_low": "0"}, "input_low must be a number or one for each channel"),
    "bounds-none": ({"input_low": None}, "input_low must be a number or one for each channel"),
    "bounds-of-two": ({"input_rule": "zb", "input_low": [0, 0]}, "3 channels, got 2"),
    "bounds-of-none": ({"input_rule": "zb", "input_low": []}, "3 channels, got 0"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_refused(name: str, record_property: Record) -> None:
    options, message = OPTIONS[name]
    refused(record_property, lambda: explain(**options), message)


@pytest.mark.parametrize("epsilon", [0, 0.0, 1e-320, 1e-30, True, np.float32(0.5), 1e30])
def test_the_heatmap_is_finite_with_any_epsilon(epsilon: Any, record_property: Record) -> None:
    for composite in ("flex", "epsilon", "zplus"):
        heatmap = explain(composite=composite, epsilon=epsilon).heatmap
        expected = explain(composite=composite, epsilon=float(epsilon)).heatmap
        assert heatmap.isfinite().all()
        torch.testing.assert_close(heatmap, expected)
    record_property("outcome", "right result")


RULES: dict[str, tuple[Callable[[], object], str]] = {
    "gamma-negative": (lambda: Gamma(gamma=-1), "gamma must be a number in .*got -1"),
    "gamma-nan": (lambda: Gamma(gamma=NAN), "gamma must be a number in .*got nan"),
    "gamma-none": (lambda: Gamma(gamma=None), "gamma must be a number in .*got None"),  # type: ignore[arg-type]
    "alpha-beta": (lambda: AlphaBeta(alpha=1, beta=1), r"alpha \+ beta must be 1, got alpha=1"),
    "alpha-nan": (lambda: AlphaBeta(alpha=NAN, beta=0), "alpha must be a number .*got nan"),
    "alpha-inf": (lambda: AlphaBeta(alpha=INF, beta=-INF), "alpha must be a number .*got inf"),
    "epsilon-string": (lambda: Epsilon("a"), "epsilon must be a number .*got 'a'"),  # type: ignore[arg-type]
    "no-rules": (lambda: LayerComposite("a"), "composite 'a' must have rules"),
    "type": (lambda: LayerComposite("a", {"conv": ZPlus()}), "unknown type of layer 'conv'"),
    "no-rule": (lambda: LayerComposite("a", {"dense": "zplus"}), "must be a Rule, such as"),  # type: ignore[dict-item]
    "passes": (
        lambda: LayerComposite("a", {"dense": [ZPlus(), ZPlus()], "sum": ZPlus()}),
        "as many for each layer",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_that_are_refused(name: str, record_property: Record) -> None:
    refused(record_property, *RULES[name])


def _poisoned() -> nn.Module:
    model = network()
    nn.init.constant_(model[0].weight, NAN)
    return model


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "none": (lambda: None, "must be a torch.nn.Module, got NoneType"),
    "class": (lambda: nn.ReLU, "must be a torch.nn.Module, got type"),
    "function": (lambda: torch.relu, "must be a torch.nn.Module"),
    "scripted": (lambda: torch.jit.script(network()), "TorchScript.*explain the Python module"),
    "traced": (lambda: torch.jit.trace(network(), X), "TorchScript.*explain the Python module"),
    "compiled": (lambda: torch.compile(network()), "compiled by torch.compile.*_orig_mod"),
    "parallel": (lambda: nn.DataParallel(network()), "DataParallel.*explain its .module"),
    "meta": (lambda: network().to("meta"), r"images are .* on cpu, .* on meta.*model.to"),
    "float16": (lambda: network().half(), r"weights are torch.float16 .*model.to\(device, dtype"),
    "float64": (lambda: network().double(), r"weights are torch.float64 .*model.to"),
    "softmax": (lambda: network().append(nn.Softmax(1)), "no relevance reaches .*Return logits"),
    "nan": (
        _poisoned,
        r"the output of samples \[0, 1\] of the batch is not finite; look for weights",
    ),
    "flat": (
        lambda: network()[:4].append(nn.Unflatten(1, (2, 72))),
        r"must return logits \[B, C\]",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_models_that_are_refused(name: str, record_property: Record) -> None:
    model, message = MODELS[name]
    refused(record_property, lambda: Explainer(model())(X, 1), message)


def _hooked() -> nn.Module:
    model = network()
    for module in model:
        module.register_forward_hook(lambda module, args, y: None)
        module.register_full_backward_hook(lambda module, before, after: None)
    return model


def _lazy() -> nn.Module:
    model = network()
    lazy = nn.Sequential(nn.LazyConv2d(4, 3, padding=1), *model[1:4], nn.LazyLinear(3)).eval()
    lazy(X)
    lazy.load_state_dict(model.state_dict())
    return lazy


SAME_MODELS: dict[str, Callable[[], nn.Module]] = {
    "frozen": lambda: network().requires_grad_(False),
    "hooked": _hooked,
    "deep-copied": lambda: copy.deepcopy(network()),
    "lazy": _lazy,
    "channels-last": lambda: network().to(memory_format=torch.channels_last),
    "wrapped": lambda: nn.Sequential(network()),
}


@pytest.mark.parametrize("composite", ["flex", "dual"])
@pytest.mark.parametrize("name", SAME_MODELS)
def test_models_in_another_form(name: str, composite: str, record_property: Record) -> None:
    found = Explainer(SAME_MODELS[name](), composite)(X, 1).heatmap
    torch.testing.assert_close(found, explain(X, 1, composite=composite).heatmap)
    record_property("outcome", "right result")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_off(mode: Any, record_property: Record) -> None:
    explainer = Explainer(network())
    with mode():
        heatmap = explainer(X, 1).heatmap
    torch.testing.assert_close(heatmap.clone(), explain(X, 1).heatmap)
    record_property("outcome", "right result")


def loss(labels: Any = Y, masks: Any = MASK, **options: Any) -> Tensor:
    return ISNetLoss(**options)(ISNet(network()).explain(X), labels, masks).total


MASKS: dict[str, tuple[object, str]] = {
    "size": (MASK[..., :5], r"shape \[2, 1, 6, 6\], got \[2, 1, 6, 5\]; resize"),
    "channels": (MASK.expand(2, 3, 6, 6), r"got \[2, 3, 6, 6\]"),
    "too-few": (MASK[:1], r"got \[1, 1, 6, 6\]"),
    "nan": (MASK * NAN, "0 and 1 only .*nan"),
    "half": (MASK / 2, r"has \[0.0, 0.5\]; binarise"),
    "255": ((MASK * 255).byte(), r"has \[0, 255\]; binarise"),
    "no-foreground": (MASK * 0, r"samples \[0, 1\] have no foreground"),
    "list": ([1], "torch.Tensor or None, got list"),
    "numpy": (MASK.numpy(), "torch.Tensor or None, got ndarray"),
    "sparse": (MASK.to_sparse(), r"dense tensor, got torch.sparse_coo; use masks.to_dense"),
    "complex": (MASK + 0j, "got torch.complex64"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_are_refused(name: str, record_property: Record) -> None:
    masks, message = MASKS[name]
    refused(record_property, lambda: loss(masks=masks), message)


SAME_MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "bool": Tensor.bool,
    "int64": Tensor.long,
    "uint8": Tensor.byte,
    "float16": Tensor.half,
    "float64": Tensor.double,
    "no-channel": lambda mask: mask.squeeze(1),
    "transposed": lambda mask: mask.mT.contiguous().mT,
    "requires-grad": lambda mask: mask.clone().requires_grad_(),
}


@pytest.mark.parametrize("name", SAME_MASKS)
def test_masks_in_another_form(name: str, record_property: Record) -> None:
    torch.testing.assert_close(loss(masks=SAME_MASKS[name](MASK)), loss())
    record_property("outcome", "right result")


LABELS: dict[str, tuple[object, str]] = {
    "floats": (Y.float(), r"torch.int64, got torch.float32; use labels.long"),
    "bool": (Y > 0, r"torch.int64, got torch.bool; use labels.long"),
    "int32": (Y.int(), r"torch.int64, got torch.int32; use labels.long"),
    "too-high": (Y + 2, "label 3 is out of range: the model has 3 classes"),
    "negative": (-Y, "label -1 is out of range"),
    "column": (Y[:, None], r"got \[2, 1\]; use labels.squeeze\(1\)"),
    "empty": (Y[:0], r"shape \[2\], got \[0\]"),
    "list": ([0, 1], "must be a torch.Tensor, got list"),
    "none": (None, "must be a torch.Tensor, got NoneType"),
    "soft-nan": (torch.full((2, 3), NAN), "probabilities that sum to 1"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_refused(name: str, record_property: Record) -> None:
    labels, message = LABELS[name]
    refused(record_property, lambda: loss(labels=labels), message)


LOSS_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "weight-high": ({"heatmap_weight": 2}, r"heatmap_weight must be a number in \[0, 1\], got 2"),
    "weight-negative": ({"heatmap_weight": -0.1}, "heatmap_weight .*got -0.1"),
    "weight-nan": ({"heatmap_weight": NAN}, "heatmap_weight .*got nan"),
    "weight-string": ({"heatmap_weight": "1"}, "heatmap_weight .*got '1'"),
    "weight-none": ({"heatmap_weight": None}, "heatmap_weight .*got None"),
    "decay": ({"gwrp_decay": 0}, r"gwrp_decay must be a number in \(0, 1\], got 0"),
    "activation": ({"activation": NAN}, "activation .*got nan"),
    "background": ({"background_weight": -1}, "background_weight .*got -1"),
    "cuts-swapped": ({"cut_low": 9, "cut_high": 1}, r"cut_high must be a number in \[9"),
    "cut-nan": ({"cut_low": NAN}, "cut_low .*got nan"),
    "cut-inf": ({"cut_high": INF}, "cut_high .*got inf"),
    "cuts-of-two": ({"cut_low": [1, 1], "cut_high": [2, 2]}, "has 1 heatmaps a sample"),
    "foreground": ({"foreground": "l3"}, "unknown foreground 'l3'"),
    "normalization": ({"normalization": "x"}, "unknown normalization 'x'"),
    "task": ({"task": "binary"}, "unknown task 'binary'"),
    "class-weights": ({"class_weights": [1, 2]}, "one number for each of 3 classes"),
    "class-weights-negative": ({"class_weights": [-1, 1, 1]}, "finite and at least 0"),
    "class-weights-nan": ({"class_weights": [NAN, 1, 1]}, "finite and at least 0"),
    "class-weights-0": ({"class_weights": [0, 0, 0]}, "not all of them 0"),
}


@pytest.mark.parametrize("name", LOSS_OPTIONS)
def test_options_of_the_loss_that_are_refused(name: str, record_property: Record) -> None:
    options, message = LOSS_OPTIONS[name]
    refused(record_property, lambda: loss(**options), message)


IGNORED: dict[str, tuple[Any, str]] = {
    "too-high": ([5], r"must be in 0..2, got \[5\]"),
    "negative": ([-1], r"must be in 0..2, got \[-1\]"),
    "too-many": ([0, 1], "at least two of the 3 classes must be left"),
    "string": ("ab", "ignore_classes must be class indices, got 'ab'"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_ignored_classes_that_are_refused(name: str, record_property: Record) -> None:
    ignored, message = IGNORED[name]
    refused(record_property, lambda: ISNet(network(), ignore_classes=ignored).explain(X), message)


ATTRIBUTED: dict[str, tuple[Any, Any, str]] = {
    "all-classes": (X, "all-classes", "gives 3 heatmaps a sample"),
    "two-inputs": ((X, X), 1, "got 2 inputs"),
    "no-inputs": ((), 1, "got 0 inputs"),
    "list": ([X], 1, "got list; give the tensor alone"),
}


@pytest.mark.parametrize("name", ATTRIBUTED)
def test_attribute_refuses(name: str, record_property: Record) -> None:
    inputs, target, message = ATTRIBUTED[name]
    refused(record_property, lambda: Explainer(network()).attribute(inputs, target), message)
