"""Checks say which value was wrong, what was expected, and the cure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from faster_isnet.common.checks import (
    check_choice,
    check_explainable,
    check_finite_heatmap,
    check_images,
    check_labels,
    check_logits,
    check_masks,
    check_precision,
    check_quantity,
    check_range,
)

HEATMAP, LOGITS = torch.zeros(3, 1, 2, 6, 5), torch.zeros(3, 4)


def masks(samples: int = 3) -> torch.Tensor:
    return (torch.arange(30).reshape(6, 5) % 2).expand(samples, 1, 6, 5).float().clone()


def test_choice() -> None:
    assert check_choice("rule", "zb", ["zb", "flat"]) == "zb"
    with pytest.raises(ValueError, match=r"unknown rule 'zb2'; did you mean 'zb'\? Known: 'fl"):
        check_choice("rule", "zb2", ["zb", "flat"])
    with pytest.raises(TypeError, match="rule must be a string, got int: 3"):
        check_choice("rule", 3, ["zb"])


def test_choice_is_strict_about_case_but_helps() -> None:
    with pytest.raises(ValueError, match=r"unknown rule 'zB'; did you mean 'zb'\?"):
        check_choice("rule", "zB", ["zb", "flat"])
    with pytest.raises(ValueError, match=r"unknown layer 'relu'; did you mean 'ReLU'\?"):
        check_choice("layer", "relu", ["ReLU", "conv"])


def test_choice_suggests_nothing_far_off_and_lists_no_more_than_can_be_read() -> None:
    with pytest.raises(ValueError, match=r"^unknown rule 'xyz'; Known: 'flat', 'zb'$"):
        check_choice("rule", "xyz", iter(["zb", "flat"]))
    names = [f"layer{i:03d}" for i in range(41)]
    with pytest.raises(ValueError, match=r"Known: 'layer000', .*, 'layer039', …$"):
        check_choice("layer", "", names)
    with pytest.raises(ValueError, match=r"'layer039'$"):
        check_choice("layer", "", names[:40])


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1.0])
def test_range_includes_its_ends(value: float) -> None:
    assert check_range("p", value, 0, 1) == value


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), -float("inf")])
def test_range_refuses_what_is_outside(value: float) -> None:
    with pytest.raises(ValueError, match=rf"p must be a number in \[0, 1\], got {value!r}"):
        check_range("p", value, 0, 1)


@pytest.mark.parametrize("value", [0, float("inf")])
def test_range_may_exclude_its_lower_end_and_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match=rf"p must be a number in \(0, inf\), got {value}"):
        check_range("p", value, 0, open_low=True)
    assert check_range("p", 1e-300, 0, open_low=True) == 1e-300


@pytest.mark.parametrize("value", ["0.5", None, [0.5]])
def test_range_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"p must be a number in \[0, 1\], got "):
        check_range("p", value, 0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda m: "resnet18", "must be a torch.nn.Module, got str"),
        (nn.DataParallel, "is a DataParallel.*explain its .module, or .* DistributedDataParallel"),
        (torch.compile, "is compiled by torch.compile.*explain .* its ._orig_mod"),
        (lambda m: torch.jit.trace(m, torch.zeros(1, 2)), "is TorchScript.*explain the Python mod"),
    ],
)
def test_models_whose_functions_cannot_be_intercepted(wrap: object, message: str) -> None:
    model = nn.Linear(2, 2)
    check_explainable(model)
    wrapped = wrap(model)
    with pytest.raises(TypeError, match=message):
        check_explainable(wrapped)
    if isinstance(wrapped, nn.Module):
        with pytest.raises(TypeError, match="module 'inner'"):
            check_explainable(nn.ModuleDict({"inner": wrapped}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_good_images(dtype: torch.dtype) -> None:
    check_images(torch.randn(2, 3, 4, 4, dtype=dtype))
    check_images(torch.randn(2, 3, dtype=dtype))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 3)), TypeError, r"must be a torch.Tensor \[B, ...\], got ndarray"),
        (torch.zeros(2, 3).half(), TypeError, r"got torch.float16; half .* use images.float\(\)"),
        (torch.zeros(2, 3).bfloat16(), TypeError, "got torch.bfloat16; half precision"),
        (torch.zeros(2, 3).byte(), TypeError, r"got torch.uint8; scale .*images.float\(\) / 255"),
        (torch.zeros(3), ValueError, r"must be a batch \[B, ...\], got shape \[3\]"),
        (torch.zeros(0, 3, 4, 4), ValueError, r"must be a batch .* got shape \[0, 3, 4, 4\]"),
        (torch.tensor([[0.0], [torch.nan], [torch.inf]]), ValueError, r"in samples \[1, 2\] of"),
        (torch.tensor([[-torch.inf], [0.0]]), ValueError, r"NaN or infinite .* in samples \[0\]"),
    ],
)
def test_bad_images(images: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        check_images(images)


def test_autocast() -> None:
    images = torch.zeros(1, 2)
    check_precision(images, "dual")
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match=r"autocast is on for cpu.*enabled=False.*32-true"):
            check_precision(images, "dual")
        with torch.autocast("cpu", enabled=False):
            check_precision(images, "dual")


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        ((LOGITS, LOGITS), TypeError, r"must return logits \[B, C\], got tuple; wrap it.*aux_lo"),
        (torch.zeros(4), ValueError, r"with B = 3 .*\[B, 1\] or \[B\]\), got shape \[4\]"),
        (torch.zeros(2, 4), ValueError, r"with B = 3 .*got shape \[2, 4\]"),
        (torch.zeros(3, 4, 1, 1), ValueError, r"with B = 3 .*got shape \[3, 4, 1, 1\]"),
        (torch.zeros(3, 0), ValueError, r"with B = 3 .*got shape \[3, 0\]"),
    ],
)
def test_logits(logits: object, error: type, message: str) -> None:
    for right in (LOGITS, torch.zeros(3), torch.zeros(3, 1)):
        check_logits(right, 3)
    with pytest.raises(error, match=message):
        check_logits(logits, 3)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1, 2], TypeError, "labels must be a torch.Tensor, got list"),
        (
            torch.zeros(3),
            TypeError,
            r"torch.int64, got torch.float32; use labels.long\(\).*multila",
        ),
        (torch.zeros(3).int(), TypeError, r"got torch.int32; use labels.long\(\)"),
        (torch.eye(4)[:3].long(), ValueError, r"shape \[3\], got \[3, 4\]; .*labels.argmax\(1\)"),
        (torch.tensor([0, 1]), ValueError, r"shape \[3\], got \[2\]"),
        (torch.tensor([0, 4, 1]), ValueError, "label 4 is out of range: .* 4 classes, 0 to 3"),
        (torch.tensor([0, 1, -1]), ValueError, "label -1 is out of range"),
    ],
)
def test_labels(labels: object, error: type, message: str) -> None:
    check_labels(torch.tensor([0, 3, 1]), LOGITS, "multiclass")
    with pytest.raises(error, match=message):
        check_labels(labels, LOGITS, "multiclass")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1, 2], TypeError, "labels must be a torch.Tensor, got list"),
        (torch.tensor([0, 3, 1]), ValueError, r"one 0 or 1 for each class, shape \[3, 4\], got \["),
        (torch.full((3, 4), 2), ValueError, r"must be in \[0, 1\] everywhere"),
        (torch.full((3, 4), torch.nan), ValueError, r"must be in \[0, 1\] everywhere"),
        (torch.full((3, 4), -0.5), ValueError, r"must be in \[0, 1\] everywhere"),
    ],
)
def test_multi_label_labels(labels: object, error: type, message: str) -> None:
    for good in (torch.zeros(3, 4), torch.ones(3, 4).bool(), torch.eye(4)[:3].long()):
        check_labels(good, LOGITS, "multilabel")
    with pytest.raises(error, match=message):
        check_labels(labels, LOGITS, "multilabel")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_good_masks_and_which_samples_have_one(dtype: torch.dtype) -> None:
    good = masks().to(dtype)
    for given in (good, good.squeeze(1)):
        checked, has_mask = check_masks(given, HEATMAP)
        assert checked is not None
        assert torch.equal(checked, good)
        assert has_mask.tolist() == [True, True, True]


def test_samples_without_masks() -> None:
    some = masks()
    some[1] = -1
    checked, has_mask = check_masks(some, HEATMAP)
    assert checked is not None
    assert has_mask.tolist() == [True, False, True]
    for none in (None, torch.full((3, 1, 6, 5), -1.0)):
        checked, has_mask = check_masks(none, HEATMAP)
        assert checked is None
        assert has_mask.tolist() == [False, False, False]


def test_masks_of_images_of_any_dimension() -> None:
    for size in ((7,), (4, 4), (3, 4, 5)):
        checked, _ = check_masks(torch.ones(3, *size), torch.zeros(3, 1, 2, *size))
        assert checked is not None
        assert checked.shape == (3, 1, *size)


def changed(value: float, *where: int) -> torch.Tensor:
    bad = masks()
    bad[where] = value
    return bad


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones((3, 1, 6, 5)), TypeError, "masks must be a torch.Tensor or None, got ndarray"),
        (
            torch.ones(3, 1, 5, 6),
            ValueError,
            r"shape \[3, 1, 6, 5\], got \[3, 1, 5, 6\]; resize masks with nearest",
        ),
        (torch.ones(3, 2, 6, 5), ValueError, r"got \[3, 2, 6, 5\]"),
        (torch.ones(2, 6, 5), ValueError, r"got \[2, 6, 5\]"),
        (changed(0.5, 1, 0, 2), ValueError, r"samples \[1\] .*\[0.0, 0.5, 1.0\]; binarise with"),
        (255 * masks().byte(), ValueError, r"samples \[0, 1, 2\] .* has \[0, 255\]; binarise with"),
        (changed(-1, 2, 0, 3), ValueError, r"-1 everywhere for no mask\); samples \[2\]"),
        (changed(torch.nan, 2, 0), ValueError, r"0 and 1 only .*samples \[2\]"),
        (changed(0, 1), ValueError, r"samples \[1\] have no foreground; fill them with -1"),
        (torch.zeros(3, 6, 5).bool(), ValueError, r"samples \[0, 1, 2\] have no foreground"),
    ],
)
def test_bad_masks(bad: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        check_masks(bad, HEATMAP)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_heatmaps_are_finite(value: float) -> None:
    heatmap = HEATMAP.clone()
    everyone = torch.ones(len(heatmap), dtype=torch.bool)
    check_finite_heatmap(heatmap, everyone)
    heatmap[1, 0, 1, 2, 3] = value
    with pytest.raises(FloatingPointError, match=r"samples \[1\] hold NaN.*lower the learning rat"):
        check_finite_heatmap(heatmap, everyone)


def test_heatmaps_without_a_mask_are_not_checked() -> None:
    heatmap = torch.zeros(3, 1, 1, 2, 2)
    heatmap[1] = float("nan")
    check_finite_heatmap(heatmap, torch.tensor([True, False, True]))


@pytest.mark.parametrize(
    ("quantity", "error"),
    [
        ([1.0], TypeError),
        (torch.zeros(()), ValueError),
        (torch.zeros(3), ValueError),
        (torch.zeros(2, 3), ValueError),
        (torch.zeros(3, 0), ValueError),
    ],
)
def test_what_is_explained_is_scalars_for_each_sample(
    quantity: object, error: type[Exception]
) -> None:
    check_quantity(torch.zeros(3, 2), 3, "mine")
    with pytest.raises(error, match=r"target 'mine' must return .*\[B, K\]"):
        check_quantity(quantity, 3, "mine")
