"""GAIN supervises the Grad-CAM of the labels, of any network, and mines what it leaves out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import LayerGradCam
from torch import Tensor, nn

from coloured_marks import FALSE, NO_MARK, TRUE, accuracy, marked_images, tinted, train
from faster_isnet import NO_MASK
from faster_isnet.methods import GAIN, Batch, ClassificationLoss, Standard
from faster_isnet.methods.gain import grad_cam
from faster_isnet.models import build_backbone
from layered_networks import Lambda

SIZE = 16


def batch(count: int = 3, classes: int = 3, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.float64)
    masks[..., 3:11, 4:12] = 1
    images = torch.rand(count, 3, SIZE, SIZE, generator=rng, dtype=torch.float64)
    return Batch(images, torch.arange(count) % classes, masks)


class Tokens(nn.Module):
    """Feature maps as tokens, behind some without a place."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x.flatten(2).mT, (0, 0, self.prefix, 0), value=3.0)


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


class Mean(nn.Module):
    """The mean over all places, and tokens without one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, -2).mean(1)


def network(form: nn.Module | None = None, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    form = ChannelsLast() if form is None else form
    first = nn.Conv2d(3, 5, 4, 4)
    return nn.Sequential(first, nn.Tanh(), form, Mean(), nn.Linear(5, classes)).double()


def maps(logits_of: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return captum's Grad-CAM, scaled to [0, 1]."""
    found = LayerGradCam(logits_of, layer).attribute(images, labels, relu_attributions=True)
    return found / found.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)  # some are zero


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_the_map_is_grad_cam_of_captum(name: str) -> None:
    torch.manual_seed(1)
    model, images, labels = build_backbone(name, 3).eval(), torch.rand(2, 3, 64, 64), [0, 2]
    layer = {"convnet": "block5", "resnet18": "layer4"}[name]
    outputs: list[Tensor] = []
    module = model.get_submodule(layer)
    with module.register_forward_hook(lambda module, args, output: outputs.append(output)):
        logits = model(images)
    (gradient,) = torch.autograd.grad(logits[[0, 1], labels].sum(), outputs[0])
    ours = grad_cam(outputs[0], gradient)
    assert 0 < (ours > 0).float().mean() < 1
    torch.testing.assert_close(ours, maps(model, module, images, torch.tensor(labels)))


def test_both_losses_by_their_formulas() -> None:
    data, model = batch(), network()
    attention = maps(model, model[1], data.images, data.labels)
    assert attention.flatten(1).any(1).all()
    small = F.adaptive_avg_pool2d(data.masks, 4)
    assert small.unique().tolist() != [0, 1]  # a place may be covered in part
    large = F.interpolate(attention, (SIZE, SIZE), mode="bilinear")
    erased = data.images * (1 - torch.sigmoid(7 * (large - 0.4)))
    probability = model(erased).softmax(1)[range(3), data.labels].mean()
    method = GAIN(mining_weight=2, mask_weight=3, steepness=7, threshold=0.4, layer="1")
    losses = method.losses(method.build(model), data)
    torch.testing.assert_close(losses.parts["mask"], (attention - small).square().mean())
    torch.testing.assert_close(losses.parts["mining"], probability)
    torch.testing.assert_close(
        losses.total,
        losses.classification + 2 * losses.parts["mining"] + 3 * losses.parts["mask"],
    )


@pytest.mark.parametrize("form", [Tokens(0), Tokens(1), Tokens(3), ChannelsLast()])
def test_a_layer_of_any_form_has_the_maps_of_the_same_values(form: nn.Module) -> None:
    data, model = batch(), network(form)
    results = []
    for layer in ("1", "2"):
        method = GAIN(layer=layer)
        losses = method.losses(method.build(model), data)
        gradient = torch.autograd.grad(losses.total, model[0].weight)[0]
        results.append((losses.parts["mask"], losses.parts["mining"], gradient))
    torch.testing.assert_close(*results)
    assert results[0][2].abs().sum() > 0


