"""The loss, against a plain reference written from the formulas (method §5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from faster_isnet import NO_MASK, Explanation, ISNetLoss
from faster_isnet.loss import gwrp, shrink_mask


def gwrp_by_hand(values: np.ndarray, decay: float) -> float:
    ordered = np.sort(values.ravel())[::-1]
    weights = decay ** np.arange(len(ordered), dtype=float)
    return float((weights * ordered).sum() / weights.sum())


def heatmap_loss_by_hand(h: np.ndarray, mask: np.ndarray, loss: ISNetLoss) -> float:
    """One heatmap [C, H, W] and mask [H, W], in float64."""
    inside = mask == 1
    if loss.normalization == "abs":
        u = np.abs(h) / np.abs(h[:, inside]).mean()
    elif loss.normalization == "signed":
        u = np.abs(h / h[:, inside].mean())
    else:
        u = np.abs(h) * h.size
    background = []
    for channel in u:
        s = gwrp_by_hand(channel * (1 - mask), loss.gwrp_decay)
        background.append(-np.log(1 - min(s / (s + loss.activation), 1 - 1e-7)))
    f, low, high = np.abs(h[:, inside]).sum(), loss.cut_low, loss.cut_high
    foreground = (min(f / low, 1) - 1) ** 2
    if loss.foreground == "l1":
        foreground += max(f, high) - high
    elif loss.foreground == "l2" or f <= low + high:
        foreground += (max(f / low, high / low) - high / low) ** 2
    else:
        foreground += abs(f - (low + high)) + 1
    return loss.background_weight * np.mean(background) + loss.foreground_weight * foreground


def sample(seed: int, batch: int = 2, k: int = 2, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h = scale * torch.randn(batch, k, 3, 6, 5, generator=generator, dtype=torch.float64)
    masks = (torch.rand(batch, 1, 6, 5, generator=generator) < 0.4).double()
    masks[..., 2, 2] = 1
    return h, masks


def explained(h: Tensor, classes: int = 4, **layers: Tensor) -> Explanation:
    logits = torch.linspace(-1, 1, len(h) * classes, dtype=h.dtype).reshape(len(h), classes)
    return Explanation(logits, h, layers, logits[:, :1])


def labels(h: Tensor) -> Tensor:
    return torch.arange(len(h)) % 4


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**20),
    st.sampled_from(["abs", "signed", "none"]),
    st.sampled_from(["l1", "l2", "hybrid"]),
    st.sampled_from([1e-6, 0.5, 0.9, 0.999, 1.0]),
    st.floats(0.01, 3),
    st.floats(0.1, 10),
)
def test_heatmap_loss_is_the_formula(
    seed: int, normalization: str, foreground: str, decay: float, low: float, scale: float
) -> None:
    h, masks = sample(seed, scale=scale)
    loss = ISNetLoss(
        gwrp_decay=decay,
        activation=0.7,
        background_weight=0.8,
        foreground_weight=0.3,
        cut_low=low,
        cut_high=5 * low,
        foreground=foreground,
        normalization=normalization,
    )
    expected = [
        np.mean([heatmap_loss_by_hand(one.numpy(), mask[0].numpy(), loss) for one in sample])
        for sample, mask in zip(h, masks, strict=True)
    ]
    found = loss.heatmap_losses(h, masks)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)
    parts = loss(explained(h), labels(h), masks)
    torch.testing.assert_close(parts.heatmap, torch.tensor(expected).mean())
    torch.testing.assert_close(parts.total, 0.3 * parts.classification + 0.7 * parts.heatmap)


@pytest.mark.parametrize("decay", [1e-3, 0.5, 0.9, 0.99, 0.9999, 1.0])
def test_gwrp_without_the_small_weights_is_the_full_sort(decay: float) -> None:
    values = torch.rand(3, 5000).exp() - 1
    expected = [gwrp_by_hand(row.double().numpy(), decay) for row in values]
    np.testing.assert_allclose(gwrp(values, decay).numpy(), expected, rtol=1e-6)


def test_gwrp_between_maximum_and_mean() -> None:
    values = torch.rand(4, 50, dtype=torch.float64)
    decays = [1e-12, 0.3, 0.8, 0.99, 1.0]
    pooled = torch.stack([gwrp(values, d) for d in decays])
    torch.testing.assert_close(pooled[0], values.amax(1))
    torch.testing.assert_close(pooled[-1], values.mean(1))
    assert (pooled.diff(dim=0) < 0).all()
    torch.testing.assert_close(gwrp(3 * values, 0.8), 3 * pooled[2])


@pytest.mark.parametrize("foreground", ["l1", "l2", "hybrid"])
@pytest.mark.parametrize("normalization", ["abs", "signed", "none"])
def test_gradient_in_float64(foreground: str, normalization: str) -> None:
    h, masks = sample(3)
    loss = ISNetLoss(cut_low=20, cut_high=30, foreground=foreground, normalization=normalization)
    for scale in (0.3, 1.0, 3.0):  # below C1, between, above C2
        values = (scale * h).requires_grad_()
        assert torch.autograd.gradcheck(lambda h: loss.heatmap_losses(h, masks), values)


def test_order_and_company_of_samples_do_not_matter() -> None:
    h, masks = sample(0, batch=5)
    loss, y = ISNetLoss(), labels(h)
    together = loss(explained(h), y, masks)
    flipped = Explanation(*(t.flip(0) for t in (explained(h).logits, h)), {}, h)
    torch.testing.assert_close(loss(flipped, y.flip(0), masks.flip(0)).total, together.total)
    alone = [loss.heatmap_losses(h[i : i + 1], masks[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(torch.cat(alone).mean(), together.heatmap)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("normalization", ["abs", "signed"])
def test_any_size_of_relevance_has_a_finite_loss_and_gradient(
    scale: float, normalization: str
) -> None:
    h, masks = sample(1)
    h = (scale * h).float().requires_grad_()
    loss = ISNetLoss(normalization=normalization).heatmap_losses(h, masks).sum()
    (gradient,) = torch.autograd.grad(loss, h)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_heatmap_that_vanishes_is_no_way_out() -> None:
    h, masks = sample(2)
    sizes = [ISNetLoss().heatmap_losses(s * h, masks).sum() for s in (1e-1, 1e-3, 0)]
    assert sizes[0] < sizes[1]
    torch.testing.assert_close(ISNetLoss().heatmap_losses(0 * h, masks), torch.ones(2).double())


def test_samples_without_a_mask_contribute_classification_only() -> None:
    h, masks = sample(0, batch=4)
    h.requires_grad_()
    masks[1:3] = NO_MASK
    loss, y = ISNetLoss(), labels(h)
    parts = loss(explained(h), y, masks)
    expected = loss.heatmap_losses(h[[0, 3]], masks[[0, 3]]).sum() / 4
    torch.testing.assert_close(parts.heatmap, expected)
    (gradient,) = torch.autograd.grad(parts.total, h)
    assert gradient[1:3].abs().sum() == 0
    assert gradient[[0, 3]].abs().sum() > 0
    for none in (None, torch.full_like(masks, NO_MASK)):
        parts = loss(explained(h), y, none)
        assert parts.heatmap == 0
        torch.testing.assert_close(parts.total, 0.3 * parts.classification)


def test_masks_of_every_kind_agree() -> None:
    h, masks = sample(0)
    loss, y = ISNetLoss(), labels(h)
    expected = loss(explained(h), y, masks).total
    for same in (masks.bool(), masks.byte(), masks.float(), masks.squeeze(1), masks.long()):
        torch.testing.assert_close(loss(explained(h), y, same).total, expected)


def test_multilabel_and_class_weights_are_torchs() -> None:
    h, masks = sample(0, batch=3)
    explanation, weights = explained(h), [1.0, 2.0, 0.5, 3.0]
    many = (torch.rand(3, 4) < 0.5).float()
    parts = ISNetLoss(task="multilabel", class_weights=weights)(explanation, many, masks)
    expected = F.binary_cross_entropy_with_logits(
        explanation.logits.float(), many, pos_weight=torch.tensor(weights)
    )
    torch.testing.assert_close(parts.classification.float(), expected)
    parts = ISNetLoss(class_weights=weights)(explanation, labels(h), masks)
    expected = F.cross_entropy(explanation.logits.float(), labels(h), torch.tensor(weights))
    torch.testing.assert_close(parts.classification.float(), expected)


def test_layers_are_joined_by_rank() -> None:
    h, masks = sample(0)
    layers = {"a": sample(5)[0][..., ::2, ::2], "b": 5 * sample(6)[0]}
    loss = ISNetLoss(layer_decay=0.5)
    each = [loss.heatmap_losses(r, shrink_mask(masks, r)) for r in (h, *layers.values())]
    ordered = torch.stack(each, 1).sort(descending=True).values
    expected = (ordered @ torch.tensor([4 / 7, 2 / 7, 1 / 7], dtype=torch.float64)).mean()
    torch.testing.assert_close(loss(explained(h, **layers), labels(h), masks).heatmap, expected)
    mean = ISNetLoss()(explained(h, **layers), labels(h), masks).heatmap
    torch.testing.assert_close(mean, torch.stack(each).mean())


@given(st.integers(0, 2**16), st.integers(1, 9), st.integers(1, 9))
def test_a_reduced_mask_has_foreground_wherever_any_falls(seed: int, h: int, w: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(2, 1, 9, 9, generator=generator) < 0.1).float()
    small = shrink_mask(masks, torch.zeros(2, 1, 3, h, w))
    torch.testing.assert_close(small, F.adaptive_max_pool2d(masks, (h, w)))


def test_computed_in_float32_whatever_the_network() -> None:
    h, masks = sample(0)
    half_explained = explained(h.bfloat16())
    half = ISNetLoss()(half_explained, labels(h), masks)
    in_single = (t.float() for t in (half_explained.logits, half_explained.heatmap))
    single = ISNetLoss()(Explanation(*in_single, {}, h), labels(h), masks)
    assert half.total.dtype == torch.float32
    torch.testing.assert_close(half.total, single.total)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"masks": torch.ones(2, 1, 3, 3)},
            ValueError,
            r"shape \[2, 1, 6, 5\], got \[2, 1, 3, 3\]",
        ),
        ({"masks": torch.full((2, 1, 6, 5), 0.5)}, ValueError, r"\[0.5\]; binarise with"),
        ({"masks": torch.full((2, 1, 6, 5), 255)}, ValueError, r"\[255\]; binarise with"),
        ({"masks": torch.zeros(2, 1, 6, 5)}, ValueError, r"samples \[0, 1\] have no foreground"),
        ({"masks": np.ones((2, 1, 6, 5))}, TypeError, "masks must be a torch.Tensor or None"),
        ({"y": torch.tensor([0, 4])}, ValueError, "label 4 is out of range: the model has 4"),
        ({"y": torch.tensor([0, -1])}, ValueError, "label -1 is out of range"),
        ({"y": torch.tensor([0.0, 1.0])}, TypeError, r"got torch.float32; use labels.long\(\)"),
        ({"y": torch.eye(4)[:2].long()}, ValueError, r"labels.argmax\(1\)"),
        ({"y": [0, 1]}, TypeError, "labels must be a torch.Tensor, got list"),
        ({"h": torch.full((2, 1, 3, 6, 5), torch.nan)}, FloatingPointError, r"samples \[0, 1\]"),
    ],
)
def test_bad_input_is_named(change: dict, error: type, message: str) -> None:
    h, masks = sample(0)
    given = {"h": h, "y": labels(h), "masks": masks} | change
    with pytest.raises(error, match=message):
        ISNetLoss()(explained(given["h"]), given["y"], given["masks"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heatmap_weight": 1.1}, r"heatmap_weight must be a number in \[0, 1\], got 1.1"),
        ({"gwrp_decay": 0}, r"gwrp_decay must be a number in \(0, 1\]"),
        ({"activation": float("nan")}, "activation must be a number"),
        ({"cut_low": 3, "cut_high": 2}, r"cut_high must be a number in \[3, inf\), got 2"),
        ({"foreground": "l3"}, "unknown foreground 'l3'; Known: 'hybrid', 'l1', 'l2'"),
        ({"normalization": "Abs"}, "did you mean 'abs'"),
        ({"task": "binary"}, "unknown task 'binary'"),
    ],
)
def test_parameters_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ISNetLoss(**arguments)


def test_multilabel_labels_are_checked() -> None:
    h, masks = sample(0)
    loss = ISNetLoss(task="multilabel")
    with pytest.raises(ValueError, match=r"shape \[2, 4\], got \[2\]"):
        loss(explained(h), labels(h), masks)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        loss(explained(h), torch.full((2, 4), 2), masks)
