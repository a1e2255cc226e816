"""The loss, against a plain reference written from the formulas (method §5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.nn import functional as F

from faster_isnet import NO_MASK, Explanation, ISNetLoss
from faster_isnet.methods.isnet.loss import gwrp, shrink_mask

NORMALIZATIONS = ["abs", "signed", "none"]
FOREGROUNDS = ["l1", "l2", "hybrid"]


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
    f, low, high = np.abs(h[:, inside]).sum(), loss.cuts.low[""][0], loss.cuts.high[""][0]
    foreground = (min(f / low, 1) - 1) ** 2
    if loss.foreground == "l1":
        foreground += max(f, high) - high
    elif loss.foreground == "l2" or f <= low + high:
        foreground += (max(f / low, high / low) - high / low) ** 2
    else:
        foreground += abs(f - (low + high)) + 1
    return loss.background_weight * np.mean(background) + loss.foreground_weight * foreground


@st.composite
def heatmaps_and_masks(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Heatmaps [2, 2, 2, 3, 4] with zeros and ties, and masks down to a single pixel."""
    h = draw(hnp.arrays(np.float64, (2, 2, 2, 3, 4), elements=st.integers(-40, 40))) / 8
    masks = draw(hnp.arrays(np.float64, (2, 1, 3, 4), elements=st.integers(0, 1)))
    masks[..., 0, 0] = 1
    h[:, :, 0, 0, 0] += 1 / 16  # no other is odd: no foreground sums to zero
    scale = draw(st.sampled_from([2.0**-20, 2.0**-3, 1.0, 8.0, 2.0**30]))
    return torch.from_numpy(h * scale), torch.from_numpy(masks)