def test_gradients_are_those_of_finite_differences() -> None:
    """Those of the weights α of the map as well."""
    data, method = batch(), GAIN(layer="1")
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 4, 4), nn.Tanh(), nn.Conv2d(4, 3, 2), nn.Softplus()),
        *(nn.Flatten(), nn.Linear(27, 3)),
    ).double()
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*values: Tensor) -> Tensor:
        called = copy.deepcopy(model)
        for name, value in zip(names, values, strict=True):
            owner, _, kind = name.rpartition(".")
            module = called.get_submodule(owner)
            del module._parameters[kind]
            setattr(module, kind, value)
        return method.losses(called, data).total

    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def test_multi_label_is_the_mean_over_the_positive_labels_of_a_sample() -> None:
    data, model = batch(), network().eval()
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]])
    method = GAIN(ClassificationLoss("multilabel"), layer="1")
    whole = method.losses(model, data._replace(labels=labels)).parts

    def alone(sample: int, label: int) -> Tensor:
        one = torch.eye(3)[None, label]
        only = data.select(torch.tensor([sample]))._replace(labels=one)
        parts = method.losses(model, only).parts
        return torch.stack([parts["mining"], parts["mask"]])

    expected = ((alone(0, 0) + alone(0, 2)) / 2 + alone(2, 1)) / 3
    torch.testing.assert_close(torch.stack([whole["mining"], whole["mask"]]), expected)
    none = method.losses(model, data._replace(labels=torch.zeros(3, 3)))
    assert none.total == none.classification > 0


def test_soft_labels_are_explained_by_the_largest() -> None:
    data, method, model = batch(), GAIN(layer="1"), network()
    soft = torch.tensor([[0.6, 0.4, 0], [0.1, 0.8, 0.1], [0, 0.3, 0.7]])
    hard, mixed = (
        method.losses(model, data._replace(labels=labels)).parts for labels in (data.labels, soft)
    )
    torch.testing.assert_close(hard["mask"], mixed["mask"])
    torch.testing.assert_close(hard["mining"], mixed["mining"])


def test_a_single_logit_is_explained_for_yes_and_for_no() -> None:
    data, method, one = batch(classes=2), GAIN(layer="1"), network(classes=1)
    two = network(classes=2)
    with torch.no_grad():
        for single, double in zip(one[4].parameters(), two[4].parameters(), strict=True):
            double.copy_(torch.cat([-single / 2, single / 2]))
    torch.testing.assert_close(method.losses(one, data).total, method.losses(two, data).total)


def test_images_without_a_mask_have_no_mask_loss() -> None:
    data, method, model = batch(), GAIN(layer="1"), network()
    whole, first = (
        method.losses(model, part).parts for part in (data, data.select(torch.tensor([0])))
    )
    masks = data.masks.clone()
    masks[1:] = NO_MASK
    some = method.losses(model, data._replace(masks=masks)).parts
    torch.testing.assert_close(some["mask"], first["mask"] / 3)
    torch.testing.assert_close(some["mining"], whole["mining"])
    for none in (None, torch.full_like(masks, NO_MASK)):
        without = data._replace(masks=none)
        assert method.losses(model, without).parts["mask"] == 0
        alone = GAIN(mining_weight=0, layer="1").losses(model, without)
        assert alone.total == alone.classification > 0
        alone.total.backward()


def test_without_weights_it_is_the_standard_classifier() -> None:
    data, method, model = batch(), GAIN(mining_weight=0, mask_weight=0), network()
    standard = Standard().losses(model, data)
    torch.testing.assert_close(method.losses(model, data).total, standard.total)
    assert not method.needs_masks()
    assert not method.reads_masks()
    assert GAIN().needs_masks()
    assert GAIN().reads_masks()


def test_erased_images_leave_the_statistics_of_batch_norm_alone() -> None:
    data, model = batch(), build_backbone("convnet", 3).double()
    other = copy.deepcopy(model)
    other(data.images)
    GAIN(layer="block5").losses(model, data)
    for ours, expected in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, expected)


