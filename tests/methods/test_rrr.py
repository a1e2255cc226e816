"""The penalty of RRR is the squared gradient of all log probabilities in the background."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from coloured_marks import FALSE, NO_MARK, TRUE, accuracy, marked_images, striped, train
from faster_isnet import NO_MASK
from faster_isnet.methods import Batch, ClassificationLoss, RightReasons, Standard

SIZE = 4


def batch(count: int = 3, classes: int = 3, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    masks = (torch.rand(count, 1, SIZE, SIZE, generator=rng) < 0.5).double()
    masks[..., 0, 0], masks[..., 0, 1] = 1, 0
    images = torch.rand(count, 2, SIZE, SIZE, generator=rng, dtype=torch.float64)
    return Batch(images, torch.arange(count) % classes, masks)


def linear(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * SIZE**2, classes)).double()


def smooth(classes: int) -> nn.Module:
    """A network that has all derivatives."""
    return nn.Sequential(
        *(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, classes))
    ).double()


def in_background(gradient: Tensor, masks: Tensor) -> Tensor:
    """Return the sum of squares in the background of gradients ``[B, 2 · H · W]``."""
    by_pixel = gradient.reshape(-1, 2, SIZE, SIZE).square()
    return (by_pixel * (masks == 0)).sum((1, 2, 3))


def test_the_penalty_of_a_linear_network_by_its_formula() -> None:
    """∂/∂x Σ log p = Wᵀ (1 − K p); for multi-label Wᵀ (1 − 2 p)."""
    data, network = batch(), linear(3)
    logits, weight = network(data.images), network[1].weight
    multiclass = RightReasons(weight=0.3).losses(network, data)
    expected = in_background((1 - 3 * logits.softmax(1)) @ weight, data.masks)
    torch.testing.assert_close(multiclass.parts["gradient"], expected.mean())
    torch.testing.assert_close(multiclass.total, multiclass.classification + 0.3 * expected.mean())
    torch.testing.assert_close(multiclass.logits, logits)
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 0]])
    multilabel = RightReasons(ClassificationLoss("multilabel")).losses(
        network, data._replace(labels=labels)
    )
    expected = in_background((1 - 2 * logits.sigmoid()) @ weight, data.masks)
    torch.testing.assert_close(multilabel.parts["gradient"], expected.mean())


def test_a_single_logit_is_explained_as_two() -> None:
    data, one, two = batch(classes=2), linear(1), linear(2)
    with torch.no_grad():
        for single, double in zip(one[1].parameters(), two[1].parameters(), strict=True):
            double.copy_(torch.cat([-single / 2, single / 2]))
    penalties = [RightReasons().losses(net, data).parts["gradient"] for net in (one, two)]
    torch.testing.assert_close(*penalties)


def test_gradients_are_those_of_finite_differences() -> None:
    data, network, method = batch(), smooth(3), RightReasons(weight=0.7)
    names, values = zip(*network.named_parameters(), strict=True)

    class Called(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            given = dict(zip(names, self.values, strict=True))
            return torch.func.functional_call(network, given, (images,))

    def loss(*values: Tensor) -> Tensor:
        called = Called()
        called.values = values
        return method.losses(called, data).total

    assert torch.autograd.gradcheck(loss, values)


def test_what_reads_the_foreground_alone_has_no_penalty() -> None:
    data = batch()

    class Foreground(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth(3)

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images * data.masks)

    assert RightReasons().losses(Foreground(), data).parts["gradient"] == 0
    assert RightReasons().losses(smooth(3), data).parts["gradient"] > 0


def test_images_without_a_mask_contribute_to_the_classification_alone() -> None:
    data, network, method = batch(), smooth(3), RightReasons(weight=2.0)
    whole = method.losses(network, data).parts["gradient"]
    first = method.losses(network, data.select(torch.tensor([0]))).parts["gradient"]
    masks = data.masks.clone()
    masks[1:] = NO_MASK
    some = method.losses(network, data._replace(masks=masks)).parts["gradient"]
    torch.testing.assert_close(some, first / 3)
    assert some != whole
    for none in (None, torch.full_like(masks, NO_MASK)):
        losses = method.losses(network, data._replace(masks=none))
        assert losses.total == losses.classification > 0
        assert losses.parts["gradient"] == 0
        losses.total.backward()


def test_without_weight_it_is_the_standard_classifier() -> None:
    data, network, method = batch(), smooth(3), RightReasons(weight=0)
    torch.testing.assert_close(
        method.losses(network, data).total, Standard().losses(network, data).total
    )
    assert not method.needs_masks()
    assert not method.reads_masks()
    assert RightReasons().needs_masks()
    assert RightReasons().reads_masks()


def test_images_are_left_as_they_are() -> None:
    data = batch()
    RightReasons().losses(smooth(3), data).total.backward()
    assert not data.images.requires_grad
    assert data.images.grad is None


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_other_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"weight must be a number in \[0, inf\)"):
        RightReasons(weight=weight)


def test_masks_that_do_not_fit_are_refused() -> None:
    data, network = batch(), smooth(3)
    with pytest.raises(ValueError, match="masks must have the images' size"):
        RightReasons().losses(network, data._replace(masks=data.masks[..., 1:]))
    with pytest.raises(ValueError, match="masks must hold 0 and 1 only"):
        RightReasons().losses(network, data._replace(masks=data.masks / 2))


def test_a_network_that_hides_its_gradient_is_refused() -> None:
    class Frozen(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach().flatten(1)[:, :3]

    with pytest.raises(ValueError, match="no gradient with respect to the images"):
        RightReasons().losses(Frozen(), batch())


def flat_head() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 16, 2)),
    )


def test_it_learns_to_ignore_the_background() -> None:
    standard, reasons = (
        train(method, flat_head, marked_images(striped, TRUE), 150)
        for method in (Standard(), RightReasons())
    )
    tests = [marked_images(striped, mark, seed=1) for mark in (TRUE, NO_MARK, FALSE)]
    assert accuracy(standard, tests[0]) == 1
    assert accuracy(standard, tests[2]) < 0.1
    assert min(accuracy(reasons, test) for test in tests) > 0.95