def sample(seed: int, batch: int = 2, k: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(batch, k, 3, 6, 5, generator=generator, dtype=torch.float64)
    masks = (torch.rand(batch, 1, 6, 5, generator=generator) < 0.4).double()
    masks[..., 2, 2] = 1
    return h, masks


def explained(h: Tensor, classes: int = 4, **layers: Tensor) -> Explanation:
    logits = torch.linspace(-1, 1, len(h) * classes, dtype=h.dtype).reshape(len(h), classes)
    return Explanation(logits, h, layers, logits[:, :1])


def labels(h: Tensor) -> Tensor:
    return torch.arange(len(h)) % 4


@pytest.mark.parametrize("foreground", FOREGROUNDS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@settings(max_examples=40)
@given(
    heatmaps_and_masks(), st.sampled_from([1e-300, 1e-6, 0.5, 0.9, 0.999, 1.0]), st.floats(0.01, 30)
)
def test_heatmap_loss_is_the_formula(
    normalization: str, foreground: str, given: tuple[Tensor, Tensor], decay: float, low: float
) -> None:
    h, masks = given
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
    np.testing.assert_allclose(loss.heatmap_losses(h, masks).numpy(), expected, rtol=1e-8)
    parts = loss(explained(h), labels(h), masks)
    torch.testing.assert_close(parts.heatmap, torch.tensor(expected).mean())
    torch.testing.assert_close(parts.total, 0.3 * parts.classification + 0.7 * parts.heatmap)


@pytest.mark.parametrize("decay", [1e-3, 0.5, 0.9, 0.99, 0.9999, 1.0])
def test_gwrp_without_the_small_weights_is_the_full_sort(decay: float) -> None:
    values = torch.rand(3, 5000).exp() - 1
    expected = [gwrp_by_hand(row.double().numpy(), decay) for row in values]
    np.testing.assert_allclose(gwrp(values, decay).numpy(), expected, rtol=1e-6)
    assert (gwrp(torch.ones(1, 5000), decay) - 1).abs() < 1e-6


def test_gwrp_between_maximum_and_mean() -> None:
    values = torch.rand(4, 50, dtype=torch.float64)
    decays = [1e-12, 0.3, 0.8, 0.99, 1.0]
    pooled = torch.stack([gwrp(values, d) for d in decays])
    torch.testing.assert_close(pooled[0], values.amax(1))
    torch.testing.assert_close(pooled[-1], values.mean(1))
    assert (pooled.diff(dim=0) < 0).all()
    torch.testing.assert_close(gwrp(3 * values, 0.8), 3 * pooled[2])


@given(st.integers(0, 2**16), st.floats(1e-3, 1))
def test_gwrp_grows_with_every_value(seed: int, decay: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(9, dtype=torch.float64, generator=generator).expand(9, 9)
    raised = values + torch.eye(9, dtype=torch.float64)  # another value in each row
    assert (gwrp(raised, decay) > gwrp(values, decay)).all()


@pytest.mark.parametrize("foreground", FOREGROUNDS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradient_in_float64(foreground: str, normalization: str) -> None:
    h, masks = sample(3)
    loss = ISNetLoss(cut_low=20, cut_high=30, foreground=foreground, normalization=normalization)
    for scale in (0.3, 1.0, 3.0):  # below C1, between, above C2
        values = (scale * h).requires_grad_()
        assert torch.autograd.gradcheck(lambda h: loss.heatmap_losses(h, masks), values)


def test_losses_of_samples_are_independent() -> None:
    h, masks = sample(0, batch=5)
    loss, y, e = ISNetLoss(), labels(h), explained(h)
    together = loss(e, y, masks)
    flipped = Explanation(e.logits.flip(0), h.flip(0), {}, e.quantity)
    torch.testing.assert_close(loss(flipped, y.flip(0), masks.flip(0)).total, together.total)
    alone = [
        loss(Explanation(e.logits[i], h[i], {}, e.quantity[i]), y[i], masks[i])
        for i in torch.arange(5).split(1)
    ]
    for part in ("total", "classification", "heatmap"):
        mean = torch.stack([getattr(one, part) for one in alone]).mean()
        torch.testing.assert_close(mean, getattr(together, part))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_order_of_heatmaps_channels_and_pixels_does_not_matter(normalization: str) -> None:
    h, masks = sample(0)
    loss = ISNetLoss(normalization=normalization)
    expected = loss.heatmap_losses(h, masks)
    torch.testing.assert_close(loss.heatmap_losses(h.flip(1), masks), expected)
    torch.testing.assert_close(loss.heatmap_losses(h.flip(2), masks), expected)
    pixels = torch.randperm(30)
    shuffled = (t.flatten(-2)[..., pixels].reshape(t.shape) for t in (h, masks))
    torch.testing.assert_close(loss.heatmap_losses(*shuffled), expected)
    torch.testing.assert_close(loss.heatmap_losses(-h, masks), expected)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("foreground", ["l1", "hybrid"])  # l2 squares: F² may exceed float32
def test_any_size_of_relevance_has_a_finite_loss_and_gradient(
    scale: float, normalization: str, foreground: str
) -> None:
    h, masks = sample(1)
    h = (scale * h).float().requires_grad_()
    loss = ISNetLoss(normalization=normalization, foreground=foreground)
    losses = loss.heatmap_losses(h, masks)
    (gradient,) = torch.autograd.grad(losses.sum(), h)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("normalization", ["abs", "signed"])
def test_the_background_is_measured_in_units_of_the_foreground(
    scale: float, normalization: str
) -> None:
    h, masks = sample(1)
    loss = ISNetLoss(normalization=normalization, foreground_weight=0)
    expected = loss.heatmap_losses(h, masks).float()
    torch.testing.assert_close(loss.heatmap_losses((scale * h).float(), masks), expected)


def test_a_vanishing_heatmap_is_penalised() -> None:
    h, masks = sample(2)
    sizes = [ISNetLoss().heatmap_losses(s * h, masks).sum() for s in (1e-1, 1e-3, 0)]
    assert sizes[0] < sizes[1]
    torch.testing.assert_close(ISNetLoss().heatmap_losses(0 * h, masks), torch.ones(2).double())
    for size in (1e-30, 1e-3):  # with relevance in the foreground only, all of it is pulled up
        small = (size * h.sign() * masks.unsqueeze(1)).float().requires_grad_()
        (gradient,) = torch.autograd.grad(ISNetLoss().heatmap_losses(small, masks).sum(), small)
        assert (gradient * small.sign() < 0)[small != 0].all()


@pytest.mark.parametrize("p", [0.0, 0.7, 1.0])
def test_the_heatmap_weight_divides_the_loss(p: float) -> None:
    h, masks = sample(0)
    h.requires_grad_()
    e = explained(h)
    e.logits.requires_grad_()
    parts = ISNetLoss(heatmap_weight=p)(e, labels(h), masks)
    torch.testing.assert_close(parts.total, (1 - p) * parts.classification + p * parts.heatmap)
    of_heatmap, of_logits = torch.autograd.grad(parts.total, [h, e.logits])
    assert bool(of_heatmap.any()) == (p > 0)
    assert bool(of_logits.any()) == (p < 1)


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
        assert not torch.autograd.grad(parts.total, h)[0].any()


@pytest.mark.parametrize("with_mask", [[], [0]])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_heatmap_without_a_mask_need_not_be_finite(value: float, with_mask: list) -> None:
    h, masks = sample(0)
    without = [i for i in range(2) if i not in with_mask]
    masks[without] = NO_MASK
    expected = ISNetLoss()(explained(h), labels(h), masks).total
    broken = h.clone()
    broken[without] = value
    found = ISNetLoss()(Explanation(explained(h).logits, broken, {}, h), labels(h), masks).total
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("without_mask", [[], [0]])
def test_relevance_that_is_not_finite_is_an_error_that_names_the_samples(
    without_mask: list[int],
) -> None:
    h, masks = sample(0, batch=4)
    masks[without_mask] = NO_MASK
    h[2] = torch.nan
    with pytest.raises(FloatingPointError, match=r"heatmaps of samples \[2\]"):
        ISNetLoss()(explained(h), labels(h), masks)


def test_relevance_of_a_layer_that_is_not_finite_is_an_error() -> None:
    h, masks = sample(0)
    layer = h[..., ::2, ::2].clone()
    layer[1] = torch.nan
    with pytest.raises(FloatingPointError, match=r"samples \[1\]"):
        ISNetLoss()(explained(h, hidden=layer), labels(h), masks)


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_masks_of_every_kind_agree(dtype: torch.dtype, deep_supervision: bool) -> None:
    h, masks = sample(0)
    layers = {"hidden": sample(1)[0][..., ::2, ::2]} if deep_supervision else {}
    loss, y = ISNetLoss(), labels(h)
    expected = loss(explained(h, **layers), y, masks).total
    for same in (masks.to(dtype), masks.to(dtype).squeeze(1)):
        torch.testing.assert_close(loss(explained(h, **layers), y, same).total, expected)


def test_multilabel_and_class_weights_are_torchs() -> None:
    h, masks = sample(0, batch=3)
    e, weights, y = explained(h), [1.0, 2.0, 0.5, 3.0], labels(h)
    many = (torch.rand(3, 4) < 0.5).double()
    w = torch.tensor(weights).double()
    bce = F.binary_cross_entropy_with_logits
    for arguments, target, expected in (
        ({}, y, F.cross_entropy(e.logits, y)),
        ({"class_weights": weights}, y, F.cross_entropy(e.logits, y, w)),
        ({"task": "multilabel"}, many, bce(e.logits, many)),
        ({"task": "multilabel", "class_weights": w}, many, bce(e.logits, many, pos_weight=w)),
    ):
        loss = ISNetLoss(**arguments)
        for kind in (target, target.bool()) if "task" in arguments else (target,):
            torch.testing.assert_close(loss(e, kind, masks).classification, expected)
        assert not loss.state_dict()  # weights are settings, not what was learnt


@pytest.mark.parametrize("weights", [[1.0, -1.0, 1.0, 1.0], [1.0, torch.nan, 1.0, 1.0]])
def test_class_weights_are_checked(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="class_weights"):
        ISNetLoss(class_weights=weights)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_losses_of_layers_are_pooled_by_rank(decay: float) -> None:
    h, masks = sample(0)
    layers = {"a": sample(5)[0][..., ::2, ::2], "b": 5 * sample(6)[0]}
    loss = ISNetLoss(layer_decay=decay)
    each = [loss.heatmap_losses(r, shrink_mask(masks, r)) for r in (h, *layers.values())]
    expected = [gwrp_by_hand(one.numpy(), decay) for one in torch.stack(each, 1)]
    found = loss(explained(h, **layers), labels(h), masks).heatmap
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64).mean())


@given(st.integers(0, 2**16), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_a_reduced_mask_has_foreground_wherever_any_falls(seed: int, size: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(2, 1, *[7] * len(size), generator=generator) < 0.1).float()
    pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[len(size) - 1]
    small = shrink_mask(masks, torch.zeros(2, 1, 3, *size))
    assert torch.equal(small, pool(masks, size))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computed_in_float32_whatever_the_network(dtype: torch.dtype, masked: bool) -> None:
    h, masks = sample(0)
    e, y, given = explained(h.to(dtype)), labels(h), masks if masked else None
    half = ISNetLoss()(e, y, given)
    single = ISNetLoss()(Explanation(e.logits.float(), e.heatmap.float(), {}, h), y, given)
    for part in ("total", "classification", "heatmap"):
        torch.testing.assert_close(getattr(half, part), getattr(single, part))
        assert getattr(half, part).dtype == torch.float32


def test_labels_and_masks_are_checked() -> None:
    h, masks = sample(0)
    with pytest.raises(ValueError, match="label 4 is out of range: the model has 4"):
        ISNetLoss()(explained(h), torch.tensor([0, 4]), masks)
    with pytest.raises(ValueError, match="multi-label labels"):
        ISNetLoss(task="multilabel")(explained(h), labels(h), masks)
    with pytest.raises(ValueError, match=r"samples \[0, 1\] have no foreground"):
        ISNetLoss()(explained(h), labels(h), 0 * masks)
    with pytest.raises(ValueError, match=r"2 spatial dimensions, got .*\[2, 2, 3\]; name other"):
        ISNetLoss()(explained(h, flat=h[..., 0, 0]), labels(h), masks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heatmap_weight": 1.1}, r"heatmap_weight must be a number in \[0, 1\], got 1.1"),
        ({"gwrp_decay": 0}, r"gwrp_decay must be a number in \(0, 1\]"),
        ({"layer_decay": 0}, r"layer_decay must be a number in \(0, 1\]"),
        ({"activation": float("nan")}, r"activation must be a number in \(0, inf\)"),
        ({"activation": 0}, r"activation must be a number in \(0, inf\)"),
        ({"background_weight": -1}, r"background_weight must be a number in \[0, inf\)"),
        ({"foreground_weight": -1}, r"foreground_weight must be a number in \[0, inf\)"),
        ({"cut_low": 0}, r"cut_low must be a number in \(0, inf\)"),
        ({"cut_low": 3, "cut_high": 2}, r"cut_high must be a number in \[3, inf\), got 2"),
        ({"foreground": "l3"}, "unknown foreground 'l3'; Known: 'hybrid', 'l1', 'l2'"),
        ({"normalization": "Abs"}, "did you mean 'abs'"),
        ({"task": "binary"}, "unknown task 'binary'"),
    ],
)
def test_parameters_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ISNetLoss(**arguments)