def test_a_single_label_of_a_batch_passes_batch_norm() -> None:
    """Which takes no single sample behind the pooling."""
    norm = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.ReLU(), ChannelsLast(), Mean(), norm).double()
    labels = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    method = GAIN(ClassificationLoss("multilabel"), layer="1")
    losses = method.losses(model, batch()._replace(labels=labels))
    assert losses.parts["mining"] > 0
    losses.total.backward()


def test_a_map_of_zeros_has_finite_losses_and_gradients() -> None:
    data, model = batch(), network()
    model[1] = nn.Softplus()
    nn.init.constant_(model[4].weight, -1.0)  # no place speaks for a class
    losses = GAIN(layer="1").losses(model, data)
    losses.total.backward()
    torch.testing.assert_close(
        losses.parts["mask"], F.adaptive_avg_pool2d(data.masks, 4).square().mean()
    )
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes(dims: int) -> None:
    conv, pool = ((nn.Conv1d, nn.AdaptiveAvgPool1d), None, (nn.Conv3d, nn.AdaptiveAvgPool3d))[
        dims - 1
    ]
    model = nn.Sequential(conv(2, 4, 3, 2, 1), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 2))
    masks = torch.zeros(2, 1, *[8] * dims)
    masks[:, :, 2:6] = 1
    data = Batch(torch.rand(2, 2, *[8] * dims), torch.tensor([0, 1]), masks)
    losses = GAIN().losses(model, data)
    assert losses.parts["mask"] > 0
    losses.total.backward()


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_vision_transformer(pool: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3, num_classes=3, global_pool=pool
    )
    images, masks = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    method = GAIN()
    nn.init.normal_(model.head.weight)
    losses = method.losses(model, Batch(images, torch.tensor([0, 2]), masks))
    assert method.layer == {"token": "blocks.1", "avg": "blocks.2"}[pool]
    assert losses.parts["mask"] > 0
    losses.total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_the_layer_may_be_named_without_what_the_network_is_wrapped_in() -> None:
    inner = torchvision.models.resnet18(num_classes=3)
    method = GAIN(layer="layer3")
    method.build(nn.Sequential(nn.Identity(), inner))
    assert method.layer == "1.layer3"


def test_layers_that_do_not_suit_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown layer 'layer5'; did you mean"):
        GAIN(layer="layer5").build(torchvision.models.resnet18())
    with pytest.raises(ValueError, match=r"layer '3' returns \[3, 5\], which has no places"):
        GAIN(layer="3").losses(network(), batch())
    vectors = Lambda(lambda x: x.flatten(1), nn.Linear(3 * SIZE**2, 3)).double()
    with pytest.raises(ValueError, match=r"no hidden layer .* names of modules"):
        GAIN().losses(vectors, batch())


def test_a_checkpoint_keeps_the_layer_that_was_found() -> None:
    method, resumed = GAIN(), GAIN()
    assert method.state() == {}
    method.see_image_shape(build_backbone("convnet", 3), (3, 32, 32))
    resumed.load_state(method.state())
    assert resumed.layer == "block5"


@pytest.mark.parametrize(
    ("option", "value"),
    [("mining_weight", -1.0), ("mask_weight", -1.0), ("steepness", 0.0), ("threshold", 1.5)],
)
def test_other_numbers_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must be a number in"):
        GAIN(**{option: value})


def local() -> nn.Module:
    """A network whose features each see one patch, so that they stay where they belong."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
    )


@pytest.mark.slow
def test_it_learns_to_attend_to_the_foreground() -> None:
    standard, guided = (
        train(method, local, marked_images(tinted, TRUE, noise=0.2), 600)
        for method in (Standard(), GAIN())
    )
    tests = [marked_images(tinted, mark, seed=1, noise=0.2) for mark in (TRUE, NO_MARK, FALSE)]
    assert accuracy(standard, tests[0]) == 1
    assert accuracy(standard, tests[2]) < 0.6
    assert min(accuracy(guided, test) for test in tests) > 0.8
    distances = [GAIN(layer="3").losses(net, tests[2]).parts["mask"] for net in (standard, guided)]
    assert distances[1] < 0.25 * distances[0]
