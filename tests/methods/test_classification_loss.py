"""The classification loss: equal to PyTorch's, to formulas, and to what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.transforms import v2

from faster_isnet import ISNetLoss
from faster_isnet.methods import ClassificationLoss

WEIGHTS = [0.5, 2.0, 0.0, 1.5]


def multiclass(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 4), torch.randint(0, 4, (n,))


def multilabel(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 4), (torch.rand(n, 4) < 0.5).long()


def soft(n: int = 6) -> Tensor:
    return torch.rand(n, 4).softmax(1)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_multiclass_is_pytorchs_cross_entropy(weights: Any, smoothing: float) -> None:
    logits, labels = multiclass()
    loss = ClassificationLoss(class_weights=weights, label_smoothing=smoothing)
    theirs = nn.CrossEntropyLoss(
        None if weights is None else torch.tensor(weights), label_smoothing=smoothing
    )
    torch.testing.assert_close(loss(logits, labels), theirs(logits, labels))
    torch.testing.assert_close(loss(logits, soft_ := soft()), theirs(logits, soft_))


def test_multilabel_is_pytorchs_binary_cross_entropy_with_weighted_positives() -> None:
    logits, labels = multilabel()
    ours = ClassificationLoss("multilabel", WEIGHTS)(logits, labels)
    theirs = F.binary_cross_entropy_with_logits(
        logits, labels.float(), pos_weight=torch.tensor(WEIGHTS)
    )
    torch.testing.assert_close(ours, theirs)
    smoothed = ClassificationLoss("multilabel", label_smoothing=0.2)(logits, labels)
    moved = labels * 0.9 + (1 - labels) * 0.1
    torch.testing.assert_close(smoothed, F.binary_cross_entropy_with_logits(logits, moved))


def test_weights_of_the_isnets_loss_are_the_same() -> None:
    logits, labels = multiclass()
    before = ISNetLoss(class_weights=torch.tensor(WEIGHTS)).classify(logits, labels)
    now = ISNetLoss(classification=ClassificationLoss(class_weights=WEIGHTS))
    torch.testing.assert_close(before, now.classify(logits, labels))
    assert now.task == "multiclass"


@pytest.mark.parametrize("focusing", [0.0, 0.5, 2.0])
def test_the_focal_loss_is_its_formula(focusing: float) -> None:
    logits, labels = multiclass()
    p = logits.softmax(1)[torch.arange(6), labels]
    expected = (-((1 - p) ** focusing) * p.log()).mean()
    torch.testing.assert_close(ClassificationLoss(focusing=focusing)(logits, labels), expected)
    logits, labels = multilabel()
    p = torch.where(labels == 1, logits.sigmoid(), 1 - logits.sigmoid())
    expected = (-((1 - p) ** focusing) * p.log()).mean()
    loss = ClassificationLoss("multilabel", focusing=focusing)
    torch.testing.assert_close(loss(logits, labels), expected)


@settings(max_examples=40)
@given(
    st.sampled_from(["multiclass", "multilabel"]),
    st.booleans(),
    st.floats(0, 1),
    st.integers(0, 100),
)
def test_without_focusing_the_focal_loss_is_cross_entropy(
    task: str, weighted: bool, smoothing: float, seed: int
) -> None:
    torch.manual_seed(seed)
    logits, labels = multiclass(9) if task == "multiclass" else multilabel(9)
    weights = [0.5, 2.0, 0.1, 1.5] if weighted else None
    plain, nearly = (
        ClassificationLoss(task, weights, smoothing, focusing) for focusing in (0.0, 1e-7)
    )
    for targets in (labels, soft(9)):
        torch.testing.assert_close(
            nearly(logits, targets), plain(logits, targets), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("focusing", [0.5, 1.0, 2.5])
def test_the_focal_losss_gradient(task: str, focusing: float) -> None:
    logits, labels = multiclass() if task == "multiclass" else multilabel()
    loss = ClassificationLoss(task, [0.5, 2.0, 0.1, 1.5], 0.1, focusing)
    double = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), double)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("focusing", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_certainty_has_a_finite_gradient(task: str, focusing: float, size: float) -> None:
    """Where p is 1 to the last digit, (1 − p)^γ of γ < 1 has an infinite one."""
    logits = torch.tensor([[size, 0.0, -size], [-size, size, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    targets = labels if task == "multiclass" else F.one_hot(labels, 3)
    loss = ClassificationLoss(task, focusing=focusing)(logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert gradient[1, 0] < 0


@pytest.mark.parametrize("mix", [v2.MixUp, v2.CutMix])
def test_labels_that_mixup_and_cutmix_make(mix: Any) -> None:
    images, labels = torch.rand(8, 3, 6, 6), torch.randint(0, 4, (8,))
    _, mixed = mix(num_classes=4)(images, labels)
    logits = torch.randn(8, 4)
    expected = -(mixed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(ClassificationLoss()(logits, mixed), expected)
    focal = ClassificationLoss(focusing=2)(logits, mixed)
    p = logits.softmax(1)
    torch.testing.assert_close(focal, -(mixed * (1 - p) ** 2 * p.log()).sum(1).mean())


def test_hard_labels_are_soft_labels_of_one_class() -> None:
    logits, labels = multiclass()
    one_hot = F.one_hot(labels, 4).float()
    for loss in (ClassificationLoss(), ClassificationLoss(label_smoothing=0.2, focusing=1.5)):
        torch.testing.assert_close(loss(logits, labels), loss(logits, one_hot))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_a_single_logit_is_that_of_yes(shape: tuple[int, ...]) -> None:
    z, labels = torch.randn(shape), torch.randint(0, 2, (6,))
    expected = F.binary_cross_entropy_with_logits(z.flatten(), labels.float())
    torch.testing.assert_close(ClassificationLoss()(z, labels), expected)
    as_multilabel = ClassificationLoss("multilabel")(z, labels[:, None])
    torch.testing.assert_close(as_multilabel, expected)


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = multiclass()
    half = ClassificationLoss()(logits.bfloat16(), labels)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, F.cross_entropy(logits.bfloat16().float(), labels))


def test_a_custom_function() -> None:
    logits, labels = multiclass()
    loss = ClassificationLoss(function=F.multi_margin_loss)
    torch.testing.assert_close(loss(logits, labels), F.multi_margin_loss(logits, labels))
    total = ISNetLoss(0.0, classification=loss).classify(logits, labels)
    torch.testing.assert_close(total, F.multi_margin_loss(logits, labels))


def test_a_custom_modules_parameters_are_the_losss() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return self.scale * F.cross_entropy(logits, labels)

    loss = ClassificationLoss(function=Scaled())
    assert [name for name, _ in loss.named_parameters()] == ["function.scale"]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"task": "multi-label"}, ValueError, "did you mean 'multilabel'"),
        ({"class_weights": [1.0, -1.0]}, ValueError, "class_weights must be finite"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be a number in \[0, 1\]"),
        ({"focusing": -1}, ValueError, r"focusing must be a number in \[0, inf\)"),
        ({"focusing": "2"}, TypeError, "focusing must be a number"),
        ({"function": F.mse_loss, "focusing": 1.0}, ValueError, "must bring its own"),
    ],
)
def test_options_are_checked(options: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        ClassificationLoss(**options)


def test_options_are_given_once() -> None:
    with pytest.raises(ValueError, match="give them to ClassificationLoss"):
        ISNetLoss(task="multilabel", classification=ClassificationLoss())


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (torch.tensor([0.3, 0.7]), TypeError, r"use labels.long\(\) .*soft labels: shape \[B, C\]"),
        (torch.tensor([0, 4]), ValueError, "label 4 is out of range: the model has 4 classes"),
        (torch.tensor([[0], [3]]), ValueError, r"use labels.squeeze\(1\)"),
        (torch.eye(4)[:2].long(), ValueError, r"labels.argmax\(1\)"),
        (torch.full((2, 4), 0.3), ValueError, r"sum to 1 .* of samples \[0, 1\]"),
        (torch.tensor([[1.5, -0.5, 0, 0], [1, 0, 0, 0]]), ValueError, r"of samples \[0\]"),
        ([0, 1], TypeError, "labels must be a torch.Tensor, got list"),
    ],
)
def test_labels_are_checked(labels: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        ClassificationLoss()(torch.randn(2, 4), labels)


@pytest.mark.parametrize(
    "function",
    [
        lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
        lambda logits, labels: 1.0,
        lambda logits, labels: (logits.argmax(1) == labels).sum(),
    ],
)
def test_a_custom_function_must_return_a_scalar(function: Any) -> None:
    with pytest.raises(ValueError, match="must return a scalar, got"):
        ClassificationLoss(function=function)(*multiclass())


@pytest.mark.parametrize("weights", [[0.0, 0.0], [], [[1.0, 2.0]], 1.0])
def test_weights_without_a_number_for_a_class_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="one number for each class, not all of them 0"):
        ClassificationLoss(class_weights=weights)


@pytest.mark.parametrize(
    ("task", "batch"), [("multiclass", multiclass), ("multilabel", multilabel)]
)
@pytest.mark.parametrize("focusing", [0.0, 2.0])
def test_weights_of_another_number_of_classes_are_refused(
    task: str, batch: Any, focusing: float
) -> None:
    for weights in ([1.0, 2.0], [1.0], [1.0] * 5):
        loss = ClassificationLoss(task, weights, focusing=focusing)
        with pytest.raises(ValueError, match="one number for each of 4 classes"):
            loss(*batch())


@pytest.mark.parametrize("focusing", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_that_does_not_count_has_loss_0(focusing: float, smoothing: float) -> None:
    loss = ClassificationLoss(
        class_weights=[0.0, 0.0, 2.0], label_smoothing=smoothing, focusing=focusing
    )
    logits = torch.randn(4, 3, requires_grad=True)
    found = loss(logits, torch.tensor([0, 1, 1, 0]))
    assert found.item() == 0
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient.any()
    labels = torch.tensor([0, 2, 1, 0])
    expected = F.cross_entropy(logits, labels, loss.class_weights, label_smoothing=smoothing)
    if not focusing:
        assert torch.equal(loss(logits, labels), expected)
